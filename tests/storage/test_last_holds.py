"""A hold list that became empty or lost ids since the last plan (case A5)."""

from __future__ import annotations

import json

import pytest
from operators.tasks import POLICY, Ti, plan_task, run

from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.storage import last_holds
from tavus_provider.storage.last_holds import read_last_holds
from tavus_provider.storage.ledger import Ledger

CHECK = "check that this was meant"


@pytest.fixture
def plan(tmp_path, capsys):
    """Run a plan with some ids under hold, and return the lines about them."""
    file = tmp_path / "holds.json"
    runs = iter(range(1_000))

    def plan(*ids, name="a", **arguments):
        file.write_text(json.dumps(list(ids)))
        policy = {**POLICY, "name": name, "legal_holds": {"file": str(file), "max_age": "1d"}}
        capsys.readouterr()
        run(plan_task(policy=policy, **arguments), Ti(run_id=f"manual__{next(runs)}"))
        captured = capsys.readouterr()
        lines = (captured.out + captured.err).splitlines()
        return [
            line.partition("legal holds: ")[2].partition(" [")[0] for line in lines if "legal holds: " in line
        ]

    return plan


@pytest.fixture
def ledger(sandbox):
    with TavusHook() as hook:
        return Ledger(hook.origin, "tavus_default")


HELD = ("r1a0c5e8f3b2", "r2b9d41c07ae", "r3f6a2e9d815")


def test_plan_warns_about_ids_that_left_the_list(sandbox, plan):
    assert plan(*HELD) == []
    assert plan(*HELD) == []
    assert plan(*HELD[:2]) == [
        "the list lost 1 id since the last plan: 'r3f6a2e9d815'; check that this was meant"
    ]
    assert plan(*HELD[:2], "r4c81b7f0d3e") == []
    assert plan() == [
        f"the list became empty since the last plan: 'r1a0c5e8f3b2', 'r2b9d41c07ae', 'r4c81b7f0d3e'; {CHECK}"
    ]
    assert plan() == []


def test_dry_run_does_not_use_up_the_warning(sandbox, plan):
    plan(*HELD)
    assert len(plan(*HELD[1:], dry_run=True)) == 1
    assert len(plan(*HELD[1:])) == 1


def test_policies_are_compared_by_their_names(sandbox, plan):
    plan(*HELD)
    assert plan(HELD[0], name="b") == []
    assert len(plan(HELD[0])) == 1


def test_only_the_last_records_are_read(sandbox, plan, ledger, monkeypatch):
    plan(*HELD)
    for _ in range(4):
        plan(name="b")
    assert read_last_holds(ledger, policy="a") == frozenset(HELD)
    monkeypatch.setattr(last_holds, "_MAX_ATTEMPTS", 4)
    assert read_last_holds(ledger, policy="a") is None


def test_empty_ledger_has_no_holds(ledger):
    assert read_last_holds(ledger, policy="a") is None
