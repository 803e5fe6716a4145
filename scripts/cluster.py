"""
Run the batched DAG on a cluster and kill one of its workers: `make test-cluster`.

CeleryExecutor, Redis, PostgreSQL and two workers run on free ports of loopback, with their files in
`.cluster/`. A sandbox has 2,000 expired replicas. One worker is killed by SIGKILL while it deletes a batch.
Afterwards the log of the sandbox, the reports and the ledger must agree. At the end, all processes are
stopped.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import requests
from try_it import BIN, ROOT, environment, free_port, sandbox, show, state

HOME = ROOT / ".cluster"
DAG = "tavus_prune_replicas_batched"
EXPIRED = 2_000
BATCH_SIZE = 100
WORKERS = ("worker-1", "worker-2")
PROGRAMS = ("initdb", "postgres", "pg_isready")
TIMEOUT = 400.0
"""Seconds after which a wait fails. No check depends on how long something took."""


class CheckFailedError(Exception):
    """A check that failed; the message says which."""


def check(condition: object, message: str) -> None:
    """Fail the test with a message unless the condition is true."""
    if not condition:
        raise CheckFailedError(message)


def wait_for(condition: Callable[[], Any], what: str, *, alive: Mapping[str, psutil.Popen]) -> Any:
    """Wait until the condition returns a true value, and return it. Fail if one of the processes ends."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        for name, process in alive.items():
            check(process.poll() is None, f"{name} ended unexpectedly: see .cluster/{name}.log")
        check(time.monotonic() < deadline, f"no {what} within {TIMEOUT:.0f} s: see the logs in .cluster/")
        time.sleep(0.5)
    return found


def programs() -> tuple[Path, Path]:
    """Return redis-server and the folder of PostgreSQL's programs; install missing ones with apt-get."""

    def found() -> tuple[str | None, Path | None]:
        on_path = shutil.which("initdb")
        folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *([Path(on_path).parent] if on_path else [])]
        complete = [folder for folder in folders if all((folder / name).exists() for name in PROGRAMS)]
        return shutil.which("redis-server"), next(iter(complete), None)

    if None in found():
        missing = [name for name, at in zip(("redis-server", "postgresql"), found(), strict=True) if not at]
        instruction = f"install {' and '.join(missing)} and try again"
        apt_get = shutil.which("apt-get") or ""
        check(apt_get, f"apt-get is not available: {instruction}")
        check(os.geteuid() == 0, f"only root can install packages: {instruction}")
        show(f"Installing {' and '.join(missing)} ...")
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        with (HOME / "apt.log").open("w") as log:
            for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
                done = subprocess.run([apt_get, *command], env=quiet, stdout=log, stderr=log, check=False)
                check(
                    done.returncode == 0, f"apt-get {command[0]} failed, see .cluster/apt.log: {instruction}"
                )
    redis, postgres = found()
    if redis is None or postgres is None:
        raise CheckFailedError("redis-server or PostgreSQL is installed but cannot be found")
    return Path(redis), postgres


@contextlib.contextmanager
def running(name: str, command: list[Any], env: Mapping[str, str], **options: Any) -> Iterator[psutil.Popen]:
    """Run a command in its own session with its output in `.cluster/`; stop it and its children at exit."""
    with (HOME / f"{name}.log").open("wb") as log:
        process = psutil.Popen(
            [str(part) for part in command],
            env=dict(env),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )
    try:
        yield process
    finally:
        family = process_tree(process)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        psutil.wait_procs(family, timeout=20)
        kill(family)


def process_tree(process: psutil.Popen) -> list[psutil.Process]:
    """Return a process and its running descendants; an empty list if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def kill(family: list[psutil.Process]) -> None:
    """Kill processes as a power loss would: stop all of them first, so that none can react."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    psutil.wait_procs(family, timeout=20)


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """Run PostgreSQL with its data in a temporary folder; yield its URL."""
    # PostgreSQL does not run as root, and its user may have no access to the checkout.
    as_user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="tavus-cluster-"))
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": folder}
            os.chown(folder, user.pw_uid, user.pw_gid)
        data, port, env = folder / "data", free_port(), {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        with (HOME / "initdb.log").open("w") as log:
            done = subprocess.run(
                [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "airflow", "-E", "UTF8"],
                env=env,
                stdout=log,
                stderr=log,
                check=False,
                **as_user,
            )
        check(done.returncode == 0, "initdb failed: see .cluster/initdb.log")
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [programs / "postgres", "-D", data, "-p", port, *options]
        with running("postgres", command, env, **as_user) as process:
            ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_for(
                lambda: subprocess.run(ready, check=False).returncode == 0,
                "PostgreSQL",
                alive={"postgres": process},
            )
            yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settings(tavus: str, database: str, redis: int, api: int) -> dict[str, str]:
    """Return the environment of all components of this Airflow."""
    url = f"http://127.0.0.1:{api}"
    return environment(tavus, "sandbox") | {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "name_of_worker.name_of_worker",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW__CORE__FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{redis}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
        # A killed worker then loses no task that it has only prefetched.
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        # The next two are minutes in production. A task sends its heartbeat every few seconds.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
        "AIRFLOW__TAVUS__LEDGER": str(HOME / "ledger"),
        # The workers are processes of one machine, so they share the folder.
        "AIRFLOW__TAVUS__LEDGER_IS_SHARED": "True",
        "PYTHONPATH": str(HOME),
    }


def prepare_home() -> None:
    """Create the folder with the DAG, with raised limits, and a module that names the workers."""
    shutil.rmtree(HOME, ignore_errors=True)
    (HOME / "dags").mkdir(parents=True)
    source = (ROOT / "dags" / f"{DAG}.py").read_text()
    limits = '"max_deletions": 10, "max_deletion_percent": 25'
    check(limits in source, f"the limits of {DAG} have changed: adapt this script")
    raised = source.replace(limits, f'"max_deletions": {EXPIRED}, "max_deletion_percent": 100')
    (HOME / "dags" / f"{DAG}.py").write_text(raised)
    (HOME / "name_of_worker.py").write_text(
        "import os\n\n\ndef name_of_worker():\n    return os.environ.get('NAME_OF_WORKER', 'none')\n"
    )


def fill(tavus: str) -> tuple[set[str], set[str]]:
    """Replace the rows of the sandbox by 2,000 expired replicas and 50 young ones; return the ids of both."""
    rows = [
        {"replica_id": f"rold{n:08}", "replica_name": f"campaign_{n}", "age": "200d"} for n in range(EXPIRED)
    ]
    young = [
        {"replica_id": f"rnew{n:08}", "replica_name": f"campaign-new_{n}", "age": "5d"} for n in range(50)
    ]
    for row in state(tavus)["replicas"]:  # the built-in rows
        requests.post(
            f"{tavus}/_sandbox/replicas",
            json={"replica_id": row["replica_id"], "deleted": "hard"},
            timeout=10,
        ).raise_for_status()
    for chunk in (young, *(rows[n : n + 500] for n in range(0, EXPIRED, 500))):
        requests.post(f"{tavus}/_sandbox/replicas", json=chunk, timeout=60).raise_for_status()
    return {row["replica_id"] for row in rows}, {row["replica_id"] for row in young}


def slow_deletes(tavus: str, *, seconds: float) -> None:
    """Delay every delete of the sandbox; 0 ends the delay."""
    faults = [{"method": "DELETE", "path": "/v2/replicas", "delay": seconds, "times": None}]
    response = requests.post(
        f"{tavus}/_sandbox/switches", json={"faults": faults if seconds else []}, timeout=10
    )
    response.raise_for_status()


class Api:
    """Airflow's REST API, for one run of the DAG."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.run = ""

    def is_up(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            # Tasks use the execution API, which starts with its first request.
            paths = ("/api/v2/monitor/health", "/execution/health")
            return all(self.session.get(self.url + path, timeout=60).ok for path in paths)
        return False

    def request(self, path: str, method: str = "GET", **options: Any) -> Any:
        response = self.session.request(method, f"{self.url}/api/v2{path}", timeout=60, **options)
        check(response.ok, f"{method} {path}: {response.status_code} {response.text[:300]}")
        return response.json()

    def login(self) -> None:
        token = self.session.get(f"{self.url}/auth/token", timeout=60).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def knows_dag(self) -> bool:
        return DAG in [dag["dag_id"] for dag in self.request("/dags")["dags"]]

    def trigger(self, **conf: Any) -> None:
        run = self.request(f"/dags/{DAG}/dagRuns", "POST", json={"logical_date": None, "conf": conf})
        self.run = f"/dags/{DAG}/dagRuns/{run['dag_run_id']}"

    def final_state(self) -> str | None:
        state: str = self.request(self.run)["state"]
        return state if state in ("success", "failed") else None

    def instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.request(f"{self.run}/taskInstances?limit=1000")["task_instances"]
        return found

    def both_workers_finished_a_batch(self) -> bool:
        finished = [i for i in self.instances() if i["task_id"] == "apply" and i["state"] == "success"]
        check(not self.final_state(), "the run ended before both workers had finished a batch")
        return {instance["hostname"] for instance in finished} == set(WORKERS)

    def tries(self, map_index: int) -> list[dict[str, Any]]:
        path = f"{self.run}/taskInstances/apply/{map_index}/tries"
        found: list[dict[str, Any]] = self.request(path)["task_instances"]
        return found

    def xcom(self, task: str, map_index: int = -1) -> Any:
        path = f"{self.run}/taskInstances/{task}/xcomEntries/return_value"
        return self.request(f"{path}?map_index={map_index}")["value"]


def find_worker_of_half_done_batch(api: Api, tavus: str) -> str | None:
    """Return the worker of a batch of which the sandbox has received some deletes and not all, or None."""
    from tavus_provider.storage.ledger import ledger_root
    from tavus_provider.storage.ledger_verify import verify

    deleted = {row["replica_id"] for row in state(tavus)["deletes"]}
    half_done = {
        attempt.begin_record["map_index"]
        for attempt in verify(ledger_root())[0]
        if not attempt.is_closed and 10 <= len(attempt.intended & deleted) <= BATCH_SIZE // 2
    }
    for instance in api.instances():
        if instance["map_index"] in half_done and instance["state"] == "running":
            return str(instance["hostname"])
    return None


def check_result(api: Api, tavus: str, expired: set[str], young: set[str], killed: str) -> None:
    """Compare the deletes that the sandbox received with the expired replicas, the reports and the ledger."""
    from tavus_provider.storage.ledger import ledger_root
    from tavus_provider.storage.ledger_verify import compare_report, verify

    document = state(tavus)
    deletes = Counter(row["replica_id"] for row in document["deletes"])
    check(not expired - deletes.keys(), f"{len(expired - deletes.keys())} expired replicas were not deleted")
    check(
        not deletes.keys() - expired,
        f"replicas that had not expired were deleted: {sorted(deletes.keys() - expired)[:5]}",
    )
    check(set(deletes.values()) == {1}, "the sandbox deleted a replica twice")
    left = {row["replica_id"] for row in document["replicas"] if not row["deleted"]}
    check(left == young, f"{len(left)} replicas remain instead of the {len(young)} young ones")
    show(f"Sandbox: {len(expired)} expired replicas were deleted, each once; {len(left)} others remain.")

    batches = [instance for instance in api.instances() if instance["task_id"] == "apply"]
    reports = [api.xcom("apply", at) for at in sorted(instance["map_index"] for instance in batches)]
    plan, summary = api.xcom("plan"), api.xcom("summary")
    items = [item for report in reports for item in report["items"]]
    planned = [row["replica_id"] for row in plan["delete"]]
    check(
        [item["replica_id"] for item in items] == planned,
        "the reports of the batches together differ from the plan",
    )
    check(summary["items"] == items, "the summary differs from the reports of the batches")
    check(
        {report["plan_digest"] for report in [*reports, summary]} == {plan["digest"]},
        "the plan digests of the reports differ",
    )
    counts = {outcome: count for outcome, count in summary["counts"].items() if count}
    check(counts.keys() <= {"deleted", "confirmed", "already_gone"}, f"the summary has the counts {counts}")
    check(sum(counts.values()) == EXPIRED, f"the summary has the counts {counts}")
    show(f"Reports: {len(reports)} batches cover the plan; the summary has the counts {counts}.")

    hosts = [
        (attempt["hostname"], attempt["state"])
        for batch in batches
        for attempt in api.tries(batch["map_index"])
    ]
    done = Counter(host for host, how in hosts if how == "success")
    retried = len(hosts) - len(batches)
    check(retried, f"no batch of {killed} was retried: it was killed too late")
    check({host for host, _ in hosts} == set(WORKERS), f"only these workers took part: {sorted(set(hosts))}")
    by = ", ".join(f"{host} {n}" for host, n in sorted(done.items()))
    show(f"Batches: {by}; {retried} retried.")

    attempts, findings = verify(ledger_root())
    # The record that was being written at the kill is incomplete, as it would be after a power loss.
    torn = [finding for finding in findings if "not written completely" in finding]
    check(len(torn) <= 2 and torn == findings, f"findings in the ledger: {findings[:3]}")
    differences = compare_report(attempts, summary)
    check(not differences, f"summary and ledger differ: {differences[:3]}")
    show(f"Ledger: {len(attempts)} attempts, in agreement with the summary.")


def run() -> None:
    HOME.mkdir(exist_ok=True)
    redis_server, postgres_programs = programs()
    prepare_home()
    with contextlib.ExitStack() as stack:
        tavus = stack.enter_context(sandbox())
        expired, young = fill(tavus)
        database = stack.enter_context(postgres(postgres_programs))
        redis, port = free_port(), free_port()
        env = settings(tavus, database, redis, port)
        os.environ.update({name: value for name, value in env.items() if name.startswith("AIRFLOW")})
        alive: dict[str, psutil.Popen] = {}

        def start(name: str, *command: Any, **variables: str) -> None:
            alive[name] = stack.enter_context(running(name, list(command), env | variables))

        start(
            *(
                "redis",
                redis_server,
                "--port",
                redis,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ),
            *("--dir", HOME),
        )
        show("Starting PostgreSQL, Redis and five Airflow processes (about 30 seconds) ...")
        with (HOME / "migrate.log").open("w") as log:
            done = subprocess.run(
                [BIN / "airflow", "db", "migrate"], env=env, stdout=log, stderr=log, check=False
            )
        check(done.returncode == 0, "airflow db migrate failed: see .cluster/migrate.log")
        for component in ("api-server", "scheduler", "dag-processor"):
            start(component, BIN / "airflow", component)
        for worker in WORKERS:
            name = ("--celery-hostname", f"{worker}@%h")
            start(
                *(worker, BIN / "airflow", "celery", "worker", *name, "--skip-serve-logs"),
                NAME_OF_WORKER=worker,
            )
        api = Api(f"http://127.0.0.1:{port}")
        wait_for(api.is_up, "API server", alive=alive)
        api.login()
        wait_for(api.knows_dag, f"DAG {DAG}", alive=alive)

        logs = [HOME / f"{worker}.log" for worker in WORKERS]
        wait_for(lambda: all(" ready." in log.read_text() for log in logs), "ready workers", alive=alive)

        # Slow enough that the run does not end before the workers are observed.
        slow_deletes(tavus, seconds=0.25)
        api.trigger(batch_size=BATCH_SIZE)
        show(f"Triggered {DAG} on {EXPIRED:,} expired replicas, in batches of {BATCH_SIZE}.")
        wait_for(api.both_workers_finished_a_batch, "finished batch of each worker", alive=alive)
        slow_deletes(tavus, seconds=1.0)
        killed = wait_for(lambda: find_worker_of_half_done_batch(api, tavus), "half-done batch", alive=alive)
        kill(process_tree(alive.pop(killed)))
        received = len(state(tavus)["deletes"])
        slow_deletes(tavus, seconds=0)
        show(f"Killed {killed} after {received} deletes, in the middle of one of its batches.")
        final = wait_for(api.final_state, "end of the run", alive=alive)
        check(final == "success", f"the run ended as {final}: see .cluster/logs")
        check_result(api, tavus, expired, young, killed)


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        run()
    except CheckFailedError as error:
        verdict = f"failed: {error}"
    except KeyboardInterrupt:
        verdict = "failed: interrupted; all processes were stopped"
    except Exception as error:  # noqa: BLE001  # the last line is the result, also after an unexpected error
        traceback.print_exc()
        verdict = f"failed: {type(error).__name__}"
    else:
        verdict = f"passed, in {time.monotonic() - began:.0f} s"
    show(verdict)
    return 0 if verdict.startswith("passed") else 1


if __name__ == "__main__":
    sys.exit(main())
