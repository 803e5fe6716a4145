"""Who may import whom, and what holds for every file of the package."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tavus_provider

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tavus_provider"
FILES = sorted(PACKAGE.rglob("*.py"))
HTTP = {"requests", "urllib3", "http", "httpx", "aiohttp", "socket", "ssl", "urllib"}
CLOCK = {"time"}

# What each room may import of ours. Whatever is not named here may not be imported: nothing points upward.
PURE = {
    *("digest", "exceptions", "replica", "words", "policy", "facts", "ladder", "retention"),
    *("schema", "plan", "forecast", "chart"),
}
MAY = {
    "__init__": set(),
    "exceptions": set(),
    "replica": {"exceptions"},
    "digest": set(),
    "words": {"exceptions", "replica"},
    "policy": {"digest", "exceptions", "words"},
    "facts": {"exceptions", "policy", "replica", "words"},
    "ladder": {"facts", "policy", "replica", "words"},
    "retention": {"exceptions", "facts", "ladder", "policy", "replica", "words"},
    "schema": {"policy"},
    "plan": {"digest", "exceptions", "ladder", "replica", "retention"},
    "forecast": {"facts", "ladder", "plan", "policy", "replica", "retention", "words"},
    "chart": {"forecast", "replica"},
    "ledger": {"digest", "exceptions"},
    "files": {"exceptions", "ledger", "policy", "replica", "retention"},
    "known": {"facts", "files", "ledger", "retention"},
    "page": {"plan", "replica", "retention"},
    "account": {"exceptions"},
    "wire": {"__init__"},
    "transport": {"account", "exceptions", "replica", "wire"},
    "hooks.tavus": {"__init__", "account", "exceptions", "replica", "transport"},
    "apply": {"digest", "exceptions", "facts", "ladder", "plan", "replica", "retention"},
    "batches": {"apply", "exceptions", "plan"},
    "store": {"digest", "exceptions", "ledger", "plan"},
    "operators.base": {
        "replica",
        *("digest", "exceptions", "hooks.tavus", "ledger", "links.tavus", "plan", "store"),
    },
    "operators.delete": {
        *(
            "apply",
            "exceptions",
            "files",
            "ledger",
            "operators.base",
            "operators.__init__",
            "plan",
            "replica",
        ),
        "retention",
    },
    "operators.plan": {
        *("apply", "exceptions", "files", "known", "operators.base", "page", "plan"),
        *("policy", "replica", "retention", "store"),
    },
    "operators.approve": {
        *("digest", "exceptions", "ledger", "operators.base", "page"),
    },
    "operators.apply": {
        *("account", "apply", "batches", "exceptions", "hooks.tavus", "known", "ledger", "operators.base"),
        *("page", "plan", "replica", "retention"),
    },
    "operators.tavus": {"operators.apply", "operators.approve", "operators.delete", "operators.plan"},
    "links.tavus": {"exceptions"},
    "links.__init__": set(),
    "notifications.__init__": set(),
    "notifications.tavus": {"apply", "replica"},
    "plugins.button": set(),
    "plugins.server": set(),
    "plugins.tavus": {"plugins.button", "plugins.server"},
    "cli": {
        *("apply", "chart", "exceptions", "files", "forecast", "hooks.tavus", "known", "ledger", "page"),
        *("facts", "ladder", "plan", "replica", "retention", "schema"),
    },
    "__main__": {"cli"},
    "sandbox": set(),
    "plugins.__init__": set(),
    "hooks.__init__": set(),
    "operators.__init__": set(),
}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


def imports(file: Path) -> set[str]:
    """The dotted names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            for name in [f"{module}.{alias.name}" for alias in node.names]:
                # "from tavus_provider.operators import base" imports a room, all else names in one.
                room = name.removeprefix("tavus_provider.") in MAY
                whole = "tavus_provider.__init__" if module == "tavus_provider" else module
                found.add(name if room else whole)
    return found


def ours(file: Path) -> set[str]:
    names = {name for name in imports(file) if name.split(".")[0] == "tavus_provider"}
    return {name.removeprefix("tavus_provider").lstrip(".") or "__init__" for name in names}


def others(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)} - {"tavus_provider"}


each_file = pytest.mark.parametrize("file", FILES, ids=name_of)


@each_file
def test_a_room_imports_only_from_the_rooms_below_it(file):
    assert name_of(file) in MAY, "a new room: say here what it may import"
    assert ours(file) <= MAY[name_of(file)]


def test_nothing_points_upward():
    below: dict[str, set[str]] = {}
    left = dict(MAY)
    while left:
        ready = [room for room, uses in left.items() if uses <= set(below)]
        assert ready, f"these import each other in a circle: {sorted(left)}"
        below |= {room: left.pop(room) for room in ready}


@pytest.mark.parametrize("room", sorted(PURE))
def test_what_decides_knows_neither_airflow_nor_http_nor_the_clock(room):
    file = PACKAGE / f"{room}.py"
    assert not others(file) & ({"airflow"} | HTTP | CLOCK)
    calls = {
        node.attr
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in ("datetime", "date", "time")
    }
    assert not calls & {"now", "utcnow", "today", "time", "monotonic"}


@pytest.mark.parametrize("room", ["account", "wire", "transport", "apply", "batches", "page", *sorted(PURE)])
def test_only_hooks_and_operators_know_airflow(room):
    assert "airflow" not in others(PACKAGE / f"{room}.py")


@pytest.mark.parametrize("room", ["apply", "batches", "store", "page", "account", "operators/tavus"])
def test_only_the_hook_and_what_is_below_it_speak_http(room):
    assert not others(PACKAGE / f"{room}.py") & HTTP


def test_hooks_do_not_know_policies():
    assert not ours(PACKAGE / "hooks" / "tavus.py") & {"retention", "plan", "apply", "page"}


def test_the_sandbox_imports_nothing_of_ours_so_that_it_is_an_independent_witness():
    assert ours(PACKAGE / "sandbox.py") == set()


def test_nothing_of_ours_but_a_test_uses_the_sandbox():
    assert not [file for file in FILES if "sandbox" in ours(file)]


def test_nothing_but_the_command_itself_uses_the_command_line():
    assert [name_of(file) for file in FILES if "cli" in ours(file)] == ["__main__"]


def test_importing_the_package_imports_nothing():
    code = "import sys; before = set(sys.modules); import tavus_provider; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(re.findall(r"'([^']+)'", done.stdout)) <= {"tavus_provider", "__future__"}


def test_importing_the_operators_brings_neither_http_nor_what_only_a_task_needs():
    """DAG files are parsed all day long; what airflow.sdk itself brings is there anyway."""
    code = (
        "import sys, airflow.sdk; from airflow.sdk import DAG, BaseOperator; before = set(sys.modules); "
        "import tavus_provider.operators.tavus; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    brought = set(re.findall(r"'([^']+)'", done.stdout.splitlines()[-1]))
    ours = {name.removeprefix("tavus_provider.") for name in brought if name.startswith("tavus_provider.")}
    assert "operators.tavus" in ours
    assert not ours & {"hooks", "hooks.tavus", "transport", "wire", "retention", "apply", "plan"}
    heavy = {"requests", "urllib3", "http.client", "concurrent.futures.thread", "ssl", "pydantic", "rich"}
    assert not brought & heavy


@each_file
def test_no_check_is_an_assert_that_an_optimised_python_would_drop(file):
    assert not [node.lineno for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Assert)]


@each_file
def test_nothing_is_printed(file):
    named = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)]
    assert not [node.lineno for node in named if node.id == "print"]


@each_file
def test_every_public_name_says_what_it_does(file):
    tree = ast.parse(file.read_text())
    silent = []
    if tree.body and not ast.get_docstring(tree):
        silent.append("the module")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            silent.append(node.name)
        # Methods of the sandbox's own pieces and of a Protocol repeat what is said elsewhere.
        protocol = isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases
        )
        if isinstance(node, ast.ClassDef) and file.name not in ("sandbox.py", "wire.py") and not protocol:
            silent += [
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, kinds) and not inner.name.startswith("_") and not inner.decorator_list
                if not ast.get_docstring(inner)
            ]
    if file.name in ("sandbox.py",):
        silent = [name for name in silent if name in ("the module", "Sandbox", "main", "builtin_seed")]
    assert silent == []


def test_the_version_is_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: tavus_provider.__version__"
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", tavus_provider.__version__)
    info = tavus_provider.get_provider_info()
    assert setup["metadata"]["name"] == info["package-name"]
    assert info.get("versions", [tavus_provider.__version__])[0] == tavus_provider.__version__


def test_the_changelog_tells_of_this_version():
    assert tavus_provider.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_no_file_names_a_place_of_the_machine_it_was_written_on():
    places = re.compile(r"/(?:work|home|root|Users)/|/tmp/")
    for file in [*FILES, *(ROOT / "dags").glob("*.py")]:
        assert not places.search(file.read_text()), file
