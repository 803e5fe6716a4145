"""A running Airflow, as ``make airflow`` starts it, and a client of its REST API for each of its users."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, TypeVar

import requests

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 420
"""Seconds after which a wait fails. No test depends on how long something took."""

USERS = {"admin": "admin", "op": "op", "user": "user", "viewer": "viewer"}
"""The users and their roles: one of each role of the SimpleAuthManager."""


class Airflow:
    """
    A running Airflow with a Tavus sandbox, and a client of its REST API.

    A run is named by its path in the API: ``/dags/DAG_ID/dagRuns/RUN_ID``.

    :param home: an empty folder for its files
    :param dags: the folder of its DAGs
    :param settings: environment variables of Airflow in addition to those of ``make airflow``
    :param users: the names of the users and their roles; the password of a user is the name
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        *,
        settings: Mapping[str, str] | None = None,
        users: Mapping[str, str] = USERS,
    ) -> None:
        sys.path.insert(0, str(ROOT / "scripts"))
        import try_it

        self.home = home
        self.dags = dags
        self.url = f"http://127.0.0.1:{try_it.free_port()}"
        self._sessions: dict[str, requests.Session] = {}
        chosen = {"TRY_IT_HOME": str(home), "TRY_IT_DAGS": str(dags), "TRY_IT_USERS": json.dumps(dict(users))}
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "try_it.py", "airflow", "--port", self.url.rsplit(":", 1)[1]],
            env=os.environ | chosen | {"TRY_IT_SETTINGS": json.dumps(dict(settings or {}))},
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.printed = self._wait_until_started()
        self.sandbox = re.search(r"sandbox at (http://\S+),", self.printed)[1]

    def _wait_until_started(self) -> str:
        lines: Queue[str] = Queue()
        Thread(target=lambda: [lines.put(line) for line in self.process.stdout or ()], daemon=True).start()
        printed, deadline = "", time.monotonic() + TIMEOUT
        while "Press Ctrl-C to stop" not in printed:
            try:
                printed += lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                self.stop()
                raise RuntimeError(f"Airflow did not start: {printed}\n{self.output()}") from None
        return printed

    def output(self) -> str:
        """Return the end of what the processes of Airflow have printed."""
        return (self.home / "output.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """Stop Airflow and the sandbox."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)

    # -- the REST API

    def session(self, user: str = "admin") -> requests.Session:
        """Return a session that sends requests to the REST API as a user."""
        if user not in self._sessions:
            session = requests.Session()
            session.trust_env = False
            token = session.post(
                f"{self.url}/auth/token", json={"username": user, "password": user}, timeout=60
            ).json()["access_token"]
            session.headers["Authorization"] = f"Bearer {token}"
            self._sessions[user] = session
        return self._sessions[user]

    def request(
        self, path: str, method: str = "GET", *, user: str = "admin", **body: Any
    ) -> requests.Response:
        """Send a request to the REST API as a user, and return its response, whatever it is."""
        return self.session(user).request(method, f"{self.url}/api/v2{path}", timeout=60, **body)

    def api(self, path: str, method: str = "GET", *, user: str = "admin", **body: Any) -> Any:
        """Send a request to the REST API as a user, and return the JSON of its response."""
        response = self.request(path, method, user=user, **body)
        if not response.ok:
            raise AssertionError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json()

    def wait_for(self, condition: Callable[[], T]) -> T:
        """Wait until a condition returns something that is true, and return that."""
        deadline = time.monotonic() + TIMEOUT
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(self.output())
            time.sleep(0.5)
        return found

    # -- runs

    def trigger(self, dag_id: str, *, as_user: str = "admin", **conf: Any) -> str:
        """Trigger a DAG as a user, and return the path of the run."""
        self.wait_for(lambda: dag_id in [dag["dag_id"] for dag in self.api("/dags")["dags"]])
        run = self.api(
            f"/dags/{dag_id}/dagRuns", "POST", user=as_user, json={"logical_date": None, "conf": conf}
        )
        return f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}"

    def tasks(self, run: str) -> dict[str, str]:
        """Return the states of the tasks of a run; those of a mapped task have names such as ``apply[0]``."""
        return {
            ti["task_id"] if ti["map_index"] < 0 else f"{ti['task_id']}[{ti['map_index']}]": ti["state"]
            for ti in self.api(f"{run}/taskInstances")["task_instances"]
        }

    def finished(self, run: str) -> tuple[str, dict[str, str]]:
        """Wait until a run has ended, and return its state and those of its tasks."""
        state = self.wait_for(lambda: (s := self.api(run)["state"]) in ("success", "failed") and s)
        return state, self.tasks(run)

    def clear(self, run: str, *tasks: str, user: str = "admin") -> None:
        """Clear tasks of a run as a user, and wait until the run continues."""
        dag_id, run_id = run.split("/")[2], run.split("/")[4]
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": tasks, "only_failed": False}
        self.api(f"/dags/{dag_id}/clearTaskInstances", "POST", user=user, json=body)
        self.wait_for(lambda: self.api(run)["state"] not in ("success", "failed"))

    def log(self, run: str, task: str, *, attempt: int = 1, map_index: int = -1) -> str:
        """Return the log of an attempt of a task."""
        path = f"{run}/taskInstances/{task}/logs/{attempt}"
        lines = self.api(path, params={"map_index": map_index, "full_content": True})["content"]
        texts = []
        for line in lines:
            texts.append(line["event"])
            # of exceptions
            texts += [detail["exc_value"] for detail in line.get("error_detail") or ()]
        return "\n".join(texts)

    # -- XComs and approvals

    def xcom(self, run: str, task: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """Return the value of an XCom."""
        path = f"{run}/taskInstances/{task}/xcomEntries/{key}"
        return self.api(path, params={"map_index": map_index})["value"]

    def page(self, run: str, *, task: str = "approve", map_index: int = -1) -> dict[str, Any]:
        """Wait for the approval and return what the person is shown."""
        run_id, suffix = re.escape(run.split("/")[4]), re.escape(f"map_index={map_index},")
        ended = re.compile(rf"TaskInstance Finished: dag_id=\w+, task_id={task}, run_id={run_id}, {suffix}")

        def find_approval() -> Any:
            # In Airflow 3.3.2, an answer before the deferred attempt has ended fails the task.
            log = (self.home / "output.log").read_text(errors="replace")
            if ended.search(log):
                details: Iterable[Any] = self.api(f"{run}/hitlDetails")["hitl_details"]
                for detail in details:
                    ti = detail["task_instance"]
                    if (ti["task_id"], ti["map_index"]) == (task, map_index):
                        return detail
            return None

        return self.wait_for(find_approval)

    def answer(
        self, run: str, option: str, *, user: str = "admin", task: str = "approve", map_index: int = -1
    ) -> None:
        """Answer an approval as a user."""
        self.api(
            f"{run}/taskInstances/{task}/{map_index}/hitlDetails",
            "PATCH",
            user=user,
            json={"chosen_options": [option], "params_input": {}},
        )

    # -- the sandbox

    def state(self) -> Any:
        """Return the rows and the requests of the sandbox."""
        return requests.get(f"{self.sandbox}/_sandbox/state", timeout=10).json()

    def control_sandbox(self, action: str, rows: list[dict[str, Any]] | None = None, **body: Any) -> None:
        """Send a command to the sandbox: ``reset``, ``switches`` with a body, or ``replicas`` with rows."""
        sent = rows or body or None
        response = requests.post(f"{self.sandbox}/_sandbox/{action}", json=sent, timeout=10)
        if not response.ok:
            raise AssertionError(response.text)

    def deleted(self) -> set[str]:
        """Return the ids of the replicas that the sandbox has deleted."""
        return {row["replica_id"] for row in self.state()["deletes"]}

    def task_process(self) -> Any:
        """Return the process of the task that has a connection to the sandbox, as a ``psutil.Process``."""
        import psutil

        port = int(self.sandbox.rsplit(":", 1)[1])

        def is_connected(process: psutil.Process) -> bool:
            with contextlib.suppress(psutil.Error):
                return any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp"))
            return False

        descendants = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = (process for process in descendants if is_connected(process))
        return found
