"""Tokens that somebody else signs: what a genuine one gives, and every known way to forge one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.handclock import HandClock
from support.idp import Signer, provider
from talon.access.protocol import GRANTS_MAX, HEADER_MAX
from talon.access.roles import Grant
from talon.access.signers import EVERY_S, FRESH_S, USABLE_S, Algorithm, OneKey, PublishedKeys, Signers, public_key
from talon.access.tokens import REMEMBER_MS, Rules, Verifier
from talon.domain.errors import Unauthenticated, Unavailable

SECRET = "s" * 40
NOW = 1_800_000_000
CLAIMS: dict[str, Any] = {"iss": "https://idp.example", "aud": "talon", "sub": "ann", "exp": NOW + 600}


def verifier(signers: Signers, algorithm: Algorithm, clock: HandClock | None = None) -> Verifier:
    return Verifier(Rules(algorithm, "https://idp.example", "talon", 30.0, "talon_grants"), signers, clock or HandClock())


RSA, EC, ED = Signer("RS256", "k1"), Signer("ES256", "k1"), Signer("EdDSA", "k1")
SIGNERS: dict[Algorithm, Signer] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def by_key(algorithm: Algorithm = "RS256", clock: HandClock | None = None) -> Verifier:
    key = SECRET.encode() if algorithm == "HS256" else public_key(SIGNERS[algorithm].pem, algorithm)
    return verifier(OneKey(key), algorithm, clock)


def token(**claims: Any) -> str:
    return RSA.sign({name: value for name, value in (CLAIMS | claims).items() if value is not None})


async def refused(check: Verifier, text: str) -> str:
    with pytest.raises(Unauthenticated) as raised:
        await check.recognise(text)
    assert raised.value.challenge.startswith("Bearer")
    return raised.value.detail


def part(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class TestGenuine:
    @pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
    async def test_each_algorithm_recognises_its_own(self, algorithm: Algorithm) -> None:
        claims = CLAIMS | {"talon_grants": ["developer@acme", "viewer@*"]}
        text = jwt.encode(claims, SECRET, "HS256") if algorithm == "HS256" else SIGNERS[algorithm].sign(claims)
        found = await by_key(algorithm).recognise(text)
        assert found.who.id == "user:https://idp.example#ann"
        assert found.who.grants == (Grant("developer", "acme"), Grant("viewer", "*"))
        assert found.who.expires_at_ms == (NOW + 600 + 30) * 1000
        assert found.until_ms == NOW * 1000 + REMEMBER_MS

    @pytest.mark.parametrize(
        ("claim", "grants"),
        [
            (None, []),
            ("viewer@acme  admin@other", ["admin@other", "viewer@acme"]),
            (["group-1", "viewer@acme", "god@acme", "viewer@A b", 7, None, ["x"]], ["viewer@acme"]),
            ({"viewer@acme": 1}, []),
            (7, []),
            (True, []),
            ([f"viewer@n{n}" for n in range(GRANTS_MAX + 1)], []),
        ],
    )
    async def test_the_claim_gives_grants_and_what_is_none_gives_nothing(self, claim: Any, grants: list[str]) -> None:
        found = await by_key().recognise(token(talon_grants=claim))
        assert [f"{one.role}@{one.namespace}" for one in found.who.grants] == grants

    @pytest.mark.parametrize("audience", ["talon", ["other", "talon"]])
    async def test_the_audience_is_one_or_a_list(self, audience: Any) -> None:
        await by_key().recognise(token(aud=audience))

    async def test_clocks_may_differ_by_the_skew(self) -> None:
        await by_key().recognise(token(exp=NOW - 29))
        await by_key().recognise(token(nbf=NOW + 30, iat=NOW + 30))


class TestForged:
    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"exp": NOW - 30}, "expired"),
            ({"exp": None}, "when it expires"),
            ({"exp": "never"}, "when it expires"),
            ({"exp": True}, "when it expires"),
            ({"exp": 1e300}, "when it expires"),
            ({"exp": -1}, "when it expires"),
            ({"exp": [NOW + 600]}, "when it expires"),
            ({"nbf": NOW + 31}, "not valid yet"),
            ({"nbf": "soon"}, "not valid yet"),
            ({"iat": NOW + 31}, "not valid yet"),
            ({"iss": "https://evil.example"}, "issuer"),
            ({"iss": None}, "issuer"),
            ({"iss": ["https://idp.example"]}, "issuer"),
            ({"aud": "other"}, "audience"),
            ({"aud": None}, "audience"),
            ({"aud": ["other"]}, "audience"),
            ({"aud": {"talon": 1}}, "audience"),
            ({"aud": "talon2"}, "audience"),
            ({"sub": None}, "whom"),
            ({"sub": ""}, "whom"),
            ({"sub": 7}, "whom"),
            ({"sub": "a\nb"}, "whom"),
            ({"sub": "x" * 256}, "whom"),
        ],
    )
    async def test_a_signed_token_that_says_the_wrong_thing_is_nobody(self, claims: dict[str, Any], reason: str) -> None:
        now = CLAIMS | claims
        text = f"{part({'alg': 'RS256'})}.{part({name: value for name, value in now.items() if value is not None})}"
        assert reason in await refused(by_key(), _signed(text))

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS256", "ES256", "PS256", "RS512", "rs256"])
    @pytest.mark.parametrize("signature", ["", "x", "right"])
    async def test_another_algorithm_than_the_configured_one_is_nobody(self, alg: str, signature: str) -> None:
        text = f"{part({'alg': alg})}.{part(CLAIMS)}"
        signed = _signed(text) if signature == "right" else f"{text}.{part(signature.encode())}"
        assert "RS256" in await refused(by_key(), signed)

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    async def test_the_public_key_as_the_secret_of_an_hmac_is_nobody(self, algorithm: Algorithm) -> None:
        signer = SIGNERS[algorithm]
        jwk = json.dumps(signer.jwk()).encode()
        for secret in (signer.pem, signer.pem.rstrip(b"\n"), signer.pem + b"\0", jwk):
            for alg in ("HS256", algorithm):
                text = f"{part({'alg': alg, 'typ': 'JWT'})}.{part(CLAIMS)}"
                mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
                await refused(by_key(algorithm), f"{text}.{part(mac)}")

    async def test_a_key_in_the_token_itself_is_not_taken(self) -> None:
        own = Signer("RS256", "k1")
        for header in (
            {"jwk": own.jwk()},
            {"jku": "https://evil.example/jwks"},
            {"x5u": "https://evil.example"},
            {"kid": "../../x"},
        ):
            await refused(by_key(), own.sign(CLAIMS, header))

    @pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": False}])
    async def test_what_a_header_demands_and_nobody_understands_is_refused(self, header: dict[str, Any]) -> None:
        text = f"{part({'alg': 'RS256', **header})}.{part(CLAIMS)}"
        assert "not understood" in await refused(by_key(), _signed(text))

    async def test_a_changed_token_is_nobody(self) -> None:
        header, body, signature = token().split(".")
        other = part(CLAIMS | {"sub": "admin"})
        for text in (
            f"{header}.{other}.{signature}",
            f"{header}.{body}.",
            f"{header}.{body}.{signature[:-4]}",
            f".{body}.{signature}",
        ):
            await refused(by_key(), text)

    async def test_garbage_is_nobody_and_costs_nothing(self) -> None:
        seed = time.time_ns()
        print(f"seed {seed}")
        rand = random.Random(seed)
        good = token()
        texts = [
            "..",
            "a.b.c",
            "." * 3,
            f"{part(b'[' * 9000)}.x.y",
            part(b'{"a":' * 1000) + "..",
            f"{part([1])}.{part(CLAIMS)}.x",
            f"{part({'alg': ['RS256']})}.{part(CLAIMS)}.x",
            f"{part({'alg': 'RS256', 'kid': 7})}.{part(CLAIMS)}.x",
            _signed(f"{part({'alg': 'RS256'})}.{part(b'[' * 9000)}"),
            _signed(f"{part({'alg': 'RS256'})}.{part([CLAIMS])}"),
            _signed(f"{part({'alg': 'RS256'})}.{part(b'')}"),
            good + "." * HEADER_MAX,
            "é.é.é",
            "\udcff.\0.x",
        ]
        for _ in range(500):
            chars = list(good)
            for _ in range(rand.randrange(1, 6)):
                # The last character of a part may have bits that mean nothing.
                chars[rand.randrange(len(chars))] = rand.choice("ABab09-_.=\0é")
            changed = "".join(chars)
            if changed.rpartition(".")[0] != good.rpartition(".")[0]:
                texts.append(changed)
        check = by_key()
        for text in texts:
            await refused(check, text)
        await check.recognise(good)


def _signed(text: str) -> str:
    """A true signature of RSA's over whatever it is."""
    return f"{text}.{part(jwt.get_algorithm_by_name('RS256').sign(text.encode(), RSA.key))}"


class TestKeys:
    @pytest.mark.parametrize(
        ("pem", "algorithm"),
        [
            (RSA.pem, "ES256"),
            (EC.pem, "RS256"),
            (ED.pem, "ES256"),
            (Signer("ES256", "k", ec.generate_private_key(ec.SECP384R1())).pem, "ES256"),
            (Signer("RS256", "k", rsa.generate_private_key(65537, 1024)).pem, "RS256"),
            (b"nonsense", "RS256"),
            (b"", "RS256"),
            (b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n", "RS256"),
        ],
    )
    def test_a_file_with_another_key_is_refused_when_it_is_read(self, pem: bytes, algorithm: Algorithm) -> None:
        with pytest.raises(ValueError, match=r"key"):
            public_key(pem, algorithm)

    async def test_a_published_set_is_asked_once_and_again_when_it_is_old(self) -> None:
        clock = HandClock()
        async with provider() as idp:
            keys = PublishedKeys(f"{idp.url}/jwks", "RS256", clock, lambda: None)
            for _ in range(5):
                assert await keys.find("k1") is not None
            assert await keys.find("") is not None
            assert len(idp.asked) == 1
            clock.later(FRESH_S)
            await keys.find("k1")
            assert len(idp.asked) == 2

    async def test_a_rotation_is_found_by_its_new_key_and_the_old_one_ends(self) -> None:
        clock, ended = HandClock(), list[int]()
        async with provider() as idp:
            keys = PublishedKeys(f"{idp.url}/jwks", "RS256", clock, lambda: ended.append(1))
            check = verifier(keys, "RS256", clock)
            old, new = idp.signer, Signer("RS256", "k2")
            await check.recognise(old.sign(CLAIMS))
            idp.published = [old.jwk(), new.jwk()]
            clock.later(EVERY_S)
            await check.recognise(new.sign(CLAIMS))
            await check.recognise(old.sign(CLAIMS))
            assert ended == []
            idp.published = [new.jwk()]
            clock.later(FRESH_S)
            assert "signer" in await refused(check, old.sign(CLAIMS))
            assert ended == [1]
            await check.recognise(new.sign(CLAIMS))

    async def test_unknown_key_ids_do_not_flood_the_provider(self) -> None:
        clock = HandClock()
        async with provider() as idp:
            check = verifier(PublishedKeys(f"{idp.url}/jwks", "RS256", clock, lambda: None), "RS256", clock)
            for number in range(50):
                await refused(check, Signer("RS256", f"x{number}", RSA.key).sign(CLAIMS))
                clock.later(EVERY_S / 100)
            assert len(idp.asked) == 1

    async def test_a_provider_that_is_away_is_done_without_for_a_while_and_then_missed(self) -> None:
        clock = HandClock()
        async with provider() as idp:
            check = verifier(PublishedKeys(f"{idp.url}/jwks", "RS256", clock, lambda: None), "RS256", clock)
            idp.down = True
            with pytest.raises(Unavailable) as raised:
                await check.recognise(idp.signer.sign(CLAIMS))
            assert raised.value.code == "identity_unavailable"
            idp.down = False
            clock.later(EVERY_S)
            await check.recognise(idp.signer.sign(CLAIMS))
            idp.down = True
            clock.later(USABLE_S - 1)
            await check.recognise(idp.signer.sign(CLAIMS | {"exp": clock.now_ms() // 1000 + 600}))
            clock.later(1)
            with pytest.raises(Unavailable):
                await check.recognise(idp.signer.sign(CLAIMS | {"exp": clock.now_ms() // 1000 + 600}))

    @pytest.mark.parametrize(
        "published",
        [
            list,
            lambda: [RSA.jwk(alg="PS256")],
            lambda: [RSA.jwk(use="enc")],
            lambda: [RSA.jwk(kty="oct", k=part(b"s" * 32))],
            lambda: [{"kty": "oct", "kid": "k1", "k": part(RSA.pem)}],
            lambda: [RSA.jwk(n="AQAB")],
            lambda: [RSA.jwk(e="")],
            lambda: [EC.jwk(), ED.jwk(), 7, None, {}, {"kty": 1}],
            lambda: [{key: value for key, value in RSA.jwk().items() if key != "kid"}],
        ],
    )
    async def test_what_is_no_key_for_this_algorithm_does_not_count(self, published: Callable[[], list[Any]]) -> None:
        async with provider() as idp:
            idp.published = published()
            check = verifier(PublishedKeys(f"{idp.url}/jwks", "RS256", HandClock(), lambda: None), "RS256")
            await refused(check, token())

    async def test_without_an_id_only_the_one_key_there_is_counts(self) -> None:
        async with provider() as idp:
            idp.published = [RSA.jwk(), Signer("RS256", "k2").jwk()]
            check = verifier(PublishedKeys(f"{idp.url}/jwks", "RS256", HandClock(), lambda: None), "RS256")
            text = jwt.encode(CLAIMS, RSA.key, "RS256")
            await refused(check, text)
            await check.recognise(token())
