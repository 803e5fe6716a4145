"""The daily check of requests for erasures: what makes it red, and what does not."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from erasures import ACTIVE, FACE, apply_erasure, certify, erase, plan_erasure
from operators.tasks import OLD, Ti, delete, requests, run

from tavus_provider.exceptions import LedgerUnavailableError, TavusValidationError
from tavus_provider.operators import base
from tavus_provider.operators.tavus import CheckErasuresOperator

RECEIVED = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def day(monkeypatch):
    """Set the number of days since the request was received: ``day(20)``. It is due after 30 days."""

    def set_day(days):
        monkeypatch.setattr(base, "now", lambda: RECEIVED + timedelta(days=days))

    set_day(0)
    return set_day


def check(**arguments):
    """Run the check. Returns its rows and the message of its failure, if it failed."""
    ti = Ti(run_id="scheduled__1")
    try:
        return run(CheckErasuresOperator(task_id="check", **arguments), ti), None
    except AirflowFailException as error:
        return ti.pushed["return_value"], str(error)


def incomplete():
    """A request whose certificate is incomplete."""
    plan = plan_erasure()
    with pytest.raises(AirflowFailException):
        apply_erasure(plan)
    with pytest.raises(AirflowFailException):
        certify(plan)


def test_no_request_needs_no_request_to_tavus(sandbox):
    assert check() == ([], None)
    assert requests(sandbox) == []


@pytest.mark.parametrize(
    ("days", "problem"),
    [(0, None), (22, None), (23, "due in 7 days, on 2026-12-01"), (31, "1 days overdue (due on 2026-12-01)")],
)
def test_open_request_is_red_from_seven_days_before_it_is_due(sandbox, day, days, problem):
    plan_erasure()
    day(days)
    rows, message = check()
    assert [(row["request"], row["state"], row["days_left"]) for row in rows] == [
        ("DSR-2026-0142", None, 30 - days)
    ]
    assert rows[0]["problems"] == ([] if problem is None else [problem])
    assert message == (None if problem is None else f"DSR-2026-0142: {problem}")


def test_number_of_days_is_an_argument(sandbox, day):
    plan_erasure()
    day(22)
    assert check(warn_days=8)[1] == "DSR-2026-0142: due in 8 days, on 2026-12-01"


@pytest.mark.parametrize("bad", [-1, 366, True, "7"])
def test_invalid_number_of_days(bad):
    with pytest.raises(TavusValidationError, match="warn_days"):
        CheckErasuresOperator(task_id="check", warn_days=bad)


def test_complete_request_is_green_even_after_its_due_date(sandbox, day):
    erase()
    day(90)
    assert check() == ([], None)


def test_incomplete_request_is_red(sandbox, day):
    sandbox.switch(faults=[{"method": "DELETE", "status": 409, "times": None}])
    incomplete()
    sandbox.switch(faults=[])
    assert "its last certificate is incomplete" in check()[1]
    erase("manual__2")
    assert check() == ([], None)


def test_new_plan_opens_a_complete_request_again(sandbox, day):
    erase()
    plan_erasure(Ti(run_id="manual__2"))
    day(29)
    assert "due in 1 days" in check()[1]


def test_hold_that_has_ended_is_red(sandbox, day, monkeypatch, tmp_path):
    holds = tmp_path / "holds.json"
    holds.write_text(json.dumps([ACTIVE]))
    monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS", str(holds))
    monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS_MAX_AGE", "10y")
    now = datetime.now(UTC)
    monkeypatch.setattr(base, "now", lambda: now)
    assert erase()["state"] == "partly_refused"
    rows, message = check()
    assert (rows[0]["state"], message) == ("partly_refused", None)
    holds.write_text("[]")
    assert f"the legal hold has ended that kept {ACTIVE}, {FACE}" in check()[1]
    assert erase("manual__2")["state"] == "complete"
    assert check() == ([], None)


@pytest.mark.parametrize(
    ("kind", "row", "key"),
    [
        ("replicas", {"replica_id": FACE, "deleted": None}, FACE),
        ("conversations", {"conversation_id": "c0eaa60a267274af", "deleted": None}, ACTIVE),
        ("videos", {"video_id": "v1", "replica_id": FACE}, "video/v1"),
    ],
)
def test_what_was_erased_and_is_listed_again_is_red(sandbox, kind, row, key):
    erase()
    sandbox.put(kind, row)
    assert check()[1] == f"DSR-2026-0142: erased, and listed again: {key}"


def test_closed_request_is_not_watched(sandbox, day, monkeypatch):
    plan_erasure()
    day(90)
    assert check()[1] is not None
    monkeypatch.setenv("AIRFLOW__TAVUS__CLOSED_ERASURES", "DSR-2026-0142")
    assert check() == ([], None)


@pytest.mark.parametrize(
    ("closed", "is_closed"),
    [
        ("DSR-2026-0142", True),
        ("R-1, tavus_default/DSR-2026-0142,", True),
        ("other/DSR-2026-0142", False),
        ("other/tavus_default/DSR-2026-0142", False),
        ("tavus_default/DSR-2026-0143", False),
    ],
)
def test_request_is_closed_in_the_account_of_the_entry(sandbox, day, monkeypatch, closed, is_closed):
    plan_erasure()
    monkeypatch.setenv("AIRFLOW__TAVUS__CLOSED_ERASURES", closed)
    assert (check() == ([], None)) is is_closed
    if is_closed:
        assert run(delete(FACE))["outcome"] == "deleted"
    else:
        with pytest.raises(
            AirflowFailException, match="or add tavus_default/DSR-2026-0142 to closed_erasures"
        ):
            run(delete(FACE))


@pytest.mark.parametrize("bad", ["jane doe", "/DSR-2026-0142", "tavus_default/", "tavus_default/jane", "/"])
def test_entry_of_closed_requests_that_is_no_reference_is_named(sandbox, monkeypatch, bad):
    monkeypatch.setenv("AIRFLOW__TAVUS__CLOSED_ERASURES", f"DSR-1,{bad}")
    message = re.escape(f"[tavus] closed_erasures: '{bad}' is neither a reference such as DSR-2026-0142")
    with pytest.raises(AirflowFailException, match=message):
        run(CheckErasuresOperator(task_id="check"))
    with pytest.raises(AirflowFailException, match=message):
        run(delete(OLD))


def test_changed_records_are_red(sandbox, day, tmp_path):
    plan_erasure()
    (file,) = (tmp_path / "ledger").rglob("erasure-*/*/000001.json")
    file.write_bytes(file.read_bytes().replace(b"2026-12-01", b"2027-12-01"))
    assert "the ledger was changed: " in check()[1]
    with pytest.raises(LedgerUnavailableError, match="no readable record of the erasure DSR-2026-0142"):
        run(delete(OLD))
    plan_erasure(Ti(run_id="manual__2"))
    assert run(delete(OLD))["outcome"] == "deleted"
