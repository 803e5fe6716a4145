"""
A task that is stopped while its client waits: the wait ends, no request is sent, and the report is pushed.

Every wait here would last a minute or more. The stop comes when the client has begun to wait.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk import ObjectStoragePath
from erasures import plan_erasure
from operators.tasks import OLD, Ti, apply_task, delete, look_up, plan_task, requests, run
from plans import approve_plan

from tavus_provider.client import connection, rate_limiter
from tavus_provider.exceptions import LedgerUnavailableError, TavusRetryableError
from tavus_provider.operators.tavus import ApplyErasureOperator
from tavus_provider.storage.ledger import AttemptWriter, Ledger, job_name, ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

RATE_LIMITED = {"status": 429, "retry_after": "60", "times": None}


def on_kill_in_another_thread(operator):
    operator.on_kill()


def sigterm(operator):
    os.kill(os.getpid(), signal.SIGTERM)


def execution_timeout(operator):
    os.kill(os.getpid(), signal.SIGALRM)


STOPS = [
    pytest.param(on_kill_in_another_thread, TavusRetryableError, id="another thread"),
    pytest.param(sigterm, TavusRetryableError, id="SIGTERM"),
    pytest.param(execution_timeout, AirflowTaskTimeout, id="execution_timeout"),
]


@pytest.fixture
def run_stopped(monkeypatch):
    """
    Run a task that is stopped when an event is set, as Airflow stops it; return its task instance.

    If the task does not end, it is ended after 30 seconds, and the test fails.

    ``run_stopped(operator, stop, error, when=event)``
    """
    threads, before = [], {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}

    def timed_out(*_):
        raise AirflowTaskTimeout

    def run_it(operator, stop, error, *, when, ti=None):
        signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
        signal.signal(signal.SIGALRM, timed_out)

        def stop_later():
            if when.wait(60):
                stop(operator)

        def end():
            too_late.set()
            operator.hook.stop()

        too_late, timer = threading.Event(), threading.Timer(30, end)
        threads.extend((timer, threading.Thread(target=stop_later)))
        for thread in threads:
            thread.start()
        ti = ti or Ti()
        with pytest.raises(error):
            run(operator, ti)
        timer.cancel()
        assert when.is_set()
        assert not too_late.is_set()
        return ti

    yield run_it
    for thread in threads:
        thread.join(60)
    for number, handler in before.items():
        signal.signal(number, handler)


def outcomes(ti):
    report = ti.pushed["return_value"]
    assert sum(report["counts"].values()) == 6
    assert compare_report(verify(ledger_root())[0], report) == []
    assert verify(ledger_root())[1] == []
    return {item["replica_id"]: item["outcome"] for item in report["items"]}


def test_waits_notice_a_stop_within_a_second():
    assert 0 < rate_limiter.STOP_CHECK_SECONDS < 1


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(("stop", "error"), STOPS)
def test_apply_stopped_during_retry_after(sandbox, plan, waiting, run_stopped, *, stop, error, concurrency):
    sandbox.switch(faults=[RATE_LIMITED | {"method": "DELETE"}])
    ti = run_stopped(apply_task(plan, concurrency=concurrency), stop, error, when=waiting)
    found = outcomes(ti)
    sent = requests(sandbox, "DELETE")
    assert 1 <= len(sent) == len(set(sent)) <= concurrency
    assert sorted(sent) == sorted(f"DELETE /v2/replicas/{i}" for i, o in found.items() if o == "failed")
    assert set(found.values()) == {"failed", "not_attempted"}
    assert requests(sandbox)[-1].startswith("DELETE")  # the list is not read again


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("stop", "error"), STOPS)
def test_apply_stopped_while_it_waits_for_the_rate_limiter(
    sandbox, request, waiting, run_stopped, monkeypatch, *, stop, error, hard
):
    plan = request.getfixturevalue("hard_plan" if hard else "plan")
    real = Ledger.begin_attempt

    def begin_attempt(*args, **fields):
        (limiter,) = rate_limiter._shared.values()
        limiter.block_for(3_600)
        return real(*args, **fields)

    if hard:
        approve_plan(plan)
    monkeypatch.setattr(Ledger, "begin_attempt", begin_attempt)
    operator = apply_task(plan, hard=hard)
    ti = run_stopped(operator, stop, error, when=waiting)
    assert set(outcomes(ti).values()) == {"not_attempted"}
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize(("stop", "error"), STOPS)
def test_apply_stopped_after_an_unknown_outcome_does_not_verify(
    sandbox, plan, waiting, run_stopped, *, stop, error
):
    first = plan["delete"][0]["replica_id"]
    unknown = {"method": "DELETE", "status": 500, "when": "after"}
    look_up_fails = {"method": "GET", "status": 400, "path": f"/v2/replicas/{first}"}
    sandbox.switch(faults=[unknown, look_up_fails, RATE_LIMITED | {"method": "DELETE"}])
    ti = run_stopped(apply_task(plan, concurrency=1), stop, error, when=waiting)
    found = outcomes(ti)
    assert found.pop(first) == "unknown"
    assert set(found.values()) == {"not_attempted"}
    assert [row["replica_id"] for row in sandbox.state()["deletes"]] == [first]
    assert requests(sandbox).count("GET /v2/replicas") == 2  # by plan, and by apply before the deletes


def test_delete_in_progress_ends_normally(sandbox, plan, waiting, run_stopped):
    received = threading.Event()
    sandbox.switch(faults=[{"method": "DELETE", "delay": 0.3, "times": None}])
    operator = apply_task(plan, concurrency=1)

    def stop_when_received(operator):
        while not requests(sandbox, "DELETE"):
            pass
        operator.on_kill()

    received.set()
    ti = run_stopped(operator, stop_when_received, TavusRetryableError, when=received)
    sandbox.wait_until_idle()
    found = outcomes(ti)
    deleted = [row["replica_id"] for row in sandbox.state()["deletes"]]
    assert deleted == [replica_id for replica_id, outcome in found.items() if outcome == "deleted"]
    assert deleted
    assert set(found.values()) == {"deleted", "not_attempted"}
    (item,) = [item for item in ti.pushed["return_value"]["items"] if item["replica_id"] == deleted[-1]]
    assert item["detail"].endswith(" returned 200; its absence could not be verified")


HANGS = {"delay": 300, "times": None}


@pytest.fixture
def when_received(sandbox):
    """Return an event that is set when ``more`` requests that begin with ``start`` have arrived."""

    def count(start):
        return sum(one.startswith(start) for one in requests(sandbox))

    def watch(event, start, number):
        while count(start) < number:
            time.sleep(0.01)
        event.set()

    def wait_for(start, more):
        event = threading.Event()
        threading.Thread(target=watch, args=(event, start, count(start) + more), daemon=True).start()
        return event

    return wait_for


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(("stop", "error"), STOPS)
def test_hung_deletes_are_cut_off_and_unknown(
    sandbox, plan, run_stopped, when_received, monkeypatch, *, stop, error, concurrency, when
):
    monkeypatch.setattr(connection, "STOP_PATIENCE", 0.5)
    order = []
    real_close = AttemptWriter.close
    monkeypatch.setattr(AttemptWriter, "close", lambda *a, **k: order.append("close") or real_close(*a, **k))
    real_push = Ti.xcom_push
    monkeypatch.setattr(
        Ti, "xcom_push", lambda ti, key, value: order.append(key) or real_push(ti, key, value)
    )
    sandbox.switch(faults=[HANGS | {"method": "DELETE", "when": when}])
    received = when_received("DELETE", concurrency)
    ti = run_stopped(apply_task(plan, concurrency=concurrency), stop, error, when=received)
    found = outcomes(ti)
    assert list(found.values()).count("unknown") == concurrency
    assert set(found.values()) == {"unknown", "not_attempted"}
    sent = requests(sandbox, "DELETE")
    assert sorted(sent) == sorted(f"DELETE /v2/replicas/{i}" for i, o in found.items() if o == "unknown")
    assert order[:3] == ["return_value", "summary", "close"]
    details = {one["detail"] for one in ti.pushed["return_value"]["items"] if one["outcome"] == "unknown"}
    assert all("the client was stopped" in detail for detail in details)


@pytest.mark.parametrize(("stop", "error"), STOPS)
@pytest.mark.parametrize("hangs", ["list", "look"])
def test_hung_reads_are_cut_off(
    sandbox, hard_plan, run_stopped, when_received, monkeypatch, *, stop, error, hangs
):
    monkeypatch.setattr(connection, "STOP_PATIENCE", 0.5)
    approve_plan(hard_plan)
    path = "/v2/replicas" if hangs == "list" else "/v2/replicas/.+"
    sandbox.switch(faults=[HANGS | {"method": "GET", "path": path}])
    received = when_received("GET /v2/replicas" + "/" * (hangs == "look"), 1)
    ti = run_stopped(apply_task(hard_plan, hard=True, concurrency=1), stop, error, when=received)
    items = ti.pushed["return_value"]["items"]
    assert [item["outcome"] for item in items] == ["not_attempted"] * 6
    assert requests(sandbox, "DELETE") == []


def test_report_is_pushed_again_if_a_timeout_interrupts_the_push(sandbox, plan, monkeypatch):
    real_push, calls = Ti.xcom_push, []

    def push(ti, key, value):
        calls.append(key)
        if len(calls) == 1:
            raise AirflowTaskTimeout
        real_push(ti, key, value)

    monkeypatch.setattr(Ti, "xcom_push", push)
    ti = Ti()
    with pytest.raises(AirflowTaskTimeout):
        run(apply_task(plan), ti)
    assert set(outcomes(ti).values()) == {"deleted"}


@pytest.mark.parametrize(("stop", "error"), STOPS)
@pytest.mark.parametrize(
    "make", [pytest.param(lambda _: plan_task(), id="plan"), pytest.param(apply_task, id="apply")]
)
def test_stopped_while_pages_are_read_in_parallel(serve, waiting, run_stopped, *, make, stop, error):
    rows = [{"replica_id": f"r{n:03}", "replica_name": "x", "age": "200d"} for n in range(250)]
    sandbox = serve({"replicas": rows})
    policy = {
        "expire": [{"older_than": "90d"}],
        "limits": {"max_deletions": 250, "max_deletion_percent": 100},
    }
    plan = run(plan_task(policy))
    before = len(requests(sandbox))
    first_page = {"method": "GET", "path": "/v2/replicas", "delay": 0.001}
    sandbox.switch(faults=[first_page, RATE_LIMITED | {"method": "GET"}])
    run_stopped(make(plan), stop, error, when=waiting)
    assert set(requests(sandbox)[before:]) == {"GET /v2/replicas"}
    assert len(requests(sandbox)[before:]) <= 3


@pytest.mark.parametrize(("stop", "error"), STOPS)
def test_delete_operator_stopped_during_retry_after(sandbox, waiting, run_stopped, stop, error):
    sandbox.switch(faults=[RATE_LIMITED | {"method": "DELETE"}])
    run_stopped(delete(), stop, error, when=waiting)
    assert len(requests(sandbox, "DELETE")) == 1
    (attempt,), findings = verify(ledger_root())
    assert findings == []
    assert attempt.is_closed
    # The exception of a timeout does not show whether the delete was sent.
    assert attempt.outcomes == {OLD: "unknown" if error is AirflowTaskTimeout else "failed"}


@pytest.mark.parametrize("make", [delete, look_up, plan_task])
def test_stop_before_the_task_runs_sends_nothing(sandbox, make):
    operator = make()
    operator.on_kill()
    with pytest.raises(TavusRetryableError, match="the client was stopped"):
        run(operator)
    assert requests(sandbox) == []


def test_apply_stopped_before_it_runs_pushes_a_report(sandbox, plan):
    before = requests(sandbox)
    operator, ti = apply_task(plan), Ti()
    operator.on_kill()
    with pytest.raises(TavusRetryableError, match="the client was stopped"):
        run(operator, ti)
    report = ti.pushed["return_value"]
    assert {item["detail"] for item in report["items"]} == {
        "not attempted: the task received a request to stop"
    }
    assert requests(sandbox) == before


@pytest.fixture
def hang(monkeypatch):
    """Let the reader of a file wait: ``hang(path)`` returns an event that is set when it is read."""
    real, events, ended = ObjectStoragePath.read_bytes, {}, threading.Event()

    def wait_and_read(self):
        if self.path in events:
            events[self.path].set()
            # In short parts: a signal that comes just before a wait does not interrupt it.
            while not ended.wait(0.05):
                pass
        return real(self)

    def put(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return events.setdefault(str(path), threading.Event())

    monkeypatch.setattr(ObjectStoragePath, "read_bytes", wait_and_read)
    yield put
    ended.set()


def hang_ledger(hang, sandbox, tmp_path, plan):
    """Let a task hang that reads what earlier attempts did with a plan."""
    account = tmp_path / "ledger" / Ledger(sandbox.url, "tavus_default").account_folder
    return hang(account / job_name("plan", plan["digest"]) / "20260101T000000000000-0a1b2c3d" / "000001.json")


@pytest.mark.parametrize(
    ("try_number", "outcome", "detail"),
    [(1, "not_attempted", "had read the ledger"), (2, "unknown", "an earlier attempt may have deleted it")],
)
def test_apply_that_times_out_while_it_reads_the_ledger_pushes_a_report(
    sandbox, plan, tmp_path, hang, run_stopped, *, try_number, outcome, detail
):
    ti = Ti(try_number=try_number)
    reads = hang_ledger(hang, sandbox, tmp_path, plan)
    run_stopped(apply_task(plan), execution_timeout, AirflowTaskTimeout, when=reads, ti=ti)
    report = ti.pushed["return_value"]
    assert report["counts"] == {name: 6 * (name == outcome) for name in report["counts"]}
    assert all(item["detail"].endswith(detail) for item in report["items"])
    assert report["ledger"] is None
    assert "6" in ti.pushed["summary"]
    assert requests(sandbox, "DELETE") == []


def test_erasure_that_times_out_while_it_reads_the_ledger_pushes_a_report(
    sandbox, tmp_path, hang, run_stopped
):
    plan = approve_plan(plan_erasure())
    reads = hang_ledger(hang, sandbox, tmp_path, plan)
    operator = ApplyErasureOperator(task_id="apply", plan=plan)
    ti = run_stopped(operator, execution_timeout, AirflowTaskTimeout, when=reads)
    report = ti.pushed["return_value"]
    assert report["state"] == "incomplete"
    assert {item["outcome"] for item in report["items"]} == {"not_attempted"}
    assert "summary" in ti.pushed
    assert requests(sandbox, "DELETE") == requests(sandbox, "POST") == []


def test_apply_that_times_out_while_it_reads_its_plan_says_so_in_one_line(
    plan, tmp_path, hang, run_stopped, caplog
):
    operator = apply_task(plan, execution_timeout=timedelta(minutes=5))
    reads = hang(tmp_path / "ledger" / "_plans" / f"{plan['digest']}.json")
    ti = run_stopped(operator, execution_timeout, AirflowTaskTimeout, when=reads)
    message = "the task did not end within its execution_timeout of 0:05:00"
    assert ti.pushed == {"error": {"version": 1, "kind": "AirflowTaskTimeout", "message": message}}
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [message]


def test_report_is_made_again_if_a_timeout_interrupts_that(sandbox, plan, monkeypatch):
    from tavus_provider.planning import report as reports

    real_make, calls = reports.truncate_report, []

    def truncate(report):
        calls.append(report)
        if len(calls) == 1:
            raise AirflowTaskTimeout
        return real_make(report)

    monkeypatch.setattr(reports, "truncate_report", truncate)
    ti = Ti()
    with pytest.raises(AirflowTaskTimeout):
        run(apply_task(plan), ti)
    assert set(outcomes(ti).values()) == {"deleted"}


def test_apply_that_cannot_read_the_ledger_pushes_a_report(sandbox, plan, tmp_path):
    account = tmp_path / "ledger" / Ledger(sandbox.url, "tavus_default").account_folder
    (account / job_name("plan", plan["digest"]) / "20260101T000000000000-0a1b2c3d" / "000001.json").mkdir(
        parents=True
    )
    ti = Ti()
    with pytest.raises(LedgerUnavailableError) as caught:
        run(apply_task(plan), ti)
    items = ti.pushed["return_value"]["items"]
    assert {item["detail"] for item in items} == {f"not attempted: {caught.value}"}
