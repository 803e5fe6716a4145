"""
The whole of Airflow, as ``make airflow`` starts it: a scheduler, an API server, and a person who answers.

``dag.test`` never resolves an approval, so what hangs on one is shown here, over Airflow's REST API.
"""

from __future__ import annotations

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

import pytest
import requests
from airflow.sdk import ObjectStoragePath

from tavus_provider.ledger import differences, verify

ROOT = Path(__file__).parents[1]
PATIENCE = 420
"""Seconds after which a wait has failed; nothing here is judged by how long it took."""


class Airflow:
    """A running ``make airflow``, spoken to as a client of its REST API would."""

    def __init__(self, home: Path, dags: Path) -> None:
        self.home = home
        self.dags = dags
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "try_it.py", "airflow", "--port", self.url.rsplit(":", 1)[1]],
            env=os.environ | {"TRY_IT_HOME": str(home), "TRY_IT_DAGS": str(dags)},
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
    """Airflow with the DAGs of the project, and two purges that differ in one line from the shipped one."""
    dags = tmp_path_factory.mktemp("dags")
    for file in (ROOT / "dags").glob("*.py"):
        (dags / file.name).write_text(file.read_text())
    purge = (ROOT / "dags" / "tavus_purge_replicas.py").read_text()
    for name, old, new in (
        ("impatient", 'task_id="approve",', 'task_id="approve", response_timeout=timedelta(seconds=1),'),
        ("held", '"limits":', f'"legal_holds": {{"file": "{dags}/holds.json", "max_age": "7d"}}, "limits":'),
    ):
        assert purge.count(old) == 1
        changed = purge.replace(old, new).replace("tavus_purge_replicas", f"purge_{name}")
        changed = changed.replace("import UTC, datetime", "import UTC, datetime, timedelta")
        (dags / f"{name}.py").write_text(changed)
    (dags / "holds.json").write_text("[]")
    running = Airflow(tmp_path_factory.mktemp("airflow"), dags)
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

    tries, findings = verify(ObjectStoragePath(str(airflow.home / "tavus-ledger")))
    assert findings == []
    assert differences(tries, report) == []
    begun = [one.began for one in tries if one.began.get("plan_digest") == plan["digest"]]
    assert [began["task_id"] for began in begun] == ["approve", "apply"]
    assert (begun[0]["approved_by"], begun[1]["approved_digest"]) == ("admin", plan["digest"])


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
    dag_id, run_id = run.split("/")[2], run.split("/")[4]
    airflow.answer(run, "Reject")
    airflow.finished(run)
    airflow.api(
        f"/dags/{dag_id}/clearTaskInstances",
        "POST",
        json={"dry_run": False, "dag_run_id": run_id, "task_ids": ["approve"], "only_failed": False},
    )
    before = airflow.state()["deletes"]
    airflow.until(lambda: airflow.api(run)["state"] != "success")
    assert airflow.finished(run)[1]["approve"] == "failed"
    assert airflow.state()["deletes"] == before


def test_silence_fails_the_run_and_deletes_nothing(airflow):
    before = airflow.state()["deletes"]
    run = airflow.trigger("purge_impatient", include=["webinar_*"])
    assert airflow.finished(run) == (
        "failed",
        {"plan": "success", "approve": "failed", "apply": "upstream_failed"},
    )
    assert airflow.state()["deletes"] == before


def test_a_hold_that_comes_between_approval_and_apply_is_honoured(airflow):
    before = len(airflow.state()["deletes"])
    run = airflow.trigger("purge_held", include=["webinar_*", "onboarding_*"])
    airflow.page(run)
    planned = {row["replica_id"] for row in airflow.xcom(run, "plan")["delete"]}
    held = "r4c81b7f0d3e"
    assert planned == {held, "r5e27d9a6c40"}
    (airflow.dags / "holds.json").write_text(f'["{held}"]')
    airflow.answer(run, "Approve")
    assert airflow.finished(run)[0] == "success"
    items = {item["replica_id"]: item for item in airflow.xcom(run, "apply")["items"]}
    assert (items[held]["outcome"], items[held]["detail"]) == (
        "skipped",
        "no longer to go: is under legal hold",
    )
    assert {row["replica_id"] for row in airflow.state()["deletes"][before:]} == planned - {held}


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


def test_the_test_button_works_for_a_connection_saved_without_a_port(airflow):
    made = {"connection_id": "no_port", "conn_type": "tavus", "host": airflow.sandbox, "password": "sandbox"}
    airflow.api("/connections", "POST", json=made)
    # What the UI of Airflow 3.3.2 sends, word for word.
    sent = {**made, "description": "", "extra": "{}", "login": "", "password": "***", "port": 0, "schema": ""}
    answer = airflow.api("/connections/test", "POST", json=sent)
    assert answer == {"status": True, "message": "Tavus accepted the API key."}


def test_a_mask_that_comes_back_from_the_form_does_not_become_the_key(airflow):
    made = {"connection_id": "masked", "conn_type": "tavus", "host": airflow.sandbox, "password": "sandbox"}
    shown = airflow.api("/connections", "POST", json=made)
    assert shown["password"] == "***"
    airflow.api("/connections/masked", "PATCH", json={**shown, "extra": '{"timeout": 20}'})
    known = {"connection_id": "masked", "conn_type": "tavus"}
    assert airflow.api("/connections/test", "POST", json=known)["message"] == "Tavus accepted the API key."
    before = len(airflow.state()["requests"])
    airflow.api("/connections", "POST", json={**made, "connection_id": "mask_only", "password": "***"})
    answer = airflow.api("/connections/test", "POST", json={**known, "connection_id": "mask_only"})
    assert answer["message"] == "The API key is missing or cannot be one: enter it in the password field."
    assert len(airflow.state()["requests"]) == before
