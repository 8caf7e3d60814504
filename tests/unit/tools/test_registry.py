"""Toolsets from modules and entry points, what an agent is granted, and what a turn keeps of it."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from talon import ToolContext, tool
from talon.domain.errors import Invalid
from talon.tools import gate
from talon.tools.loader import PythonToolset
from talon.tools.protocol import Tool, ToolSpec
from talon.tools.registry import Registry, load_toolsets

CONTEXT = ToolContext(key="tk_1", namespace="acme", agent="support", session="s1", turn_id="t1", call=1)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A directory of user modules; what is imported from it is forgotten afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)) or name.startswith("shop"):
            del sys.modules[name]
    importlib.invalidate_caches()


def write(directory: Path, name: str, text: str) -> None:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    importlib.invalidate_caches()


def made(*names: str, effect: Any = "read") -> dict[str, Tool]:
    def one(name: str) -> Tool:
        def call(n: int = 0) -> str:
            return f"{name} {n}"

        return tool(effect=effect, name=name)(call)

    return {name: one(name) for name in names}


@pytest.fixture
def registry() -> Registry:
    return Registry(
        [
            PythonToolset("builtin", made("current_time", "search")),
            PythonToolset("stripe-readonly", made("list_renewals", "search")),
            PythonToolset("hubspot-readonly", made("contacts", "search")),
        ]
    )


# Loading.


def test_a_module_is_a_toolset_named_after_its_last_part(project: Path) -> None:
    write(project, "shop/stripe_readonly.py", "from talon import tool\n@tool\ndef list_all() -> str:\n    return 'x'\n")
    write(project, "shop/crm.py", "from talon import tool\nTOOLSET = 'hubspot'\n@tool\ndef contacts() -> str:\n    return 'y'\n")
    registry = load_toolsets(["shop.stripe_readonly", "shop.crm"], [project])
    assert {name: [t["name"] for t in tools] for name, tools in registry.catalogue().items()} == {
        "stripe-readonly": ["list_all"],
        "hubspot": ["contacts"],
    }


def test_tools_that_a_module_imported_belong_to_their_own_module(project: Path) -> None:
    write(project, "shop_a.py", "from talon import tool\n@tool\ndef one() -> str:\n    return 'x'\n")
    write(project, "shop_b.py", "from talon import tool\nfrom shop_a import one\n@tool\ndef two() -> str:\n    return one()\n")
    assert [t["name"] for t in load_toolsets(["shop_b"], [project]).catalogue()["shop-b"]] == ["two"]


def test_a_package_gathers_the_tools_of_its_own_modules(project: Path) -> None:
    write(project, "shop/__init__.py", "from shop.inner import one\n")
    write(project, "shop/inner.py", "from talon import tool\n@tool\ndef one() -> str:\n    return 'x'\n")
    assert [t["name"] for t in load_toolsets(["shop"], [project]).catalogue()["shop"]] == ["one"]


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (
            "from talon import tool\n\n@tool\ndef f(n) -> str:\n    return 'x'\n",
            ["TypeError", "parameter 'n' has no annotation", "line 3"],
        ),
        ("x = 1\ny = x / 0\n", ["ZeroDivisionError: division by zero", "line 2"]),
        ("import json\n\n\njson.loads('{')\n", ["JSONDecodeError", "line 4"]),
        ("def f(:\n    pass\n", ["SyntaxError", "line 1"]),
        ("import no_such_library\n", ["ModuleNotFoundError: No module named 'no_such_library'", "line 1"]),
        ("import sys\nsys.exit('no')\n", ["SystemExit: no", "line 2"]),
        ("x = 1\n", ["defines no tool"]),
        (
            "from talon import tool\n@tool(name='a')\ndef f() -> str: ...\n@tool(name='a')\ndef g() -> str: ...\n",
            ["two tools named 'a'"],
        ),
    ],
)
def test_a_module_that_cannot_be_used_is_named_with_the_place_of_the_mistake(project: Path, source: str, parts: list[str]) -> None:
    write(project, "shop_bad.py", source)
    with pytest.raises(Invalid) as caught:
        load_toolsets(["shop_bad"], [project])
    assert caught.value.code == "invalid"
    assert caught.value.errors[0].field == "tools.modules[0]"
    for part in ["'shop_bad'", *parts]:
        assert part in caught.value.detail
    if any(part.startswith("line") for part in parts):
        assert str(project / "shop_bad.py") in caught.value.detail
    assert "Traceback" not in caught.value.detail
    assert caught.value.__cause__ is None


def test_a_module_that_does_not_exist_says_where_it_was_looked_for(project: Path) -> None:
    with pytest.raises(Invalid) as caught:
        load_toolsets(["shop_a", "shop.missing"], [project])
    assert "there is no module 'shop_a'" in caught.value.detail
    assert str(project) in caught.value.detail


def test_an_installed_package_offers_toolsets_by_entry_point(project: Path) -> None:
    write(project, "shop_x/__init__.py", "from talon import tool\n@tool\ndef one() -> str:\n    return 'x'\n")
    write(
        project,
        "shop_y.py",
        """
        from talon.tools.loader import PythonToolset
        def make():
            return PythonToolset("made", {})
        """,
    )
    write(project, "shop-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    write(project, "shop-1.0.dist-info/entry_points.txt", "[talon.toolsets]\nx = shop_x\ny = shop_y:make\n")
    sys.path.append(str(project))
    assert set(load_toolsets([]).catalogue()) == {"shop-x", "made"}
    write(project, "shop-1.0.dist-info/entry_points.txt", "[talon.toolsets]\nz = shop_y:gone\n")
    with pytest.raises(Invalid, match="entry point 'z' of shop: 'shop_y:gone' cannot be loaded: AttributeError"):
        load_toolsets([])


def test_two_toolsets_of_one_name_are_refused() -> None:
    with pytest.raises(Invalid, match="two toolsets are named 'a'"):
        Registry([PythonToolset("a", made("x")), PythonToolset("a", made("y"))])


def test_a_toolset_needs_a_proper_name() -> None:
    with pytest.raises(Invalid, match="'Not_A_Name' cannot name a toolset"):
        Registry([PythonToolset("Not_A_Name", {})])


@pytest.mark.parametrize("parameters", [{"type": "nonsense"}, {"type": "string"}, {}])
def test_a_tool_whose_schema_is_none_is_refused(parameters: dict[str, Any]) -> None:
    class Odd:
        name = "odd"

        def tools(self) -> Mapping[str, Tool]:
            member: Any = made("x")["x"]
            member._spec = ToolSpec("x", "", parameters)
            return {"x": member}

    with pytest.raises(Invalid, match="the parameters of odd/x are no JSON Schema"):
        Registry([Odd()])


# Granting.


def test_a_toolset_in_the_references_grants_its_tools(registry: Registry) -> None:
    granted = registry.resolve(["stripe-readonly"])
    assert list(granted.specs) == list(granted.tools) == ["list_renewals", "search"]
    assert granted.unresolved == ()


def test_allowed_tools_narrow_what_references_grant(registry: Registry) -> None:
    assert list(registry.resolve(["stripe-readonly", "hubspot-readonly"], ["contacts"]).specs) == ["contacts"]
    granted = registry.resolve(["stripe-readonly", "hubspot-readonly"], ["hubspot-readonly/search", "list_renewals"])
    assert {name: pin.toolset for name, pin in granted.pinned.items()} == {
        "list_renewals": "stripe-readonly",
        "search": "hubspot-readonly",
    }


def test_allowed_tools_never_widen_what_references_grant(registry: Registry) -> None:
    for outside in ("contacts", "current_time", "hubspot-readonly/contacts"):
        granted = registry.resolve(["stripe-readonly"], [outside])
        assert granted.unresolved == (outside,)
        assert granted.specs == granted.tools == {}


def test_an_empty_list_of_allowed_tools_allows_none(registry: Registry) -> None:
    assert registry.resolve(["stripe-readonly"], []).specs == {}
    assert registry.resolve([], []).specs == {}


def test_without_references_and_allowed_tools_there_are_none(registry: Registry) -> None:
    granted = registry.resolve()
    assert (granted.specs, granted.unresolved) == ({}, ())


def test_without_references_a_bare_name_is_a_builtin_tool_or_the_only_one_of_that_name(registry: Registry) -> None:
    granted = registry.resolve([], ["current_time", "contacts", "search"])
    assert {name: pin.toolset for name, pin in granted.pinned.items()} == {
        "contacts": "hubspot-readonly",
        "current_time": "builtin",
        "search": "builtin",
    }
    assert registry.resolve([], ["stripe-readonly/search"]).pinned["search"].toolset == "stripe-readonly"


def test_what_nothing_serves_is_returned_by_name(registry: Registry) -> None:
    granted = registry.resolve(["stripe-readonly", "zendesk"], ["tickets"])
    assert granted.unresolved == ("zendesk",)
    assert "'zendesk'" in granted.detail
    assert "'stripe-readonly'" in granted.detail
    assert registry.resolve([], ["no_such_tool", "zendesk/tickets"]).unresolved == ("no_such_tool", "zendesk/tickets")


def test_a_name_that_means_two_tools_is_not_guessed(registry: Registry) -> None:
    both = registry.resolve(["stripe-readonly", "hubspot-readonly"])
    assert both.unresolved == ("search",)
    assert "granted twice, by 'stripe-readonly' and 'hubspot-readonly'" in both.detail
    named = registry.resolve(["stripe-readonly", "hubspot-readonly"], ["search"])
    assert named.unresolved == ("search",)
    assert "'stripe-readonly/search', 'hubspot-readonly/search'" in named.detail


def test_the_catalogue_is_json(registry: Registry) -> None:
    listing = msgspec.json.decode(msgspec.json.encode(registry.catalogue()))
    assert listing["builtin"][0]["name"] == "current_time"
    assert set(listing["builtin"][0]) == {"name", "description", "parameters", "effect"}


# Pinning (K12).


async def test_a_turn_keeps_the_contracts_that_it_began_with(registry: Registry) -> None:
    kept = registry.resolve(["stripe-readonly"]).pinned.values()
    newer: dict[str, Tool] = made("list_renewals", "brand_new", effect="unsafe")
    bound = Registry([PythonToolset("stripe-readonly", newer)]).bind(kept)
    assert list(bound.specs) == ["list_renewals", "search"]
    assert bound.specs["list_renewals"].effect == "read"
    assert bound.tools == {"list_renewals": newer["list_renewals"]}
    gone = await gate.run(bound.tools.get("search"), {}, CONTEXT, spec=bound.specs["search"])
    assert gone.error == "missing"


def test_a_pinned_tool_is_not_replaced_by_one_of_another_toolset(registry: Registry) -> None:
    kept = registry.resolve(["stripe-readonly"], ["search"]).pinned.values()
    assert Registry([PythonToolset("other", made("search"))]).bind(kept).tools == {}


def test_what_is_pinned_is_the_same_whatever_the_code_behind_it(registry: Registry) -> None:
    granted = registry.resolve(["stripe-readonly"])
    assert all(spec.code == "" for spec in granted.specs.values())
    assert granted.tools["search"].spec.code != ""
    assert registry.bind(granted.pinned.values()).pinned == granted.pinned


async def test_closing_the_registry_closes_what_toolsets_hold_open() -> None:
    closed: list[str] = []

    class Holding:
        name = "holding"

        def tools(self) -> Mapping[str, Tool]:
            return {}

        async def close(self) -> None:
            closed.append(self.name)

    await Registry([Holding(), PythonToolset("plain", {})]).close()
    assert closed == ["holding"]
