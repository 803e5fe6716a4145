"""
Stop a run at random moments, as Airflow does: no delete begins after the stop, and the report is pushed.

``STOP_MOMENTS=50 pytest tests/operators/test_stop_moments.py`` tries more moments.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from operators.tasks import Ti, apply_task, planned, run
from plans import approve_plan

from tavus_provider.exceptions import TavusRetryableError
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.storage.ledger import ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

MOMENTS = int(os.environ.get("STOP_MOMENTS", "6"))
COUNT = 60
LATE = 2.0
"""Seconds after a stop within which the sandbox may log a delete that began before it."""

WORLD = {"replicas": [{"replica_id": f"r{n:03}", "replica_name": "x", "age": "200d"} for n in range(COUNT)]}
POLICY = {
    "name": "all",
    "expire": [{"rule": "old", "older_than": "90d"}],
    "limits": {"max_deletions": COUNT, "max_deletion_percent": 100},
}
SOME = {"method": "DELETE", "delay": 0.01, "times": 5}
FAULTS = {
    "none": [{"delay": 0.02, "times": None}],
    "rate limit": [SOME, {"method": "DELETE", "status": 429, "retry_after": "40", "times": None}],
    "hung deletes": [SOME, {"method": "DELETE", "delay": 300, "times": None, "when": "after"}],
    "hung reads": [
        {"method": "GET", "path": "/v2/(replicas|personas)", "delay": 300, "times": None, "when": "after"}
    ],
    "errors": [{"method": "DELETE", "status": 500, "when": "after", "times": None}],
}
log = logging.getLogger(__name__)


class TimedTi(Ti):
    """A task instance that notes when the report was pushed."""

    pushed_at = None

    def xcom_push(self, key, value):
        super().xcom_push(key, value)
        if key == "return_value" and self.pushed_at is None:
            self.pushed_at = time.monotonic()


@pytest.fixture
def signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stop_at_random(operator, sandbox, *, chance, stopped_at):
    """Start a thread that sends a signal after a random number of requests, or later."""

    def on_sigterm(*_):
        operator.on_kill()
        stopped_at.append(time.monotonic())

    def on_alarm(*_):
        stopped_at.append(time.monotonic())
        raise AirflowTaskTimeout

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.signal(signal.SIGALRM, on_alarm)
    ended = threading.Event()
    number = chance.choice([signal.SIGTERM, signal.SIGALRM])
    requests, delay = chance.randint(1, COUNT), chance.uniform(0.0, 0.3)
    begin = len(sandbox.state()["requests"])

    def stop():
        until = time.monotonic() + 5  # fewer requests arrive if they hang
        while len(sandbox.state()["requests"]) - begin < requests and time.monotonic() < until:
            if ended.wait(0.01):
                return
        if not ended.wait(delay):
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    return number, thread, ended


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_no_delete_begins_after_a_stop_and_the_report_is_pushed(serve, waiting, signals, seed):
    chance = random.Random(seed)
    sandbox, hard = serve(WORLD), chance.random() < 0.3
    plan = planned(policy=POLICY, hard=hard)
    if hard:
        approve_plan(plan)
    name = chance.choice(list(FAULTS))
    begin = time.monotonic()
    with TavusHook() as hook:
        hook.get_conversations_page()
    started_at = begin - sandbox.state()["requests"][-1]["at"]  # rather too early: no delete looks late
    sandbox.switch(faults=FAULTS[name])
    operator, ti, stopped_at = apply_task(plan, hard=hard, concurrency=4), TimedTi(), []
    number, thread, ended = stop_at_random(operator, sandbox, chance=chance, stopped_at=stopped_at)
    try:
        with contextlib.suppress(TavusRetryableError, AirflowTaskTimeout):
            run(operator, ti)
    finally:
        ended.set()
        thread.join()
    report = ti.pushed["return_value"]
    assert sum(report["counts"].values()) == COUNT
    if report["ledger"] is not None:
        assert compare_report(verify(ledger_root())[0], report) == []
    sandbox.wait_until_idle()
    state = sandbox.state()
    outcomes = {item["replica_id"]: item["outcome"] for item in report["items"]}
    deleted = {row["replica_id"] for row in state["deletes"]}
    assert {i for i, outcome in outcomes.items() if outcome in ("deleted", "confirmed")} <= deleted
    assert {outcomes[i] for i in deleted} <= {"deleted", "confirmed", "unknown"}
    if stopped_at:
        late = [
            row
            for row in state["requests"]
            if row["method"] == "DELETE" and started_at + row["at"] > stopped_at[0] + LATE
        ]
        assert late == []
        assert ti.pushed_at - stopped_at[0] < 20
        seconds = ti.pushed_at - stopped_at[0]
        log.info("%s, %s: report after %.2f s, %s", name, number.name, seconds, report["counts"])
    else:
        log.info("%s: ended before the stop", name)
