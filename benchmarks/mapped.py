"""The same deletes as runs of a DAG on a running Airflow: this package beside a mapped ``HttpOperator``."""

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
    ).expand(endpoint=[f"v2/replicas/{{one}}" for one in IDS])

with DAG("plan_and_apply", schedule=None):
    plan = PlanRetentionOperator(task_id="plan", policy=json.loads('{policy}'))
    ApplyRetentionOperator(task_id="apply", plan=plan.output, concurrency=16)
"""


class Airflow:
    """What ``make airflow`` starts, spoken to over its REST API."""

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
        said = ""
        for line in self._process.stdout or ():
            said += line
            if "Ctrl-C" in line:
                break
        else:
            raise SystemExit(f"Airflow did not start: {said}")
        self.sandbox = re.search(r"sandbox at (http://[^,]+)", said)[1]  # type: ignore[index]
        self._session = requests.Session()
        self._session.trust_env = False
        login = {"username": "admin", "password": "admin"}
        token = self._session.post(f"{self.url}/auth/token", json=login, timeout=60).json()["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def api(self, method: str, path: str, **told: Any) -> Any:
        answer = self._session.request(
            method, f"{self.url}/api/v2/{path}", json=told if method == "POST" else None, timeout=60
        )
        answer.raise_for_status()
        return answer.json()

    def run(self, dag_id: str) -> float:
        """Run a DAG and return the seconds from its trigger to the end of its last task."""
        while dag_id not in [dag["dag_id"] for dag in self.api("GET", "dags")["dags"]]:
            time.sleep(1)
        made = self.api("POST", f"dags/{dag_id}/dagRuns", logical_date=None)
        while True:
            time.sleep(1)
            run = self.api("GET", f"dags/{dag_id}/dagRuns/{made['dag_run_id']}")
            if run["state"] in ("success", "failed"):
                break
        if run["state"] == "failed":
            raise SystemExit(f"{dag_id} failed: see its tasks at {self.url}")
        return float(run["duration"])

    def fill(self, replica_ids: list[str], latency: float) -> None:
        """Make these the only replicas that have expired, and let each answer take so long."""
        rows = [{"replica_id": one, "replica_name": f"old {one}", "age": "400d"} for one in replica_ids]
        for what, told in (("reset", None), ("replicas", rows), ("switches", {"latency": latency})):
            requests.post(f"{self.sandbox}/_sandbox/{what}", json=told, timeout=60).raise_for_status()

    def deletes(self) -> int:
        state = requests.get(f"{self.sandbox}/_sandbox/state", timeout=60).json()
        return len(state["deletes"])


def runs(ids: list[str], latency: float, repeats: int) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield a row for each way to delete these."""
    policy = {
        "expire": [{"rule": "old", "older_than": "399d"}],
        "scope": {"include": ["old *"]},
        "limits": {"max_deletions": len(ids), "max_deletion_percent": 100},
    }
    took: dict[str, list[float]] = {"plan_and_apply": [], "mapped_http_operator": []}
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
            for dag_id, times in took.items():
                airflow.fill(ids, latency)
                times.append(airflow.run(dag_id))
                if airflow.deletes() != len(ids):
                    raise SystemExit(f"{dag_id}: {airflow.deletes()} of {len(ids)} were deleted")
    ours = statistics.median(took["plan_and_apply"])
    for dag_id, who in (
        ("plan_and_apply", "this package, plan and apply"),
        ("mapped_http_operator", "HttpOperator, mapped"),
    ):
        seconds = statistics.median(took[dag_id])
        yield (
            f"a run of {len(ids)} deletes at {latency * 1000:.0f} ms, LocalExecutor",
            who,
            f"{seconds:.1f} s",
            f"{seconds / ours:.1f}",
            f"this package, {ours:.1f} s",
            "",
        )
