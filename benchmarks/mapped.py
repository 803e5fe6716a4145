"""Deletes as one run of a DAG on a running Airflow: this package and a mapped ``HttpOperator``."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from airflow_server import Airflow  # the tests are not a package

DAGS = """
import json

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

IDS = {ids}

with DAG("mapped_http_operator", schedule=None, max_active_tasks=16):
    HttpOperator.partial(
        task_id="delete", http_conn_id="mapped", method="DELETE", headers={{"x-api-key": "sandbox"}}
    ).expand(endpoint=[f"v2/replicas/{{replica_id}}" for replica_id in IDS])

with DAG("plan_and_apply", schedule=None):
    plan = PlanRetentionOperator(task_id="plan", policy=json.loads('{policy}'))
    ApplyRetentionOperator(task_id="apply", plan=plan.output, concurrency=16)
"""


def run(airflow: Airflow, dag_id: str) -> float:
    """Run a DAG and return the seconds from its trigger to the end of its last task."""
    path = airflow.trigger(dag_id)
    if airflow.finished(path)[0] == "failed":
        raise SystemExit(f"{dag_id} failed: see its tasks at {airflow.url}")
    return float(airflow.api(path)["duration"])


def fill(airflow: Airflow, replica_ids: list[str], latency: float) -> None:
    """Make these the only expired replicas of the sandbox, and set its latency in seconds."""
    airflow.control_sandbox("reset")
    airflow.control_sandbox(
        "replicas", [{"replica_id": i, "replica_name": f"old {i}", "age": "400d"} for i in replica_ids]
    )
    airflow.control_sandbox("switches", latency=latency)


def runs(ids: list[str], latency: float, repeats: int) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield one row of the table for each implementation."""
    policy = {
        "expire": [{"rule": "old", "older_than": "399d"}],
        "scope": {"include": ["old *"]},
        "limits": {"max_deletions": len(ids), "max_deletion_percent": 100},
    }
    durations: dict[str, list[float]] = {"plan_and_apply": [], "mapped_http_operator": []}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home, dags = Path(folder, "home"), Path(folder, "dags")
        dags.mkdir()
        (dags / "both.py").write_text(DAGS.format(ids=ids, policy=json.dumps(policy)))
        airflow = Airflow(home, dags)
        stack.callback(airflow.stop)
        host, port = airflow.sandbox.removeprefix("http://").split(":")
        made = {"connection_id": "mapped", "conn_type": "http", "host": host, "port": int(port)}
        airflow.api("/connections", "POST", json=made)
        for _ in range(repeats):
            for dag_id, times in durations.items():
                fill(airflow, ids, latency)
                times.append(run(airflow, dag_id))
                if (deletes := len(airflow.state()["deletes"])) != len(ids):
                    raise SystemExit(f"{dag_id}: {deletes} of {len(ids)} replicas were deleted")
    ours = statistics.median(durations["plan_and_apply"])
    for dag_id, name in (
        ("plan_and_apply", "this package, plan and apply"),
        ("mapped_http_operator", "HttpOperator, mapped"),
    ):
        seconds = statistics.median(durations[dag_id])
        yield (
            f"one run of {len(ids)} deletes at {latency * 1000:.0f} ms, LocalExecutor",
            name,
            f"{seconds:.1f} s",
            f"{seconds / ours:.1f}",
            f"this package, {ours:.1f} s",
            "",
        )
