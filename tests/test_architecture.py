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


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


each_file = pytest.mark.parametrize("file", FILES, ids=name_of)


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
        if (
            isinstance(node, ast.ClassDef)
            and file.parent.name != "sandbox"
            and file.name != "connection.py"
            and not protocol
        ):
            silent += [
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, kinds) and not inner.name.startswith("_") and not inner.decorator_list
                if not ast.get_docstring(inner)
            ]
    if file.parent.name == "sandbox":
        silent = [name for name in silent if name in ("the module", "Sandbox", "main", "builtin_seed")]
    assert silent == []


def test_the_version_is_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: tavus_provider.__version__"
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", tavus_provider.__version__)
    info = tavus_provider.get_provider_info.get_provider_info()
    assert setup["metadata"]["name"] == info["package-name"]
    assert info.get("versions", [tavus_provider.__version__])[0] == tavus_provider.__version__


def test_the_changelog_tells_of_this_version():
    assert tavus_provider.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_no_file_names_a_place_of_the_machine_it_was_written_on():
    places = re.compile(r"/(?:work|home|root|Users)/|/tmp/")
    for file in [*FILES, *(ROOT / "dags").glob("*.py")]:
        assert not places.search(file.read_text()), file
