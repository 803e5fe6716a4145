"""Tables and sentences of the documentation that repeat the code are compared with it."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from pages import MAKEFILE, PAGES, ROOT, column, page_name, read, table

from tavus_provider.get_provider_info import get_provider_info
from tavus_provider.operators import tavus as operators
from tavus_provider.retention.checks import CHECKS
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Limits, Policy, Rule
from tavus_provider.retention.schema import policy_schema

POLICIES = "docs/policies.md"
CI = ".github/workflows/ci.yml"
POLICY = read("docs/retention.yaml")
A_DATE = re.compile(r"'?\d{4}-\d\d-\d\d(T[\d:.]+Z?)?'?( at \d\d:\d\d UTC)?")
EXAMPLE_TABLE = "| replica | id | today | reason_code | reason |"
FIELD_TABLE = "| field | default | means |"

each_page = pytest.mark.parametrize("page", [pytest.param(page, id=page_name(page)) for page in PAGES])


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@each_page
def test_links_lead_to_a_page_and_a_heading(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    for target in ["".join(pair) for pair in targets]:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_index_lists_every_page():
    linked = set(re.findall(r"\]\(([\w./-]+\.md)\)", read("docs/index.md")))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= linked


def test_compatibility_table_has_the_tested_versions():
    rows = table("docs/index.md", "| Airflow | Python | tested by |")
    for row, constraints in zip(rows, ("constraints.txt", "constraints-lowest.txt"), strict=True):
        assert f"\napache-airflow=={row[0].split(',')[0]}\n" in read(constraints)
        assert row[1] == ", ".join(re.findall(r"3\.\d+", re.search(r"python: \[(.*)\]", read(CI))[1]))


@each_page
def test_files_that_are_named_exist(page):
    """Names in ``code`` with a folder; in architecture.md, modules are relative to the package."""
    folders = (ROOT, ROOT / "tavus_provider", page.parent)
    for name in re.findall(
        r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|json|ya?ml|toml|html|js))`", page.read_text("utf-8")
    ):
        assert any((folder / name).exists() for folder in folders), name


@each_page
def test_make_targets_that_are_named_exist(page):
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


# --- policies.md ----------------------------------------------------------------------------------------


def test_example_policy_is_docs_retention_yaml():
    assert re.findall(r"```yaml\n(.*?)```", read(POLICIES), re.DOTALL)[0] == POLICY
    assert Policy.find_problems(yaml.safe_load(POLICY)) == []
    assert "$schema=retention-policy.schema.json\n" in POLICY
    assert (ROOT / "docs" / "retention-policy.schema.json").exists()


def test_example_table_is_the_decision_about_the_sandbox(sandbox):
    from tavus_provider.execution.inventory import read_inventory
    from tavus_provider.hooks.tavus import TavusHook

    policy = Policy.parse(yaml.safe_load(POLICY))
    with TavusHook() as hook:
        inventory = read_inventory(hook, policy, now=lambda: datetime.now(UTC))
    decision = evaluate(policy, inventory, now=inventory.read_at)
    today = {"expired": "deleted", "scheduled": "scheduled"}
    rows = {cells[1].strip("`"): cells for cells in table(POLICIES, EXAMPLE_TABLE)}
    assert len(rows) == len(decision.verdicts) == 26
    for verdict in decision.verdicts:
        name, _, fate, code, reason = rows[verdict.replica.replica_id]
        if "`" in name:
            assert name == f"`{verdict.replica.replica_name}`"
        assert (fate, code) == (today.get(verdict.status, "kept"), verdict.reason_code)
        assert reason == A_DATE.sub("(date)", verdict.reason)
    assert (len(decision.delete), len(decision.scheduled)) == (1, 2)
    assert "Of 26 replicas, 1 is deleted today. 2 are announced today" in read(POLICIES)


def test_table_of_checks_is_in_the_order_of_the_code():
    rows = table(POLICIES, "| status | reason_code | applies to a replica that |")
    assert [(status.strip("`"), code.strip("`")) for status, code, _ in rows] == [
        (check.status, check.reason_code) for check in CHECKS
    ]


def policy_fields(node: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the fields of a policy as paths; lists and optional parts are followed."""
    for name, field in node["properties"].items():
        inner = next((one for one in (field, *field.get("anyOf", ())) if "properties" in one), None)
        inner = field["items"] if inner is None and "properties" in field.get("items", {}) else inner
        if name == "expire" or inner is None:
            yield path + name
        if inner is not None:
            yield from policy_fields(inner, f"{path}{name}.")


def test_table_of_fields_has_every_field_of_a_policy():
    assert sorted(column(POLICIES, FIELD_TABLE)) == sorted(policy_fields(policy_schema()))


def test_table_of_fields_has_the_defaults_of_the_code():
    defaults = {row[0].strip("`"): row[1] for row in table(POLICIES, FIELD_TABLE)}
    limits = Limits()
    assert defaults["limits.max_deletions"] == f"`{limits.max_deletions}`"
    assert defaults["limits.max_deletion_percent"] == f"`{limits.max_deletion_percent}`"
    assert limits.max_undetermined_percent is None
    assert defaults["expire.status"] == ", ".join(f"`{one}`" for one in Rule(older_than="1d").status)
    assert defaults["name"] == f"`{Policy.parse({'expire': [{'older_than': '1d'}]}).name}`"


def test_picture_of_the_simulation_has_the_numbers_of_today(connect):
    from tavus_provider.execution.inventory import read_inventory
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.rendering.simulation import simulation_svg
    from tavus_provider.retention.simulation import simulate
    from tavus_provider.sandbox import Sandbox

    policy = Policy.parse(yaml.safe_load(POLICY))
    with Sandbox(seed=ROOT / "scripts" / "company.json") as sandbox:
        connect(sandbox.url, password=sandbox.key)
        with TavusHook() as hook:
            inventory = read_inventory(hook, policy, now=lambda: datetime.now(UTC))
    svg = simulation_svg(simulate(policy, inventory, now=inventory.read_at, days=365))
    summary = re.compile(r"\d+&#160;deleted,&#160;\d+&#160;remaining")
    assert summary.search(svg)
    assert summary.search(svg)[0] == summary.search(read("docs/simulation.svg"))[0]


# --- connection.md, configuration.md --------------------------------------------------------------------


def test_table_of_extras_has_the_defaults_of_the_code():
    from tavus_provider.client.config import ClientOptions

    rows = {
        row[0].strip("`"): row[1]
        for row in table("docs/connection.md", "| extra | default | bounds | means |")
    }
    defaults = ClientOptions()
    assert set(rows) == set(ClientOptions.__dataclass_fields__)
    assert float(rows["timeout"]) == defaults.timeout
    assert int(rows["concurrency"]) == defaults.concurrency
    assert rows["requests_per_second"] == "no limit"
    assert defaults.requests_per_second is None


def test_table_of_settings_has_every_option_of_the_section():
    options = get_provider_info()["config"]["tavus"]["options"]
    rows = {
        row[0].strip("`"): row[1:]
        for row in table("docs/configuration.md", FIELD_TABLE.replace("field", "option"))
    }
    assert list(rows) == list(options)
    for name, option in options.items():
        if option["default"]:
            assert rows[name][0] == f"`{option['default']}`", name


# --- api.md


def test_python_api_has_every_operator():
    named = re.findall(r"^::: (\S+)\.(\w+)$", read("docs/api.md"), re.MULTILINE)
    assert {name for module, name in named if ".operators." in module} == set(operators.__all__)
    for module, name in named:
        assert pkgutil.resolve_name(f"{module}:{name}") is not None


# --- operators.md, architecture.md, similar-tools.md ----------------------------------------------------


def test_table_of_outcomes_has_all_of_them_and_which_fail_the_task():
    from tavus_provider.outcomes import ORDER, UNFINISHED

    rows = {row[0].strip("`"): row[2] for row in table("docs/operators.md", "| outcome | means | task |")}
    assert set(rows) == set(ORDER)
    assert {outcome for outcome, task in rows.items() if task == "fails"} == UNFINISHED


def test_modules_that_compare_single_outcomes_are_named():
    """A new outcome needs a look at each of these comparisons."""
    package = ROOT / "tavus_provider"

    def compares_outcomes(file):
        compared = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Compare)]
        parts = [part for node in compared for part in ast.walk(node) if isinstance(part, ast.Attribute)]
        return any(isinstance(part.value, ast.Name) and part.value.id == "Outcome" for part in parts)

    paragraph = r"These modules compare single outcomes; .*?:\n(.*?)\n\n"
    (named,) = re.findall(paragraph, read("CONTRIBUTING.md"), re.DOTALL)
    comparing = {str(one.relative_to(package)) for one in package.rglob("*.py") if compares_outcomes(one)}
    assert set(re.findall(r"`([\w/.]+)`", named)) == comparing


@pytest.mark.parametrize("name", operators.__all__)
def test_every_argument_of_an_operator_is_documented(name):
    section = read("docs/operators.md").split(f"\n## `{name}`\n", 1)[1].split("\n## ", 1)[0]
    rows = section.split("\n| argument | default | means |\n", 1)[1].split("\n\n", 1)[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE))
    arguments = set(inspect.signature(getattr(operators, name).__init__).parameters) - {"self", "kwargs"}
    assert documented == arguments


def test_layers_are_those_of_import_linter():
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    expected = [set(layer.replace(" ", "").split("|")) for layer in layers]
    found: list[set[str]] = []
    for number, names, _ in table("docs/architecture.md", "| layer | package or module | holds |"):
        if number:
            found.append(set())
        found[-1] |= set(re.findall(r"`(\w+)`", names))
    assert found == expected


def test_glossary_has_every_status():
    from tavus_provider.retention.verdict import Status

    rows = {row[0]: row[1] for row in table("docs/architecture.md", "| term | means |")}
    assert set(re.findall(r"`(\w+)`", rows["status"])) == {str(status) for status in Status}


def test_tests_that_are_named_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", read("docs/similar-tools.md"))
    assert len(named) > 20
    functions = {
        file: {node.name for node in ast.walk(ast.parse(read(file))) if isinstance(node, ast.FunctionDef)}
        for file in {file for file, _ in named}
    }
    assert [f"{file}::{name}" for file, name in named if name not in functions[file]] == []


# --- troubleshooting.md ---------------------------------------------------------------------------------


def texts_of_the_package() -> Iterator[str]:
    """Yield every text in the code, with ``\0`` for the values of an f-string."""
    for file in (ROOT / "tavus_provider").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_of_the_troubleshooting_page_are_in_the_code():
    texts = list(texts_of_the_package())
    messages = column("docs/troubleshooting.md", "| message | means | do |")
    patterns = {message: ".*".join(map(re.escape, message.split(" ... "))) for message in messages}
    assert len(messages) > 20
    assert [
        message
        for message, pattern in patterns.items()
        if not any(re.search(pattern, text) for text in texts)
    ] == []
