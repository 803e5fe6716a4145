"""Carry out an erasure: holds that begin while it deletes, and a stop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from execution.test_sweep import Account
from planning.test_erasure import ITEMS, NOW, make

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.execution.erasure import ErasureExecutor
from tavus_provider.execution.freshness import REREAD_AFTER
from tavus_provider.outcomes import Outcome


class Tavus(Account):
    """An account that deletes; ``before`` is called with each key right before its delete is sent."""

    def __init__(self, before=lambda key: None):
        super().__init__(*ITEMS.values())
        self.before = before
        self.deleted = []
        self.is_stopped = False

    def delete_item(self, key, *, hard=False, before_send=None):
        self.before(key)
        if before_send is not None:
            before_send()
        self.deleted.append(key)
        self.rows = [row for row in self.rows if row.key != key.rpartition("/")[2]]
        self.details.pop(key.rpartition("/")[2])
        return SimpleNamespace(outcome=Outcome.DELETED, detail="deleted")

    def end_conversation(self, conversation_id):
        return SimpleNamespace(detail="ended")

    def stop(self):
        self.is_stopped = True

    def wait(self, seconds):
        return self.is_stopped


class Writer:
    name = "attempt"

    def __init__(self):
        self.records = []

    def write(self, kind, **fields):
        self.records.append((kind, fields))

    def close(self, **fields):
        self.records.append(("end", fields))


def executor(client, held=lambda now: frozenset(), clock=lambda: 0.0, plan=None):
    writer = Writer()
    made = ErasureExecutor(
        plan or make(),
        client,
        concurrency=1,
        now=lambda: NOW,
        log=lambda line: None,
        begin=lambda **fields: writer.write("begin", **fields) or writer,
        held=held,
        clock=clock,
    )
    return made, writer


def outcomes(report):
    return {item["key"]: item["outcome"] for item in report["items"]}


def test_intent_is_recorded_before_anything_is_sent_and_everything_in_order():
    client = Tavus()
    made, writer = executor(client)
    made.run()
    assert writer.records[0][1]["intent"] == list(ITEMS)
    assert client.deleted == list(ITEMS)
    assert made.close()["state"] == "complete"


def test_hold_that_begins_while_a_kind_is_deleted_holds_what_was_not_sent():
    held, seconds = set(), [0.0]

    def begin_hold(key):
        if key == "conversation/c2":
            held.add("c2")
            seconds[0] += REREAD_AFTER + 1

    client = Tavus(begin_hold)
    made, writer = executor(client, lambda now: frozenset(held), lambda: seconds[0])
    made.run()
    assert "conversation/c2" not in client.deleted
    report = made.close()
    assert (outcomes(report)["conversation/c2"], report["state"]) == ("held", "partly_refused")
    assert writer.records[-1][1]["held"] == {"conversation/c2": "conversation/c2"}
    assert "conversation/c2" not in writer.records[-1][1]["outcomes"]


@pytest.mark.parametrize("at", ["r1", "video/v1"])
def test_holds_that_cannot_be_read_again_end_all_deletes(at):
    seconds, broken = [0.0], []

    def break_holds(key):
        if key == at:
            broken.append(key)
            seconds[0] += REREAD_AFTER + 1

    def read(now):
        if broken:
            raise TavusValidationError("cannot be read")
        return frozenset()

    client = Tavus(break_holds)
    made, _ = executor(client, read, lambda: seconds[0])
    made.run()
    assert at not in client.deleted
    assert client.deleted == list(ITEMS)[: list(ITEMS).index(at)]
    assert set(list(outcomes(made.report()).values())[len(client.deleted) :]) == {"not_attempted"}
    assert made.may_succeed_later


def test_after_a_stop_no_delete_begins_and_nothing_is_read():
    client = Tavus(
        lambda key: made.stop("the task received a request to stop") if key == "video/v1" else None
    )
    made, _ = executor(client)
    made.run()
    assert client.deleted[:1] == ["r1"]
    assert not [key for key in client.deleted if key.startswith("conversation")]
    assert "video/v1" not in client.asked
    assert made.report()["state"] == "incomplete"


@pytest.mark.parametrize(("outcome", "state"), [("confirmed", "incomplete"), ("deleted", "complete")])
def test_absence_of_a_replica_that_was_unknown_before_confirms_nothing(outcome, state):
    class Silent(Tavus):
        def delete_item(self, key, *, hard=False, before_send=None):
            self.deleted.append(key)
            return SimpleNamespace(outcome=Outcome(outcome), detail="no response; it is gone")

    client = Silent()
    client.rows = []
    client.details = {}
    plan = make(items={}, missing=frozenset({"r1"}), soft_deleted={"r1": NOW})
    made, _ = executor(client, plan=plan)
    made.run()
    report = made.close()
    assert client.deleted == ["r1"]
    assert (outcomes(report)["r1"], report["state"]) == (
        "unknown" if outcome == "confirmed" else "deleted",
        state,
    )
