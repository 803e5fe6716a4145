"""
An Airflow to try this provider in: `make demo`, `make plan` and `make airflow`.

Everything it writes is under `.airflow/` in the checkout; the Tavus of `demo` and `airflow` is a sandbox on
loopback. `plan` asks the real Tavus, with the key in TAVUS_API_KEY, and deletes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(os.environ.get("TRY_IT_HOME", ROOT / ".airflow"))
DAGS = Path(os.environ.get("TRY_IT_DAGS", ROOT / "dags"))
BIN = Path(sys.executable).parent
OPERATOR_LINE = re.compile(
    r"^\S+ \[\w+ *\] (.*?) *\[airflow\.task\.operators\.tavus_provider\.[^]]*\] loc=.*$"
)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(base_url: str, key: str) -> dict[str, str]:
    """Return the environment of an Airflow whose connection tavus_default means this Tavus."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode each airflow command takes 5 s longer
    return kept | {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__TAVUS__ALLOWED_ORIGINS": base_url,
        "AIRFLOW_CONN_TAVUS_DEFAULT": json.dumps({"conn_type": "tavus", "host": base_url, "password": key}),
        "NO_COLOR": "1",
        "no_proxy": "127.0.0.1,localhost",
    }


def fresh_home(env: Mapping[str, str]) -> None:
    """Make an empty Airflow database."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    say("Preparing Airflow's database (SQLite, in .airflow/) ...")
    with (HOME / "output.log").open("w") as log:
        subprocess.run([BIN / "airflow", "db", "migrate"], env=env, stdout=log, stderr=log, check=True)


def dags_test(env: Mapping[str, str], conf: Mapping[str, Any]) -> int:
    """Run tavus_prune_replicas once with Airflow's own command, and print what its operators log."""
    command = ["airflow", "dags", "test", "tavus_prune_replicas", "--conf", json.dumps(conf)]
    say(f"\n$ {' '.join(command[:4])} --conf '{command[5]}'\n")
    with (
        (HOME / "output.log").open("a") as log,
        subprocess.Popen(
            [BIN / command[0], *command[1:]],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        ) as run,
    ):
        last = ""
        for line in run.stdout or ():
            log.write(line)
            if match := OPERATOR_LINE.match(line):
                say(match[1])
            elif "Exception:" in line or line.startswith("tavus_provider.exceptions."):
                last = line.strip()
        if run.wait():
            say(f"\nThe run failed: {last or 'see .airflow/output.log'}")
    return run.returncode


def demo() -> int:
    """Prune a sandbox, first dry, then for real, and let the sandbox say what it saw."""
    with sandbox() as base_url:
        env = environment(base_url, "sandbox")
        fresh_home(env)
        before = state(base_url)
        say(f"A Tavus sandbox runs at {base_url} with {len(listed(before))} replicas of yours.")
        failed = dags_test(env, {"dry_run": True})
        say(f"\nThe dry run sent {deletes(state(base_url))} DELETE requests. Now for real.")
        failed = dags_test(env, {}) or failed
        after = state(base_url)
        gone = {row["replica_id"] for row in listed(before)} - {row["replica_id"] for row in listed(after)}
        seen = Counter(f"{request['method']} {request['status']}" for request in after["requests"])
        say(
            f"\nThe sandbox itself says: {deletes(after)} DELETE requests came, {len(gone)} replicas are "
            f"gone, {len(listed(after))} of {len(listed(before))} are left.\nAll it was asked: "
            + ", ".join(f"{count} x {what}" for what, count in sorted(seen.items()))
        )
        say("\nAll that Airflow said is in .airflow/output.log; `make airflow` shows this in its UI.")
    return failed


def plan() -> int:
    """Show what a run would delete in the real account, and delete nothing."""
    key = os.environ.get("TAVUS_API_KEY", "")
    if not key.strip():
        say("TAVUS_API_KEY is not set: it is the key of the account whose plan is to be shown.")
        return 2
    env = environment(os.environ.get("TAVUS_BASE_URL", "https://tavusapi.com"), key)
    fresh_home(env)
    return dags_test(env, {"dry_run": True})


def airflow(port: int) -> int:
    """Run the whole of Airflow on loopback until it is interrupted."""
    for ending in (signal.SIGINT, signal.SIGTERM):  # a shell starts its background jobs deaf to SIGINT
        signal.signal(ending, signal.default_int_handler)
    url = f"http://127.0.0.1:{port}"
    with sandbox() as base_url:
        env = environment(base_url, "sandbox") | {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(HOME / "passwords.json"),
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__CORE__PARALLELISM": "8",  # as many worker processes start with it
            # On a busy machine the first request of a task to the API server takes longer than 5 s.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            # The usual ports of these two may be those of another Airflow on this machine.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            # The daily run would come at once, before anybody has looked.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        }
        fresh_home(env)
        (HOME / "passwords.json").write_text(json.dumps({"admin": "admin", "viewer": "viewer"}))
        say("Starting Airflow, which takes about half a minute ...")
        with (HOME / "output.log").open("a") as log:
            # In a session of its own: standalone stops its parts only when SIGINT reaches it alone.
            process = subprocess.Popen(
                [BIN / "airflow", "standalone"], env=env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            # The second is what tasks talk to; it is built by its first request.
            if answers(process, f"{url}/api/v2/monitor/health") and answers(
                process, f"{url}/execution/health"
            ):
                say(
                    f"\nAirflow is at {url} (user admin, password admin; viewer, viewer may only look).\n"
                    f"Its connection tavus_default is a Tavus sandbox at {base_url}, key: sandbox.\n"
                    "Trigger tavus_prune_replicas, tavus_purge_replicas or tavus_delete_replica; approve "
                    "under Required Actions.\nCtrl-C stops it all."
                )
            process.wait()
            say("Airflow has stopped by itself: see .airflow/output.log")
        except KeyboardInterrupt:
            say("\nStopping ...")
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return 0


def answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the URL answers; say whether it does, or the process has ended."""
    while process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=60).ok:
                return True
        time.sleep(1)
    return False


@contextlib.contextmanager
def sandbox() -> Iterator[str]:
    """Run a Tavus sandbox in a process of its own, as a user would, and yield its base URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "tavus_provider.sandbox", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            said = process.stdout.readline() if process.stdout else ""
            match = re.search(r"http://\S+", said)
            if not match:
                raise SystemExit(f"The sandbox did not start: {said.strip()}")
            yield match[0]
        finally:
            process.terminate()


def state(base_url: str) -> dict[str, Any]:
    """Return what the sandbox holds and has seen."""
    answer: dict[str, Any] = requests.get(f"{base_url}/_sandbox/state", timeout=10).json()
    return answer


def listed(of: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The account's own replicas that are still there."""
    return [row for row in of["replicas"] if not row["deleted"] and row["replica_type"] != "system"]


def deletes(of: Mapping[str, Any]) -> int:
    """How many DELETE requests the sandbox has seen."""
    return sum(request["method"] == "DELETE" for request in of["requests"])


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["demo", "plan", "airflow"])
    parser.add_argument("--port", type=int, default=8080, help="port of the Airflow UI")
    chosen = parser.parse_args()
    return airflow(chosen.port) if chosen.what == "airflow" else {"demo": demo, "plan": plan}[chosen.what]()


if __name__ == "__main__":
    sys.exit(main())
