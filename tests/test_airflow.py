"""
The whole of Airflow, as ``make airflow`` starts it: a scheduler, an API server, and a person who answers.

``dag.test`` never resolves an approval, so what hangs on one is shown here, over Airflow's REST API.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import psutil
import pytest
import requests
from airflow.sdk import ObjectStoragePath

from tavus_provider.ledger import differences, verify

ROOT = Path(__file__).parents[1]
PATIENCE = 420
"""Seconds after which a wait has failed; nothing here is judged by how long it took."""


class Airflow:
    """A running ``make airflow``, spoken to as a client of its REST API would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "try_it.py", "airflow", "--port", self.url.rsplit(":", 1)[1]],
            env=os.environ | {"TRY_IT_HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        said: Queue[str] = Queue()
        Thread(target=lambda: [said.put(line) for line in self.process.stdout or ()], daemon=True).start()
        self.said = ""
        deadline = time.monotonic() + PATIENCE
        while "Ctrl-C stops it all" not in self.said:
            try:
                self.said += said.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                self.stop()
                pytest.fail(f"Airflow did not come up: {self.said}\n{self.output()}")
        self.sandbox = re.search(r"sandbox at (http://\S+),", self.said)[1]
        self.session = requests.Session()
        self.session.trust_env = False
        token = self.session.post(
            f"{self.url}/auth/token", json={"username": "admin", "password": "admin"}, timeout=60
        ).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def output(self) -> str:
        return (self.home / "output.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)

    def api(self, path: str, method: str = "GET", **kwargs: Any) -> Any:
        answer = self.session.request(method, f"{self.url}/api/v2{path}", timeout=60, **kwargs)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    def state(self) -> Any:
        return self.session.get(f"{self.sandbox}/_sandbox/state", timeout=10).json()

    def sandbox_does(self, what: str, **told: Any) -> None:
        answer = self.session.post(f"{self.sandbox}/_sandbox/{what}", json=told or None, timeout=10)
        assert answer.ok, answer.text

    def deleted(self) -> set[str]:
        return {row["replica_id"] for row in self.state()["deletes"]}

    def task_process(self) -> psutil.Process:
        """The process of a task that is talking to the sandbox."""
        port = int(self.sandbox.rsplit(":", 1)[1])

        def talks(process: psutil.Process) -> bool:
            with contextlib.suppress(psutil.Error):
                return any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp"))
            return False

        everybody = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = (process for process in everybody if talks(process))
        return found

    def clear(self, run: str, task: str) -> None:
        dag_id, run_id = run.split("/")[2], run.split("/")[4]
        told = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task], "only_failed": False}
        self.api(f"/dags/{dag_id}/clearTaskInstances", "POST", json=told)
        self.until(lambda: self.api(run)["state"] not in ("success", "failed"))

    def trigger(self, dag_id: str, **conf: Any) -> str:
        self.until(lambda: dag_id in [dag["dag_id"] for dag in self.api("/dags")["dags"]])
        made = self.api(f"/dags/{dag_id}/dagRuns", "POST", json={"logical_date": None, "conf": conf})
        return f"/dags/{dag_id}/dagRuns/{made['dag_run_id']}"

    def tasks(self, run: str) -> dict[str, str]:
        return {ti["task_id"]: ti["state"] for ti in self.api(f"{run}/taskInstances")["task_instances"]}

    def until(self, condition: Any) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.5)
        return found

    def finished(self, run: str) -> tuple[str, dict[str, str]]:
        state = self.until(lambda: (s := self.api(run)["state"]) in ("success", "failed") and s)
        return state, self.tasks(run)

    def page(self, run: str) -> dict[str, Any]:
        """Wait for the approval to be asked for, and return what the person sees."""

        run_id = re.escape(run.split("/")[4])
        let_go = re.compile(rf"TaskInstance Finished: dag_id=\w+, task_id=approve, run_id={run_id},")

        def parked() -> Any:
            # An answer that comes before the scheduler has seen the parked try end fails the task in 3.3.2.
            said = (self.home / "output.log").read_text(errors="replace")
            return let_go.search(said) and self.api(f"{run}/hitlDetails")["hitl_details"]

        return self.until(parked)[0]

    def answer(self, run: str, option: str) -> None:
        self.api(
            f"{run}/taskInstances/approve/-1/hitlDetails",
            "PATCH",
            json={"chosen_options": [option], "params_input": {}},
        )

    def xcom(self, run: str, task: str, key: str = "return_value") -> Any:
        return self.api(f"{run}/taskInstances/{task}/xcomEntries/{key}")["value"]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    running = Airflow(tmp_path_factory.mktemp("airflow"))
    yield running
    running.stop()


def test_a_rejected_purge_deletes_nothing_and_an_approved_one_exactly_what_was_shown(airflow):
    rejected = airflow.trigger("tavus_purge_replicas", include=["spring-*", "summer-*"])
    page = airflow.page(rejected)
    digest = airflow.xcom(rejected, "plan")["digest"]
    assert page["options"] == ["Approve", "Reject"]
    assert page["subject"] == "Delete 2 Tavus replicas permanently?"
    assert digest in page["body"]
    assert "r1a0c5e8f3b2" in page["body"]
    assert "r2b9d41c07ae" in page["body"]
    airflow.answer(rejected, "Reject")
    assert airflow.finished(rejected) == (
        "success",
        {"plan": "success", "approve": "success", "apply": "skipped"},
    )
    assert airflow.state()["deletes"] == []

    approved = airflow.trigger("tavus_purge_replicas", include=["spring-*", "summer-*"])
    airflow.page(approved)
    assert airflow.state()["deletes"] == []
    airflow.answer(approved, "Approve")
    assert airflow.finished(approved) == (
        "success",
        {"plan": "success", "approve": "success", "apply": "success"},
    )
    plan, report = airflow.xcom(approved, "plan"), airflow.xcom(approved, "apply")
    assert airflow.xcom(approved, "approve", "approved_digest") == plan["digest"] == report["plan_digest"]
    assert report["counts"]["deleted"] == 2
    deletes = airflow.state()["deletes"]
    assert sorted(row["replica_id"] for row in deletes) == ["r1a0c5e8f3b2", "r2b9d41c07ae"]
    assert all(row["hard"] for row in deletes)


def test_a_permanent_delete_by_hand_waits_for_an_approval(airflow):
    before = len(airflow.state()["deletes"])
    run = airflow.trigger("tavus_delete_replica", replica_id="r3f6a2e9d815", permanent=True)
    page = airflow.page(run)
    assert page["subject"] == "Delete 1 Tavus replica permanently?"
    assert "chosen by hand" in page["body"]
    assert len(airflow.state()["deletes"]) == before
    airflow.answer(run, "Approve")
    state, tasks = airflow.finished(run)
    assert state == "success"
    assert tasks["delete"] == "skipped"
    assert airflow.xcom(run, "delete_permanently")["outcome"] == "deleted"
    assert airflow.state()["deletes"][before:] == [{"replica_id": "r3f6a2e9d815", "hard": True}]


def test_a_cleared_approval_does_not_ask_again(airflow):
    run = airflow.trigger("tavus_purge_replicas", include=["black-friday_*", "webinar_*"])
    airflow.page(run)
    airflow.answer(run, "Reject")
    airflow.finished(run)
    before = airflow.state()["deletes"]
    airflow.clear(run, "approve")
    assert airflow.finished(run)[1]["approve"] == "failed"
    assert airflow.state()["deletes"] == before


def test_the_test_button_says_that_the_key_was_accepted(airflow):
    answer = airflow.api(
        "/connections/test",
        "POST",
        json={
            "connection_id": "tried",
            "conn_type": "tavus",
            "host": airflow.sandbox,
            "password": "sandbox",
            "extra": '{"timeout": null}',
        },
    )
    assert answer == {"status": True, "message": "Tavus accepted the API key."}


def stuck(replica_id: str, when: str) -> dict[str, Any]:
    """A delete that is not answered while anybody waits for it."""
    return {"method": "DELETE", "path": f"/v2/replicas/{replica_id}", "delay": 600, "when": when}


def finished_after_the_kill(airflow: Airflow, run: str, planned: set[str]) -> dict[str, dict[str, str]]:
    """Kill the process of the task, clear the task, and return what its next try reports."""
    airflow.task_process().kill()
    state, tasks = airflow.finished(run)
    assert (state, tasks["apply"]) == ("failed", "failed")
    airflow.sandbox_does("switches", faults=[])
    airflow.clear(run, "apply")
    state, tasks = airflow.finished(run)
    assert (state, tasks["apply"]) == ("success", "success")
    effects = [row["replica_id"] for row in airflow.state()["deletes"]]
    assert sorted(effects) == sorted(planned)
    report = airflow.xcom(run, "apply")
    assert {item["replica_id"] for item in report["items"]} == planned
    tries, findings = verify(ObjectStoragePath(str(airflow.home / "tavus-ledger")))
    assert differences(tries, report) == []
    killed, last = (
        one for one in tries if one.began.get("plan_digest") == report["plan_digest"] and one.intended
    )
    assert (killed.began["try_number"], last.began["try_number"]) == (1, 2)
    assert (killed.closed, last.closed) == (False, True)
    assert not [finding for finding in findings if killed.name not in finding]
    return {item["replica_id"]: item for item in report["items"]}


def test_a_worker_killed_in_the_middle_of_a_prune_is_finished_by_the_next_try(airflow):
    airflow.sandbox_does("reset")
    answered = {"r1a0c5e8f3b2", "r2b9d41c07ae", "r3f6a2e9d815", "r6d3b8f1e5a7"}
    before, after = "r4c81b7f0d3e", "r5e27d9a6c40"
    airflow.sandbox_does("switches", faults=[stuck(before, "before"), stuck(after, "after")])
    run = airflow.trigger("tavus_prune_replicas")
    airflow.until(lambda: airflow.deleted() == answered | {after})
    items = finished_after_the_kill(airflow, run, answered | {before, after})
    assert items[before]["outcome"] == "deleted"
    for replica_id in answered | {after}:
        assert "by an earlier try of this task" in items[replica_id]["detail"]


def test_a_worker_killed_in_the_middle_of_an_approved_purge_needs_no_other_approval(airflow):
    airflow.sandbox_does("reset")
    done, left = "r1a0c5e8f3b2", "r2b9d41c07ae"
    airflow.sandbox_does("switches", faults=[stuck(left, "before")])
    run = airflow.trigger("tavus_purge_replicas", include=["spring-*", "summer-*"])
    airflow.page(run)
    airflow.answer(run, "Approve")
    airflow.until(lambda: airflow.deleted() == {done})
    items = finished_after_the_kill(airflow, run, {done, left})
    assert items[left]["outcome"] == "deleted"
    assert "by an earlier try of this task" in items[done]["detail"]
