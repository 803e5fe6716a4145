"""
Random histories of three runs: holds, renames, new use and kills between any two tasks and requests.

Whatever happens, nothing is deleted that is held, in use or renamed since its plan, or permanently without an
approval, and each item of each report agrees with the sandbox. A killed task writes and sends nothing more.
``RETENTION_HISTORIES=200`` runs as many histories, instead of a few.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter

import pytest
from plans import approve_plan

from tavus_provider.client.transport import Transport
from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator
from tavus_provider.storage import attempts as ledger_attempts
from tavus_provider.storage.ledger import ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

SEEDS = range(int(os.environ.get("RETENTION_HISTORIES", "4")))
SIZE = 9
RUNS = 3
CLAIMS_A_DELETE = {"deleted", "confirmed"}
CLAIMS_NO_DELETE = {"failed", "not_attempted", "skipped"}


class Killed(BaseException):
    """The process of the task does not exist any more."""


class Kill:
    """Ends the life of a task at its n-th request or ledger record: nothing is sent or written afterwards."""

    def __init__(self, monkeypatch) -> None:
        self.left: int | None = None
        send, write = Transport.send, ledger_attempts.write_once

        def send_alive(transport, *arguments, **options):
            self.count()
            return send(transport, *arguments, **options)

        def write_alive(*arguments, **options):
            self.count()
            return write(*arguments, **options)

        monkeypatch.setattr(Transport, "send", send_alive)
        monkeypatch.setattr(ledger_attempts, "write_once", write_alive)

    def count(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class World:
    """An account that changes between any two tasks, and what must not be deleted now."""

    def __init__(self, sandbox, chance, holds) -> None:
        self.sandbox, self.chance, self.file = sandbox, chance, holds
        self.held: set[str] = set()
        self.used: set[str] = set()
        self.names = {row["replica_id"]: row["replica_name"] for row in sandbox.state()["replicas"]}
        self.write_holds()

    @property
    def deletes(self):
        return self.sandbox.state()["deletes"]

    def write_holds(self) -> None:
        self.file.write_text(json.dumps(sorted(self.held)))

    def change(self) -> None:
        """Let up to three things happen."""
        for number in range(self.chance.randint(0, 3)):
            listed = {row["replica_id"] for row in self.sandbox.state()["replicas"]}
            one = self.chance.choice(sorted(self.names))
            what = self.chance.choice(["hold", "release", "rename", "use"])
            if what == "hold":
                self.held.add(one)
            elif what == "release":
                self.held.discard(one)
            elif what == "rename" and one in listed:
                self.names[one] += "x"
                self.sandbox.put("replicas", {"replica_id": one, "replica_name": self.names[one]})
            elif what == "use" and one in listed:
                self.used.add(one)
                row = {"conversation_id": f"c{len(self.used)}{number}{one}", "replica_id": one}
                self.sandbox.put("conversations", row | {"status": "active", "age": "0s"})
        self.write_holds()


@pytest.fixture
def kill(monkeypatch):
    return Kill(monkeypatch)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_held_in_use_renamed_or_unapproved_is_deleted(serve, kill, run_task, tmp_path, seed):
    chance = random.Random(seed)
    rows = [
        {"replica_id": f"r{n}", "replica_name": f"name {n}", "age": f"{chance.choice([5, 200])}d"}
        for n in range(SIZE)
    ]
    rows.append({"replica_id": "old", "replica_name": "old", "age": "300d"})
    sandbox = serve({"replicas": rows})
    sandbox.switch(soft_deleted=chance.choice(["hidden", "listed"]))
    world = World(sandbox, chance, tmp_path / "holds.json")
    policy = {
        "name": "old",
        "expire": [{"rule": "old", "older_than": "90d"}],
        "legal_holds": {"file": str(world.file), "max_age": "7d"},
        "hard_delete_after": "7d",
        "limits": {"max_deletions": 100, "max_deletion_percent": 100},
    }
    for number in range(RUNS):
        one_run(world, kill, run_task, policy, chance, run_id=f"manual__{number}")
    # A killed task may leave a folder without a record; nothing else is found.
    assert [finding for finding in verify(ledger_root())[1] if "record" not in finding] == []


def one_run(world, kill, run_task, policy, chance, *, run_id) -> None:
    """Plan, perhaps approve, and apply until an attempt is not killed."""
    hard = chance.random() < 0.5
    world.change()
    planned = run_task(PlanRetentionOperator(task_id="plan", policy=policy, hard=hard), run_id=run_id)
    assert planned.error is None
    plan = planned.pushed["return_value"]
    names = {row["replica_id"]: row["replica_name"] for row in plan["delete"]}
    approved = hard and chance.random() < 0.7
    if approved:
        approve_plan(plan, run_id=run_id)
    begun = len(world.deletes)
    for try_number in range(1, 5):
        world.change()
        before = len(world.deletes)
        kill.left = chance.randint(0, 30) if try_number < 4 and chance.random() < 0.6 else None
        apply = ApplyRetentionOperator(
            task_id="apply", plan=plan, hard=hard, concurrency=chance.choice([1, 4])
        )
        try:
            done = run_task(apply, run_id=run_id, try_number=try_number)
        except Killed:
            done = None
        was_killed, kill.left = kill.left is not None and kill.left < 0, None
        world.sandbox.wait_until_idle()
        for row in world.deletes[before:]:
            replica_id = row["replica_id"]
            assert replica_id in names
            assert names[replica_id] == world.names[replica_id], "renamed"
            assert replica_id not in world.held
            assert replica_id not in world.used
            assert not row["hard"] or approved
        if done is not None and not was_killed:
            break
    check_report(done, plan, world.deletes, begun)
    assert hard <= approved or len(world.deletes) == begun


def check_report(done, plan, deletes, begun) -> None:
    """Compare each item with what the sandbox has deleted in this run."""
    report = done.pushed.get("return_value")
    if report is None:
        assert done.error is not None
        return
    assert [item["replica_id"] for item in report["items"]] == [row["replica_id"] for row in plan["delete"]]
    now = {row["replica_id"] for row in deletes[begun:]}
    assert now <= {row["replica_id"] for row in plan["delete"]}
    assert max(Counter(row["replica_id"] for row in deletes[begun:]).values(), default=0) <= 1
    for item in report["items"]:
        if item["outcome"] in CLAIMS_A_DELETE:
            assert item["replica_id"] in now
        elif item["outcome"] in CLAIMS_NO_DELETE:
            assert item["replica_id"] not in now
        elif item["outcome"] == "already_gone":
            assert item["replica_id"] in {row["replica_id"] for row in deletes}
    if plan["delete"]:
        assert compare_report(verify(ledger_root())[0], report) == []
