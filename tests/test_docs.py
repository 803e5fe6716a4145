"""What docs/policies.md says is held against the code, cell by cell."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tavus_provider.retention.checks import CHECKS
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Limits, Policy, Rule
from tavus_provider.retention.schema import policy_schema

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
POLICY = (ROOT / "docs" / "retention.yaml").read_text(encoding="utf-8")
A_DATE = re.compile(r"'?\d{4}-\d\d-\d\d(T[\d:.]+Z?)?'?( at \d\d:\d\d UTC)?")


def table(head: str) -> list[list[str]]:
    """The cells of each row of the table with this head."""
    after = DOCS.split(f"\n{head}\n", 1)[1].splitlines()[1:]
    rows = takewhile(lambda line: line.startswith("|"), after)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_worked_policy_is_one_file_in_docs_and_readme():
    for text in (DOCS, README):
        assert re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) == [POLICY]
    assert Policy.find_problems(yaml.safe_load(POLICY)) == []
    assert f"$schema={(ROOT / 'docs' / 'retention-policy.schema.json').name}\n" in POLICY


def test_each_replica_of_the_sandbox_stays_or_goes_as_the_table_says(sandbox):
    from tavus_provider.execution.inventory import read_inventory
    from tavus_provider.hooks.tavus import TavusHook

    policy = Policy.parse(yaml.safe_load(POLICY))
    with TavusHook() as hook:
        inventory = read_inventory(hook, policy, now=lambda: datetime.now(UTC))
    decision = evaluate(policy, inventory, now=inventory.read_at)
    fates = {"expired": "goes", "scheduled": "goes when its grace is over"}
    rows = {
        cells[1].strip("`"): cells for cells in table("| replica | id | stays or goes | word | because |")
    }
    assert len(rows) == len(decision.verdicts) == 26
    for verdict in decision.verdicts:
        name, _, fate, word, reason = rows[verdict.replica.replica_id]
        if "`" in name:
            assert name == f"`{verdict.replica.replica_name}`"
        assert (fate, word) == (fates.get(verdict.status, "stays"), verdict.reason_code)
        assert reason == A_DATE.sub("(date)", verdict.reason)
    assert "26 replicas one goes today; two more are announced" in DOCS
    assert (len(decision.delete), len(decision.scheduled)) == (1, 2)


def test_the_ladder_is_the_one_of_the_code_in_its_order():
    rows = table("| rung | word | stops a replica that |")
    assert [(rung.strip("`"), word.strip("`")) for rung, word, _ in rows] == [
        (step.status, step.reason_code) for step in CHECKS
    ]


def words(node: dict[str, Any], path: str = "") -> Iterator[str]:
    """The words of a policy as paths, lists and what may be null looked through."""
    for name, word in node["properties"].items():
        inner = next((one for one in (word, *word.get("anyOf", ())) if "properties" in one), None)
        inner = word["items"] if inner is None and "properties" in word.get("items", {}) else inner
        if name == "expire" or inner is None:
            yield path + name
        if inner is not None:
            yield from words(inner, f"{path}{name}.")


def test_every_word_of_a_policy_is_explained_and_no_other():
    rows = table("| word | if left out | means |")
    assert sorted(row[0].strip("`") for row in rows) == sorted(words(policy_schema()))


def test_the_defaults_in_the_table_are_those_of_the_code():
    said = {row[0].strip("`"): row[1] for row in table("| word | if left out | means |")}
    limits = Limits()
    assert said["limits.max_deletions"] == f"`{limits.max_deletions}`"
    assert said["limits.max_deletion_percent"] == f"`{limits.max_deletion_percent}`"
    assert limits.max_undetermined_percent is None
    assert said["expire.status"] == ", ".join(f"`{one}`" for one in Rule(older_than="1d").status)
    assert said["name"] == f"`{Policy.parse({'expire': [{'older_than': '1d'}]}).name}`"


ASKED = table("| asked for | here | shown by |")
TRAPS = table("| trap | here | shown by |")


def collected(nodes: set[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *nodes],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        check=False,
    )
    return {line.split("[")[0] for line in done.stdout.splitlines() if "::" in line}


COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python -m tavus_provider ")
]


def test_the_readme_shows_every_command():
    assert [line.split()[3] for line in COMMANDS] == [
        *("schema", "check", "plan", "explain", "simulate", "ledger")
    ]


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line.split()[3])
def test_each_command_of_the_readme_runs(line, sandbox, tmp_path, monkeypatch, capsys):
    from tavus_provider.cli.commands import main

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.chdir(tmp_path)
    Path("retention.yaml").write_text(POLICY, encoding="utf-8")
    arguments = shlex.split(line, comments=True)[3:]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    assert main(arguments) == 0
    assert arguments[0] == "ledger" or capsys.readouterr().out
    assert Path("year.svg").exists() == ("simulate" in arguments)


def test_the_picture_of_the_simulation_ends_as_one_of_today_does(sandbox):
    from tavus_provider.execution.inventory import read_inventory
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.rendering.simulation import simulation_result
    from tavus_provider.retention.simulation import simulate

    policy = Policy.parse(yaml.safe_load(POLICY))
    with TavusHook() as hook:
        read = read_inventory(hook, policy, now=lambda: datetime.now(UTC))
    found = simulate(policy, read, now=read.read_at, days=365)
    picture = ElementTree.parse(ROOT / "docs" / "simulation.svg")
    text = "".join(picture.getroot().itertext()).replace("\xa0", " ")
    assert simulation_result(found) in text
