"""Metrics, as a StatsD server receives them, and what is never in them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from erasures import plan_erasure
from operators.tasks import EXPIRED, Ti, apply_task, delete, plan_task, run

from tavus_provider.operators import base
from tavus_provider.operators.tavus import CheckErasuresOperator

ROOT = Path(__file__).parents[2]


class Recorder:
    """A backend of Airflow's metrics that records what it gets."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, object, dict[str, str]]] = []

    def __getattr__(self, kind):
        return lambda name, value, *, tags: self.sent.append((kind, name, value, tags))

    def values(self, kind, prefix="tavus."):
        return {name: value for sent, name, value, _ in self.sent if sent == kind and name.startswith(prefix)}


@pytest.fixture
def sent(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("airflow.providers.common.compat.sdk.Stats", recorder, raising=False)
    return recorder


def test_plan_sends_a_gauge_for_each_status(sandbox, sent):
    ti = Ti()
    run(plan_task(), ti)
    statuses = Counter(row["status"] for row in ti.pushed["verdicts"]["rows"])
    gauges = sent.values("gauge")
    assert gauges == {
        **{f"tavus.replicas.{status}": 0 for status in ("scheduled", "held", "out_of_scope")},
        **{f"tavus.replicas.{status}": count for status, count in statuses.items()},
        "tavus.undetermined": 4,
        "tavus.overdue": 0,
    }
    assert gauges["tavus.replicas.expired"] == 6
    assert set(sent.values("timing")) == {"tavus.read_duration", "tavus.decide_duration"}
    assert {str(tags) for *_, tags in sent.sent} == {"{'conn_id': 'tavus_default'}"}


@pytest.mark.parametrize(
    ("days", "gauges"),
    [
        (0, {"open": 1, "overdue": 0, "failing": 0}),
        (25, {"open": 1, "overdue": 0, "failing": 1}),
        (31, {"open": 1, "overdue": 1, "failing": 1}),
    ],
)
def test_check_of_erasures_sends_gauges_of_open_and_overdue_requests(
    sandbox, sent, monkeypatch, days, gauges
):
    plan_erasure()  # received on 2026-11-01
    sent.sent.clear()
    monkeypatch.setattr(base, "now", lambda: datetime(2026, 11, 1, 12, tzinfo=UTC) + timedelta(days=days))
    with contextlib.suppress(AirflowFailException):
        run(CheckErasuresOperator(task_id="check"))
    assert sent.values("gauge") == {f"tavus.erasures.{name}": count for name, count in gauges.items()}


def test_overdue_replicas_of_the_plan_are_counted(sandbox, sent, monkeypatch):
    from tavus_provider.planning import plan

    real = plan.make_plan
    overdue = [{"replica_id": "r1", "reason": "x", "age_days": 9}] * 3
    monkeypatch.setattr(plan, "make_plan", lambda *a, **k: {**real(*a, **k), "overdue": overdue})
    run(plan_task())
    assert sent.values("gauge")["tavus.overdue"] == 3


@pytest.mark.parametrize("hard", [True, False])
def test_single_delete_is_counted(sandbox, sent, hard):
    run(delete(hard=hard))
    kind = "hard" if hard else "soft"
    assert sent.values("incr") == {"tavus.deletes": 1, f"tavus.deletes.{kind}.deleted": 1}
    assert sent.sent[-1][3] == {"conn_id": "tavus_default", "outcome": "deleted", "hard": str(hard).lower()}
    assert "tavus.delete_duration" in sent.values("timing")


def test_outcomes_of_an_apply_are_counted_once(sandbox, plan, sent):
    first = min(EXPIRED)
    fault = {"method": "DELETE", "path": f"/v2/replicas/{first}", "status": 400, "times": 1}
    sandbox.switch(faults=[fault])
    with pytest.raises(Exception, match="may still exist"):
        run(apply_task(plan))
    assert sent.values("incr", "tavus.deletes.") == {
        "tavus.deletes.soft.deleted": 5,
        "tavus.deletes.soft.failed": 1,
    }
    sent.sent.clear()
    run(apply_task(plan), Ti(try_number=2))
    assert sent.values("incr", "tavus.deletes.") == {"tavus.deletes.soft.deleted": 1}


def test_dry_run_counts_no_outcome(sandbox, plan, sent):
    run(apply_task(plan, dry_run=True))
    assert sent.values("incr") == {}


def test_metrics_never_fail_a_task(sandbox, monkeypatch):
    class Broken:
        def __getattr__(self, kind):
            raise OSError("no route")

    monkeypatch.setattr("airflow.providers.common.compat.sdk.Stats", Broken(), raising=False)
    assert len(run(plan_task())["delete"]) == 6


def test_metrics_name_no_replica(sandbox, sent):
    ti = Ti()
    run(apply_task(run(plan_task(), ti)))
    text = str(sent.sent)
    for row in ti.pushed["verdicts"]["rows"]:
        assert row["replica_id"] not in text
        assert row["replica_name"] is None or row["replica_name"] not in text


# -- through the configuration of Airflow

SCRIPT = """
from airflow.sdk.execution_time import task_runner
if hasattr(task_runner, "stats_utils"):  # Airflow 3.2 and later: as its main function does
    task_runner.stats.initialize(
        factory=task_runner.stats_utils.get_stats_factory(), export_legacy_names=False
    )
from operators.tasks import apply_task, plan_task, run
run(apply_task(run(plan_task())))
"""


@pytest.fixture
def statsd():
    """A StatsD server that only listens."""
    pytest.importorskip("statsd", reason="the client that Airflow uses is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.1)
        yield server


@pytest.mark.parametrize("is_on", [True, False])
def test_statsd_gets_metrics_if_the_deployment_turns_them_on(sandbox, statsd, is_on):
    settings = {
        "AIRFLOW__METRICS__STATSD_ON": str(is_on),
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.getsockname()[1]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
    }
    subprocess.run([sys.executable, "-c", SCRIPT], env=os.environ | settings, check=True, cwd=ROOT)
    received = []
    while True:
        try:
            received.append(statsd.recv(65_536).decode())
        except TimeoutError:
            break
    ours = {line.split(":")[0]: line for line in received if line.startswith("airflow.tavus.")}
    if not is_on:
        assert ours == {}
        return
    assert ours["airflow.tavus.replicas.expired"] == "airflow.tavus.replicas.expired:6|g"
    assert ours["airflow.tavus.deletes.soft.deleted"] == "airflow.tavus.deletes.soft.deleted:6|c"
    assert ours["airflow.tavus.delete_duration"].endswith("|ms")
