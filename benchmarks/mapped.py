"""Deletes as one run of a DAG on a running Airflow: this package and a mapped ``HttpOperator``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
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


class Airflow:
    """A running ``make airflow`` and a client of its REST API."""

    def __init__(self, home: Path, dags: Path) -> None:
        sys.path.insert(0, str(ROOT / "scripts"))
        import try_it

        self.url = f"http://127.0.0.1:{try_it.free_port()}"
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "try_it.py", "airflow", "--port", self.url.rsplit(":", 1)[1]],
            env=os.environ | {"TRY_IT_HOME": str(home), "TRY_IT_DAGS": str(dags)},
            stdout=subprocess.PIPE,
            text=True,
        )
        printed = ""
        for line in self._process.stdout or ():
            printed += line
            if "Ctrl-C" in line:
                break
        else:
            raise SystemExit(f"Airflow did not start: {printed}")
        self.sandbox = re.search(r"sandbox at (http://[^,]+)", printed)[1]  # type: ignore[index]  # no match is a TypeError
        self._session = requests.Session()
        self._session.trust_env = False
        login = {"username": "admin", "password": "admin"}
        token = self._session.post(f"{self.url}/auth/token", json=login, timeout=60).json()["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        """Stop Airflow."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def api(self, method: str, path: str, **body: Any) -> Any:
        """Send a request to the REST API and return the JSON of its response."""
        response = self._session.request(
            method, f"{self.url}/api/v2/{path}", json=body if method == "POST" else None, timeout=60
        )
        response.raise_for_status()
        return response.json()

    def run(self, dag_id: str) -> float:
        """Run a DAG and return the seconds from its trigger to the end of its last task."""
        while dag_id not in [dag["dag_id"] for dag in self.api("GET", "dags")["dags"]]:
            time.sleep(1)
        run = self.api("POST", f"dags/{dag_id}/dagRuns", logical_date=None)
        while True:
            time.sleep(1)
            run = self.api("GET", f"dags/{dag_id}/dagRuns/{run['dag_run_id']}")
            if run["state"] in ("success", "failed"):
                break
        if run["state"] == "failed":
            raise SystemExit(f"{dag_id} failed: see its tasks at {self.url}")
        return float(run["duration"])

    def fill(self, replica_ids: list[str], latency: float) -> None:
        """Make these the only expired replicas of the sandbox, and set its latency in seconds."""
        rows = [{"replica_id": i, "replica_name": f"old {i}", "age": "400d"} for i in replica_ids]
        for action, body in (("reset", None), ("replicas", rows), ("switches", {"latency": latency})):
            requests.post(f"{self.sandbox}/_sandbox/{action}", json=body, timeout=60).raise_for_status()

    def deletes(self) -> int:
        """Return the number of replicas that the sandbox has deleted."""
        state = requests.get(f"{self.sandbox}/_sandbox/state", timeout=60).json()
        return len(state["deletes"])


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
        stack.callback(airflow.close)
        host, port = airflow.sandbox.removeprefix("http://").split(":")
        airflow.api(
            "POST", "connections", connection_id="mapped", conn_type="http", host=host, port=int(port)
        )
        for _ in range(repeats):
            for dag_id, times in durations.items():
                airflow.fill(ids, latency)
                times.append(airflow.run(dag_id))
                if airflow.deletes() != len(ids):
                    raise SystemExit(f"{dag_id}: {airflow.deletes()} of {len(ids)} replicas were deleted")
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
