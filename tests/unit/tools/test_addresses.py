"""Which addresses are public, and how hosts are spelled and listed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from talon.domain.errors import Invalid
from talon.tools.builtin.addresses import HostRule, host_of, host_rules, listed, literal, special_kind


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("169.254.169.254", "link-local"),  # cloud metadata
        ("100.64.0.1", "shared (CGNAT)"),
        ("100.127.255.255", "shared (CGNAT)"),
        ("192.0.0.8", "reserved"),
        ("198.18.0.1", "benchmarking"),
        ("203.0.113.5", "documentation"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),  # IPv4-compatible
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:0:192.168.0.1", "private"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::1", "local NAT64"),
        ("2002:7f00:1::", "loopback"),
        ("2002:c0a8:101::1", "private"),
        ("2001::1", "reserved"),  # Teredo
        ("2001:db8::1", "documentation"),
        ("fc00::1", "private"),
        ("fd12:3456::1", "private"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("4000::1", "reserved"),
        ("93.184.215.14", ""),
        ("8.8.8.8", ""),
        ("172.32.0.1", ""),
        ("100.128.0.1", ""),
        ("2606:4700::1111", ""),
        ("::ffff:8.8.8.8", ""),
        ("64:ff9b::8.8.8.8", ""),
    ],
)
def test_what_an_address_is(address: str, kind: str) -> None:
    assert special_kind(ipaddress.ip_address(address)) == kind


@given(st.ip_addresses())
def test_nothing_passes_that_the_standard_library_calls_private_or_local(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    private = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    embedded = getattr(address, "ipv4_mapped", None)
    if private and embedded is None:
        assert special_kind(address)


@given(st.ip_addresses(v=4))
def test_an_address_in_another_notation_is_the_same_address(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    octets = str(address).split(".")
    for spelling in (
        str(number),
        hex(number),
        ".".join(oct(int(o)).replace("0o", "0") for o in octets),
        ".".join(hex(int(o)) for o in octets),
    ):
        assert literal(spelling) == address, spelling


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.COM/", "example.com"),
        ("http://example.com./", "example.com"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://127.1/", "127.0.0.1"),
        ("http://0x7f.1/", "127.0.0.1"),
        ("http://0177.0.0.1/", "127.0.0.1"),
        ("http://１２７.０.０.１/", "127.0.0.1"),
        ("http://127。0。0。1/", "127.0.0.1"),
        ("http://[::ffff:127.0.0.1]/", "::ffff:7f00:1"),
        ("http://[0:0:0:0:0:0:0:1]/", "::1"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://my_host:80/", "my_host"),
    ],
)
def test_a_host_has_one_spelling(url: str, host: str) -> None:
    assert ipaddress_or_text(host_of(URL(url))) == ipaddress_or_text(host)


def ipaddress_or_text(host: str) -> object:
    return literal(host) or host


@pytest.mark.parametrize("url", ["http://a b/", "http://1.1.1.256/", "http://99999999999/", "http:///path", "http://-x/"])
def test_what_is_neither_name_nor_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a host name or an address"):
        host_of(URL(url))


def test_host_lists_compare_whole_hosts_and_ports() -> None:
    rules = host_rules(["Acme.com", "internal:8080", "10.0.0.1", "[::1]:9000", "::1", "127.1:80"], "hosts")
    assert rules[0] == HostRule("acme.com", None)
    assert listed(rules, "acme.com", 443)
    assert not listed(rules, "x.acme.com", 443)
    assert not listed(rules, "acme.com.evil.example", 443)
    assert not listed(rules, "acmexcom", 443)
    assert listed(rules, "internal", 8080)
    assert not listed(rules, "internal", 80)
    assert listed(rules, "10.0.0.1", 5432)
    assert listed(rules, "::1", 9000)
    assert listed(rules, "::1", 1)
    assert listed(rules, "127.0.0.1", 80)
    assert not listed(rules, "127.0.0.1", 81)


def test_wrong_entries_are_named() -> None:
    with pytest.raises(Invalid) as caught:
        host_rules(["good", "http://a", "a/b", "*.acme.com", "a:99999", "", "user@host"], "tools.http_request.allow_hosts")
    assert [error.field for error in caught.value.errors] == [f"tools.http_request.allow_hosts[{n}]" for n in (1, 2, 3, 4, 5, 6)]
    assert "'*.acme.com' is not `host` or `host:port`" in caught.value.detail
