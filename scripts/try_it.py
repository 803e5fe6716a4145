"""
Run Airflow to try this provider: `make demo`, `make plan` and `make airflow`.

All files are written below `.airflow/` in the checkout. `demo` and `airflow` use a sandbox on loopback.
`plan` reads the account of TAVUS_API_KEY at Tavus and deletes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
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
USERS = json.loads(os.environ.get("TRY_IT_USERS", '{"admin": "admin", "viewer": "viewer"}'))
"""Names of users and their roles. The password of a user is the name."""
BIN = Path(sys.executable).parent
WAY_TO_TAVUS = ("AIRFLOW__TAVUS__PROXY", "AIRFLOW__TAVUS__CA_BUNDLE")
"""The settings of the environment that `make plan` keeps."""
OPERATOR_LINE = re.compile(
    r"^\S+ \[\w+ *\] (.*?) *\[airflow\.task\.operators\.tavus_provider\.[^]]*\] loc=.*$"
)


def free_port() -> int:
    """Return an unused port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Return whether nothing listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def environment(base_url: str, key: str) -> dict[str, str]:
    """Return the environment of an Airflow whose connection tavus_default has this base URL and key."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode, each airflow command takes 5 s longer
    return inherited | {
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
    """Create an empty Airflow home with its database."""
    for entry in HOME.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    show("Creating the Airflow database (SQLite, in .airflow/) ...")
    with (HOME / "output.log").open("w") as log:
        subprocess.run([BIN / "airflow", "db", "migrate"], env=env, stdout=log, stderr=log, check=True)


def dags_test(env: Mapping[str, str], conf: Mapping[str, Any]) -> int:
    """Run tavus_prune_replicas by `airflow dags test` and print the log of its operators."""
    command = ["airflow", "dags", "test", "tavus_prune_replicas", "--conf", json.dumps(conf)]
    show(f"\n$ {' '.join(command[:4])} --conf '{command[5]}'\n")
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
        error = ""
        for line in run.stdout or ():
            log.write(line)
            if match := OPERATOR_LINE.match(line):
                show(match[1])
            elif "Exception:" in line or line.startswith("tavus_provider.exceptions."):
                error = line.strip()
        if run.wait():
            show(f"\nThe run failed: {error or 'see .airflow/output.log'}")
    return run.returncode


def demo() -> int:
    """Delete old replicas of a sandbox, first as a dry run, and print what the sandbox received."""
    with sandbox() as base_url:
        env = environment(base_url, "sandbox")
        fresh_home(env)
        before = state(base_url)
        show(f"A Tavus sandbox runs at {base_url}. Its account has {len(own_replicas(before))} replicas.")
        failed = dags_test(env, {"dry_run": True})
        show(f"\nThe sandbox received {count_deletes(state(base_url))} DELETE requests in the dry run.")
        failed = dags_test(env, {}) or failed
        after = state(base_url)
        total, remaining = len(own_replicas(before)), len(own_replicas(after))
        received = Counter(f"{request['method']} {request['status']}" for request in after["requests"])
        show(
            f"\nLog of the sandbox: {count_deletes(after)} DELETE requests were received; "
            f"{total - remaining} of {total} replicas were deleted, {remaining} remain.\n"
            "All requests by method and status: "
            + ", ".join(f"{count} x {what}" for what, count in sorted(received.items()))
        )
        show(
            "\nThe full output of Airflow is in .airflow/output.log. `make airflow` shows the same in the UI."
        )
    return failed


def plan() -> int:
    """Show what a run would delete in the account of TAVUS_API_KEY. Deletes nothing."""
    key = os.environ.get("TAVUS_API_KEY", "")
    if not key.strip():
        show("TAVUS_API_KEY is not set. Set it to the API key of the account to plan for.")
        return 2
    env = environment(os.environ.get("TAVUS_BASE_URL", "https://tavusapi.com"), key)
    env |= {name: os.environ[name] for name in WAY_TO_TAVUS if name in os.environ}
    fresh_home(env)
    return dags_test(env, {"dry_run": True})


def airflow(port: int) -> int:
    """Run `airflow standalone` on loopback until it is interrupted."""
    if not is_free(port):
        show(f"Port {port} of 127.0.0.1 is in use. Choose another one: make airflow PORT={port + 1}")
        return 2
    url = f"http://127.0.0.1:{port}"
    with sandbox() as base_url:
        env = environment(base_url, "sandbox") | {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{USERS[name]}" for name in USERS),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(HOME / "passwords.json"),
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__CORE__PARALLELISM": "8",  # the number of worker processes that it starts
            # On a busy machine, the first request of a task takes longer than the default of 5 s.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            # Another Airflow on this machine may use the default ports.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            # Otherwise the daily run would start at once, before anybody has looked.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            **json.loads(os.environ.get("TRY_IT_SETTINGS", "{}")),
        }
        fresh_home(env)
        (HOME / "passwords.json").write_text(json.dumps({name: name for name in USERS}))
        show("Starting Airflow (about 30 seconds) ...")
        with (HOME / "output.log").open("a") as log:
            # In its own session: standalone stops its components only if it alone receives SIGINT.
            process = subprocess.Popen(
                [BIN / "airflow", "standalone"], env=env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            # Tasks use the execution API, which starts with its first request.
            if wait_for_url(process, f"{url}/api/v2/monitor/health") and wait_for_url(
                process, f"{url}/execution/health"
            ):
                show(
                    f"\nAirflow runs at {url} (user admin, password admin; read-only: viewer, viewer).\n"
                    f"Its connection tavus_default uses a Tavus sandbox at {base_url}, key: sandbox.\n"
                    "Trigger tavus_prune_replicas, tavus_purge_replicas or tavus_delete_replica. Approvals "
                    "are under Required Actions.\nPress Ctrl-C to stop."
                )
            process.wait()
            show("Airflow stopped unexpectedly: see .airflow/output.log")
        except KeyboardInterrupt:
            show("\nStopping ...")
        finally:
            with contextlib.suppress(KeyboardInterrupt):  # the second Ctrl-C ends the wait
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return 0


def wait_for_url(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the URL responds; return False if the process ends before."""
    while process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=60).ok:
                return True
        time.sleep(1)
    return False


@contextlib.contextmanager
def sandbox() -> Iterator[str]:
    """Run a Tavus sandbox in its own process, as a user would, and yield its base URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "tavus_provider.sandbox", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            match = re.search(r"http://\S+", line)
            if not match:
                raise SystemExit(f"The sandbox did not start: {line.strip()}")
            yield match[0]
        finally:
            process.terminate()


def state(base_url: str) -> dict[str, Any]:
    """Return the rows and the request log of the sandbox."""
    document: dict[str, Any] = requests.get(f"{base_url}/_sandbox/state", timeout=10).json()
    return document


def own_replicas(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of the account's own replicas that are not deleted."""
    return [row for row in document["replicas"] if not row["deleted"] and row["replica_type"] != "system"]


def count_deletes(document: Mapping[str, Any]) -> int:
    """Return the number of DELETE requests that the sandbox received."""
    return sum(request["method"] == "DELETE" for request in document["requests"])


def show(text: str) -> None:
    """Print text at once, also into a pipe."""
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["demo", "plan", "airflow"])
    parser.add_argument("--port", type=int, default=8080, help="port of the Airflow UI")
    chosen = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # shells start background jobs with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    HOME.mkdir(exist_ok=True)
    lock = os.open(HOME, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        show(f"`make demo`, `make plan` or `make airflow` is running already and uses {HOME}. Stop it first.")
        return 2
    try:
        if chosen.what == "airflow":
            return airflow(chosen.port)
        return {"demo": demo, "plan": plan}[chosen.what]()
    except KeyboardInterrupt:
        show("\nStopped.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
