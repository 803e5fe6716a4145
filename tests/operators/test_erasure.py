"""Erase a person: plan, approve, apply, certify, against a sandbox."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, AirflowTaskTimeout
from erasures import ACTIVE, FACE, REQUEST, apply_erasure, certify, erase, plan_erasure
from operators.tasks import OLD, Ti, apply_task, delete, look_up, plan_task, requests, run
from plans import approve_plan

from tavus_provider.exceptions import TavusError
from tavus_provider.operators.tavus import ApplyErasureOperator, ApproveRetentionOperator
from tavus_provider.storage.attempts import AttemptWriter, read_attempts
from tavus_provider.storage.ledger import ledger_root, list_jobs
from tavus_provider.storage.recorded_deletes import list_deletes

VIDEO = {"video_id": "v123456789", "replica_id": FACE, "status": "ready", "age": "9d"}
KEY = "video/v123456789"
NEW = {"conversation_id": "c9999999999999aa", "replica_id": FACE, "status": "ended", "age": "1h"}


@pytest.fixture
def holds(monkeypatch, tmp_path):
    """Put ids under legal hold: ``holds("r1", ...)``."""

    def hold(*ids):
        (tmp_path / "holds.json").write_text(json.dumps(ids))
        monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS", str(tmp_path / "holds.json"))

    return hold


def keys(rows):
    return [row["key"] for row in rows]


def changes(sandbox):
    """Return the requests that are no reads."""
    return [line for line in requests(sandbox) if not line.startswith("GET")]


def test_erases_in_the_fixed_order_and_certifies(sandbox):
    sandbox.put("videos", VIDEO)
    plan = plan_erasure()
    assert keys(plan["delete"]) == [FACE, KEY, ACTIVE]
    assert changes(sandbox) == []
    report = apply_erasure(plan)
    assert (report["state"], report["counts"]["deleted"], report["open"]) == ("complete", 3, [])
    assert changes(sandbox) == [
        "POST /v2/conversations/c0eaa60a267274af/end",
        f"DELETE /v2/replicas/{FACE}",
        "DELETE /v2/videos/v123456789",
        "DELETE /v2/conversations/c0eaa60a267274af",
    ]
    deletes = [row for row in sandbox.state()["requests"] if row["method"] == "DELETE"]
    assert {row["query"] for row in deletes} == {"hard=true"}
    certificate = certify(plan)
    assert certificate["state"] == "complete"
    assert certificate["counts"]["video"] == {
        "found": 1, "accepted": 1, "not_found": 1, "not_listed": 1, "held": 0, "failed": 0, "unknown": 0,
    }  # fmt: skip
    assert [one["approved_by"] for one in certificate["approvals"]] == ["alice"]


def test_ledger_records_request_and_people(sandbox):
    plan = approve_plan(plan_erasure())
    trigger = SimpleNamespace(triggering_user_name="bob", run_type="manual", conf={})
    run(ApplyErasureOperator(task_id="apply", plan=plan), dag_run=trigger)
    rows = list_deletes(read_attempts(ledger_root(), list_jobs(ledger_root())))
    people = {(row["request"], row["approved_by"], row["triggered_by"]) for row in rows}
    assert people == {(REQUEST["request"], "alice", "bob")}


def test_objects_of_other_people_stay(sandbox):
    sandbox.put("videos", VIDEO)
    before = sandbox.state()
    erase()
    after = sandbox.state()
    for kind in ("replicas", "videos", "conversations", "personas"):
        others = [row for row in before[kind] if FACE not in row.values()]
        assert all(row in after[kind] for row in others)


def test_participant_is_erased_by_conversation_and_the_replica_stays(sandbox):
    plan = plan_erasure(replica_ids=[], conversation_ids=["c0eaa60a267274af"])
    assert keys(plan["delete"]) == [ACTIVE]
    assert apply_erasure(plan)["state"] == "complete"
    assert FACE in sandbox.replica_ids()


# -- approval


@pytest.mark.parametrize("approval", [None, {"answer": "reject"}, {"run_id": "manual__2"}])
def test_nothing_is_sent_without_an_approval_in_this_run(sandbox, approval):
    plan = plan_erasure()
    if approval is not None:
        approve_plan(plan, **approval)
    with pytest.raises(AirflowFailException, match=r"no record of an approval|was rejected"):
        apply_erasure(plan, approve=False)
    assert changes(sandbox) == []


def test_rejected_plan_is_not_certified(sandbox):
    plan = plan_erasure()
    approve_plan(plan, answer="reject")
    with pytest.raises(AirflowSkipException, match="stays open"):
        certify(plan)


def test_changed_xcom_is_rejected(sandbox):
    plan = plan_erasure()
    with pytest.raises(AirflowFailException, match="does not match its digest"):
        apply_erasure(plan | {"delete": []}, approve=False)
    assert changes(sandbox) == []


def test_approval_page_is_by_kind_and_says_whose_words_are_lost(sandbox, page):
    from operators.test_approve import ask

    sandbox.put("videos", VIDEO)
    ask(ApproveRetentionOperator(task_id="approve", plan=plan_erasure()))
    text = page["body"]
    assert REQUEST["request"] in page["subject"]
    assert "1 conversation also holds what other people said" in text
    for title in ("Replicas to delete (1)", "Videos to delete (1)", "Conversations to delete (1)"):
        assert title in text
    assert "This cannot be undone" in text
    assert "1 replica, 1 video, 1 conversation" in text
    assert text.index("Conversations to delete") < text.index("Out of reach")
    assert "due on **2026-12-01**" in text


def test_plans_of_policies_and_erasures_are_not_mixed_up(sandbox):
    with pytest.raises(AirflowFailException, match="for ApplyErasureOperator"):
        run(apply_task(plan_erasure(), hard=True))
    with pytest.raises(AirflowFailException, match="the plan is rejected: plan"):
        apply_erasure(run(plan_task()), approve=False)


# -- bad input


def test_unknown_id_and_stock_replica_are_refused(sandbox):
    for bad in ("r00000000000", "rb1f8c4d6e0a"):
        with pytest.raises(AirflowFailException, match=bad):
            plan_erasure(replica_ids=[FACE, bad])
    assert changes(sandbox) == []


def test_bad_input_is_refused_before_anything_is_read(sandbox):
    for bad in ({"request": "Jane Doe"}, {"replica_ids": []}, {"due_on": "2020-01-01"}):
        with pytest.raises(AirflowFailException):
            plan_erasure(**{"received_on": "2019-12-01"} | bad)
    assert requests(sandbox) == []


def test_due_date_of_an_earlier_run_is_accepted_although_it_is_past(sandbox, monkeypatch):
    from datetime import UTC, datetime

    from tavus_provider.operators import base

    arguments = {"received_on": "2026-01-01", "due_on": "2026-02-01"}
    monkeypatch.setattr(base, "now", lambda: datetime(2026, 1, 2, tzinfo=UTC))
    plan_erasure(**arguments)
    monkeypatch.setattr(base, "now", lambda: datetime(2026, 3, 2, tzinfo=UTC))
    assert plan_erasure(**arguments)["due_on"] == "2026-02-01"
    with pytest.raises(AirflowFailException, match="2026-02-02 is in the past"):
        plan_erasure(**arguments | {"due_on": "2026-02-02"})


# -- legal holds


def test_held_object_is_not_sent_and_the_request_is_partly_refused(sandbox, holds):
    sandbox.put("videos", VIDEO)
    holds(KEY)
    plan = plan_erasure(hold_covers="item")
    assert keys(plan["held"]) == [KEY]
    report = apply_erasure(plan)
    assert (report["state"], report["counts"]["held"], report["counts"]["deleted"]) == (
        "partly_refused",
        1,
        2,
    )
    certificate = certify(plan)
    assert certificate["state"] == "partly_refused"
    assert certificate["held"] == [{"key": KEY, "reason": "is under legal hold"}]
    assert not [line for line in changes(sandbox) if "v123456789" in line]


def test_hold_that_begins_after_the_plan_holds(sandbox, holds):
    sandbox.put("videos", VIDEO)
    plan = plan_erasure()
    holds(KEY)
    report = apply_erasure(plan)
    assert {item["key"] for item in report["items"] if item["outcome"] == "held"} == {FACE, KEY}
    assert changes(sandbox) == [
        "POST /v2/conversations/c0eaa60a267274af/end",
        "DELETE /v2/conversations/c0eaa60a267274af",
    ]
    assert certify(plan)["state"] == "partly_refused"


def test_hold_that_begins_between_two_kinds_holds(sandbox, monkeypatch):
    sandbox.put("videos", VIDEO)
    plan = plan_erasure()
    reads = []

    def read(holds, *, now):
        reads.append(now)
        return frozenset([ACTIVE] if len(reads) > 2 else [])

    monkeypatch.setattr("tavus_provider.storage.binding_holds.read_binding_holds", read)
    report = apply_erasure(plan)
    outcomes = {item["key"]: item["outcome"] for item in report["items"]}
    assert outcomes == {FACE: "deleted", KEY: "deleted", ACTIVE: "held"}
    assert "DELETE /v2/conversations/c0eaa60a267274af" not in changes(sandbox)


def test_unreadable_holds_stop_the_deletes(sandbox, holds, tmp_path):
    holds()
    plan = plan_erasure()
    (tmp_path / "holds.json").write_text("{")
    with pytest.raises(AirflowFailException, match="it is not known which replicas are held"):
        apply_erasure(plan)
    assert changes(sandbox) == []


# -- what is open


def test_what_is_made_after_the_plan_makes_the_request_incomplete_and_a_second_run_completes_it(sandbox):
    plan = plan_erasure()
    sandbox.put("conversations", NEW)
    with pytest.raises(
        AirflowFailException, match="It was made after the plan: conversation/c9999999999999aa"
    ):
        apply_erasure(plan)
    with pytest.raises(AirflowFailException, match="made after the plan"):
        certify(plan)
    certificate = erase("manual__2")
    assert certificate["state"] == "complete"
    assert certificate["number"] == 2
    assert keys(certificate["items"]) == ["conversation/c9999999999999aa", FACE, ACTIVE]
    assert all(item["is_accepted"] for item in certificate["items"])


@pytest.mark.parametrize("failing", ["replicas", "videos", "conversations"])
def test_kind_that_fails_does_not_stop_the_others(sandbox, failing):
    sandbox.put("videos", VIDEO)
    fault = {"method": "DELETE", "path": f"/v2/{failing}", "status": 409, "times": None}
    sandbox.switch(faults=[fault])
    plan = plan_erasure()
    with pytest.raises(AirflowFailException, match="Tavus still returns it"):
        apply_erasure(plan)
    certificate = _incomplete(plan)
    assert [kind for kind, counts in certificate["counts"].items() if counts["failed"]] == [failing[:-1]]
    assert sum(counts["accepted"] for counts in certificate["counts"].values()) == 2
    sandbox.switch(faults=[])
    assert erase("manual__2")["state"] == "complete"


def _incomplete(plan, **identity):
    ti = Ti(**identity)
    with pytest.raises(AirflowFailException):
        certify(plan, ti)
    certificate = ti.pushed["return_value"]
    assert certificate["state"] == "incomplete"
    return certificate


def test_rows_that_name_no_replica_are_undetermined(sandbox):
    sandbox.put("conversations", {"conversation_id": "c8888888888888aa", "status": "ended"})
    plan = plan_erasure()
    assert plan["undetermined"] == [
        {"row": "conversation/c8888888888888aa", "reason": "names no replica", "is_left": False}
    ]
    with pytest.raises(AirflowFailException, match="It may be of this person"):
        apply_erasure(plan)
    _incomplete(plan)
    certificate = erase("manual__2", on_undetermined="leave")
    assert certificate["state"] == "complete"
    assert certificate["undetermined"] == ["conversation/c8888888888888aa"]


def test_row_without_a_replica_whose_persona_names_it_says_so(sandbox):
    sandbox.put("personas", {"persona_id": "p7a8b9c0d1e2", "default_replica_id": FACE})
    row = {"conversation_id": "c8888888888888aa", "status": "ended", "persona_id": "p7a8b9c0d1e2"}
    sandbox.put("conversations", row)
    (found,) = plan_erasure(on_reference="leave")["undetermined"]
    assert found["reason"] == f"names no replica; its persona p7a8b9c0d1e2 now names replica {FACE}"


@pytest.mark.parametrize("works", [True, False])
def test_replica_that_was_soft_deleted_before(sandbox, works):
    run(delete(FACE))
    sandbox.switch(soft_then_hard="works" if works else "failed")
    plan = plan_erasure()
    assert [row["is_known"] for row in plan["delete"]] == [False, True]
    if works:
        assert apply_erasure(plan)["state"] == "complete"
        return
    with pytest.raises(AirflowFailException, match="it cannot be seen whether its training footage"):
        apply_erasure(plan)
    certificate = _incomplete(plan)
    assert "Ask Tavus to confirm it" in certificate["open"][0]["next_step"]
    assert certificate["counts"]["replica"]["unknown"] == 1


def test_list_that_cannot_be_read_is_open(sandbox):
    plan = plan_erasure()
    sandbox.switch(total_count="high")
    with pytest.raises(TavusError, match="It could not be read completely: the list of"):
        apply_erasure(plan)


# -- retries


def test_retry_continues_from_the_ledger(sandbox):
    sandbox.put("videos", VIDEO)
    plan = approve_plan(plan_erasure())
    sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/videos", "status": 503, "times": 3}])
    with pytest.raises(TavusError):
        apply_erasure(plan, approve=False)
    report = apply_erasure(plan, Ti(try_number=2), approve=False)
    assert report["state"] == "complete"
    assert changes(sandbox).count(f"DELETE /v2/replicas/{FACE}") == 1
    assert all(item["is_accepted"] for item in certify(plan)["items"])


def test_report_is_pushed_first_and_again_if_a_timeout_interrupts_the_push(sandbox, monkeypatch):
    plan = approve_plan(plan_erasure())
    order, real_push, real_close = [], Ti.xcom_push, AttemptWriter.close

    def push(ti, key, value):
        order.append(key)
        if len(order) == 1:
            raise AirflowTaskTimeout
        real_push(ti, key, value)

    monkeypatch.setattr(Ti, "xcom_push", push)
    monkeypatch.setattr(AttemptWriter, "close", lambda *a, **k: order.append("close") or real_close(*a, **k))
    ti = Ti()
    with pytest.raises(AirflowTaskTimeout):
        apply_erasure(plan, ti, approve=False)
    assert order == ["return_value", "return_value", "summary", "close", "error"]
    assert ti.pushed["return_value"]["state"] == "complete"
    assert certify(plan)["state"] == "complete"


def test_certificate_needs_an_apply_task_that_began(sandbox):
    with pytest.raises(AirflowFailException, match="no record that an apply task has begun"):
        certify(plan_erasure())


# -- open requests and other deletes


@pytest.mark.parametrize("hard", [False, True])
def test_open_request_keeps_its_replicas_from_other_deletes(sandbox, hard):
    """Neither prune nor a delete by hand may get in the way; a plan made before is refused too."""
    before = run(plan_task())
    plan = plan_erasure(replica_ids=[OLD])
    row = {row["replica_id"]: row for row in _verdicts()}[OLD]
    assert (row["reason_code"], row["status"]) == ("erasure_open", "kept")
    assert row["reason"] == "belongs to the erasure DSR-2026-0142, which is open"
    report = run(apply_task(before))
    assert {item["replica_id"]: item["outcome"] for item in report["items"]}[OLD] == "skipped"
    for task in (delete(OLD, hard=hard), look_up(OLD)):
        with pytest.raises(AirflowFailException, match="belongs to the erasure DSR-2026-0142"):
            run(task)
    apply_erasure(plan)
    certify(plan)
    sandbox.put("replicas", {"replica_id": OLD, "deleted": None})
    assert run(delete(OLD, hard=hard))["outcome"] == "deleted"


def test_closed_request_keeps_nothing(sandbox, monkeypatch):
    plan_erasure(replica_ids=[OLD])
    monkeypatch.setenv("AIRFLOW__TAVUS__CLOSED_ERASURES", "DSR-1, DSR-2026-0142")
    assert run(delete(OLD))["outcome"] == "deleted"


def _verdicts():
    ti = Ti(run_id="manual__9")
    run(plan_task(), ti)
    return ti.pushed["verdicts"]["rows"]


# -- the certificate


def test_certificate_and_page_are_private_and_never_overwritten(sandbox, tmp_path):
    erase()
    folder = tmp_path / "ledger" / "_certificates" / "DSR-2026-0142"
    first = (folder / "1.json").read_bytes()
    assert {oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {"0o600"}
    erase("manual__2")
    assert sorted(file.name for file in folder.iterdir()) == ["1.html", "1.json", "2.html", "2.json"]
    assert (folder / "1.json").read_bytes() == first


def test_large_documents_become_references(sandbox, monkeypatch):
    monkeypatch.setattr("tavus_provider.planning.plan.MAX_XCOM_BYTES", 1_500)
    plan = plan_erasure()
    assert "delete" not in plan
    assert plan["counts"] == {"replica": 1, "video": 0, "conversation": 1}
    apply_erasure(plan)
    certificate = certify(plan)
    assert (certificate["state"], "items" in certificate) == ("complete", False)
    with pytest.raises(AirflowFailException, match="was changed"):
        apply_erasure(plan | {"request": "DSR-2"}, approve=False)
