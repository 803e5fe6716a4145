"""
Imports that must stay cheap, and rules for every file. import-linter checks the layers (``make lint``).
"""

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
TASK_ONLY = {"client", "execution", "hooks", "planning", "retention", "storage"}
"""Packages of ours that only a running task needs."""
HEAVY = {"requests", "urllib3", "http.client", "concurrent.futures.thread", "ssl", "pydantic", "rich"}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


each_file = pytest.mark.parametrize("file", FILES, ids=module_name)


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import tavus_provider; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(re.findall(r"'([^']+)'", done.stdout)) <= {"tavus_provider", "__future__"}


def test_importing_the_operators_loads_no_http_and_no_task_code():
    """Airflow parses DAG files again and again. What airflow.sdk itself imports does not count."""
    code = (
        "import sys, airflow.sdk; from airflow.sdk import DAG, BaseOperator; before = set(sys.modules); "
        "import tavus_provider.operators.tavus; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = set(re.findall(r"'([^']+)'", done.stdout.splitlines()[-1]))
    ours = {name.split(".")[1] for name in imported if name.startswith("tavus_provider.")}
    assert "operators" in ours
    assert not ours & TASK_ONLY
    assert not imported & HEAVY


@each_file
def test_no_assert_statement(file):
    """``python -O`` would remove it."""
    assert not [node.lineno for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Assert)]


@each_file
def test_no_print(file):
    names = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)]
    assert not [node.lineno for node in names if node.id == "print"]


def undocumented_names(tree: ast.Module, *, skip_methods: bool) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    found = [node.name for node in public if not ast.get_docstring(node)]
    for node in public:
        bases = [base.id for base in getattr(node, "bases", []) if isinstance(base, ast.Name)]
        if skip_methods or not isinstance(node, ast.ClassDef) or "Protocol" in bases:
            continue
        found += [
            f"{node.name}.{method.name}"
            for method in node.body
            if isinstance(method, kinds) and not method.name.startswith("_")
            if not method.decorator_list and not ast.get_docstring(method)
        ]
    return found


@each_file
def test_every_public_name_has_a_docstring(file):
    """Exempt are methods of Protocols and of the HTTP session (overrides), and most of the sandbox."""
    tree = ast.parse(file.read_text())
    assert not tree.body or ast.get_docstring(tree)
    skip = file.parent.name == "sandbox" or file.name == "connection.py"
    found = undocumented_names(tree, skip_methods=skip)
    if file.parent.name == "sandbox":
        found = [name for name in found if name in ("Sandbox", "main", "builtin_seed")]
    assert found == []


@each_file
def test_no_module_has_more_than_500_lines(file):
    """A longer module probably holds two ideas: split it where the second one begins."""
    assert len(file.read_text().splitlines()) <= 500


def lines_of_docstrings(tree: ast.AST) -> int:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [
        node for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node) is not None
    ]
    return sum(node.body[0].end_lineno - node.body[0].lineno + 1 for node in nodes)


@each_file
def test_no_class_has_more_than_250_lines(file):
    """Docstrings of it and of its methods do not count."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno + 1 - lines_of_docstrings(node) <= 250, node.name


def test_version_is_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: tavus_provider.__version__"
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", tavus_provider.__version__)
    info = tavus_provider.get_provider_info.get_provider_info()
    assert setup["metadata"]["name"] == info["package-name"]
    assert info.get("versions", [tavus_provider.__version__])[0] == tavus_provider.__version__


def test_changelog_lists_this_version_or_what_is_unreleased():
    headings = re.findall(r"^## \[?([^\]\n]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", tavus_provider.__version__)


def test_no_file_holds_a_path_of_a_developer_machine():
    paths = re.compile(r"/(?:work|home|root|Users)/|/tmp/")
    for file in [*FILES, *(ROOT / "dags").glob("*.py")]:
        assert not paths.search(file.read_text()), file
