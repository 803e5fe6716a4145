"""Two connections to one account are noticed by the replicas that they have recorded."""

from __future__ import annotations

import logging

import pytest
from storage.attempts import ORIGIN

from tavus_provider.models import Replica
from tavus_provider.retention.context import History, Inventory
from tavus_provider.storage import attempts as attempts_module
from tavus_provider.storage.checkpoints import CHECKPOINT_AFTER
from tavus_provider.storage.ledger import Ledger, job_name
from tavus_provider.storage.object_storage import StorageError
from tavus_provider.storage.shared_accounts import find_shared_account


@pytest.fixture
def other(ledger):
    return Ledger(ORIGIN, "eu", ledger.root)


def listing(*ids, **history):
    return Inventory([Replica(replica_id) for replica_id in ids], history=History(**history))


def run(ledger, *ids, outcome="deleted"):
    writer = ledger.begin_attempt(job_name("plan", f"{ids}"), hard=False, intent=list(ids))
    writer.close(outcomes=dict.fromkeys(ids, outcome))


def test_other_connection_that_recorded_a_replica_is_named(ledger, other):
    run(other, "r1x", "r2x", "r9x", outcome="failed")
    (warning,) = find_shared_account(ledger, listing("r1x", "r2x", "r3x"))
    assert warning.startswith("connection 'eu' has recorded 2 replicas of this account, such as r1x: ")
    assert find_shared_account(other, listing("r1x")) == []


def test_schedule_of_the_other_connection_is_read(ledger, other):
    scheduled = {"r1x": "2026-11-01T00:00:00+00:00"}
    other.begin_attempt(job_name("schedule", "stale"), scheduled=scheduled, due={}, cancelled=[]).close()
    for number in range(2 * CHECKPOINT_AFTER):  # the checkpoint names the schedule
        run(other, f"e{number}x")
    assert len(find_shared_account(ledger, listing("r1x"))) == 1


def test_replica_that_both_have_soft_deleted_is_found(ledger, other):
    for number in range(2 * CHECKPOINT_AFTER):
        run(other, f"e{number}x")
    inventory = listing("r1x", soft_deleted={"e0x": other.now()})
    (warning,) = find_shared_account(ledger, inventory)
    assert "1 replica of this account, such as e0x" in warning


def test_connections_to_different_accounts_are_not_named(ledger, other):
    run(other, "r1x")
    run(Ledger("http://127.0.0.1:9", "us", ledger.root), "r2x")  # another host
    run(ledger, "r2x")
    assert find_shared_account(ledger, listing("r2x", "r3x")) == []


def test_storage_that_fails_is_only_a_warning(ledger, other, monkeypatch, caplog):
    run(other, "r1x")

    def fail(folder):
        raise StorageError(str(folder), "Input/output error")

    monkeypatch.setattr(attempts_module, "list_names", fail)
    with caplog.at_level(logging.WARNING):
        assert find_shared_account(ledger, listing("r1x")) == []
    assert "It is not known whether other connections are for the same account" in caplog.text
