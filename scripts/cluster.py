"""
The batched DAG on a cluster, of which one worker dies: `make test-cluster`.

CeleryExecutor, Redis, PostgreSQL and two workers, all on loopback, on free ports, in `.cluster/`. A sandbox
holds 2,000 expired replicas; one worker is killed with SIGKILL while a batch of its is being deleted.
What the sandbox, the reports and the ledger say afterwards decides. All that was started is stopped again.
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
from try_it import BIN, ROOT, environment, free_port, sandbox, say, state

HOME = ROOT / ".cluster"
DAG = "tavus_prune_replicas_batched"
EXPIRED = 2_000
BATCH_SIZE = 100
WORKERS = ("worker-1", "worker-2")
PROGRAMS = ("initdb", "postgres", "pg_isready")
PATIENCE = 400.0
"""Seconds after which a wait has failed; nothing is judged by how long it took."""


class Failed(Exception):
    """What is not as it should be, in one sentence."""


def check(holds: object, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


def until(condition: Callable[[], Any], what: str, *, alive: Mapping[str, psutil.Popen]) -> Any:
    """Wait until the condition gives something, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        for name, process in alive.items():
            check(process.poll() is None, f"{name} has ended by itself: see .cluster/{name}.log")
        check(time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}: see the logs in .cluster/")
        time.sleep(0.5)
    return found


def programs() -> tuple[Path, Path]:
    """Return redis-server and the folder of PostgreSQL's programs; install Debian's where they miss."""

    def found() -> tuple[str | None, Path | None]:
        on_path = shutil.which("initdb")
        folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *([Path(on_path).parent] if on_path else [])]
        whole = [folder for folder in folders if all((folder / name).exists() for name in PROGRAMS)]
        return shutil.which("redis-server"), next(iter(whole), None)

    if None in found():
        missing = [name for name, at in zip(("redis-server", "postgresql"), found(), strict=True) if not at]
        by_hand = f"install {' and '.join(missing)}, then try again"
        apt_get = shutil.which("apt-get") or ""
        check(apt_get, f"this is no Debian: {by_hand}")
        check(os.geteuid() == 0, f"only root can install Debian's packages: {by_hand}")
        say(f"Installing {' and '.join(missing)} ...")
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        with (HOME / "apt.log").open("w") as log:
            for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
                done = subprocess.run([apt_get, *command], env=quiet, stdout=log, stderr=log, check=False)
                check(done.returncode == 0, f"apt-get {command[0]} failed, see .cluster/apt.log: {by_hand}")
    redis, postgres = found()
    if redis is None or postgres is None:
        raise Failed("redis-server and PostgreSQL are installed and cannot be found")
    return Path(redis), postgres


@contextlib.contextmanager
def running(name: str, command: list[Any], env: Mapping[str, str], **how: Any) -> Iterator[psutil.Popen]:
    """Run a command in a session of its own, its output in `.cluster/`; stop it and its children after."""
    with (HOME / f"{name}.log").open("wb") as log:
        process = psutil.Popen(
            [str(part) for part in command],
            env=dict(env),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **how,
        )
    try:
        yield process
    finally:
        family = all_of(process)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        psutil.wait_procs(family, timeout=20)
        kill(family)


def all_of(process: psutil.Popen) -> list[psutil.Process]:
    """The process and all that it has started, as far as they are there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def kill(family: list[psutil.Process]) -> None:
    """As if the machine had lost its power: nobody of the family gets to do anything more."""
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(how)
    psutil.wait_procs(family, timeout=20)


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """Run a PostgreSQL that keeps its data in a folder which its user can reach; yield its URL."""
    # It refuses to run as root, and another user may not be let into the checkout.
    how: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="tavus-cluster-"))
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            how = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": folder}
            os.chown(folder, user.pw_uid, user.pw_gid)
        data, port, env = folder / "data", free_port(), {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        with (HOME / "initdb.log").open("w") as log:
            made = subprocess.run(
                [programs / "initdb", "-D", data, "-A", "trust", "-U", "airflow", "-E", "UTF8"],
                env=env,
                stdout=log,
                stderr=log,
                check=False,
                **how,
            )
        check(made.returncode == 0, "initdb failed: see .cluster/initdb.log")
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [programs / "postgres", "-D", data, "-p", port, *options]
        with running("postgres", command, env, **how) as process:
            ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            until(
                lambda: subprocess.run(ready, check=False).returncode == 0,
                "PostgreSQL",
                alive={"postgres": process},
            )
            yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settings(tavus: str, database: str, redis: int, api: int) -> dict[str, str]:
    """Return the environment of all parts of this Airflow."""
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
        # A worker that dies takes along no task that it has only put by.
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        # In production the next two are minutes. A task sends its heartbeat every few seconds.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
        "AIRFLOW__TAVUS__LEDGER": str(HOME / "ledger"),
        "PYTHONPATH": str(HOME),
    }


def prepare_home() -> None:
    """Make an empty folder with the DAG, its limits raised, and what tells the workers apart."""
    shutil.rmtree(HOME, ignore_errors=True)
    (HOME / "dags").mkdir(parents=True)
    written = (ROOT / "dags" / f"{DAG}.py").read_text()
    limits = '"max_deletions": 10, "max_deletion_percent": 25'
    check(limits in written, f"the limits of {DAG} are not those that are to be raised here")
    raised = written.replace(limits, f'"max_deletions": {EXPIRED}, "max_deletion_percent": 100')
    (HOME / "dags" / f"{DAG}.py").write_text(raised)
    (HOME / "name_of_worker.py").write_text(
        "import os\n\n\ndef name_of_worker():\n    return os.environ.get('NAME_OF_WORKER', 'none')\n"
    )


def fill(tavus: str) -> tuple[set[str], set[str]]:
    """Let the sandbox hold 2,000 expired replicas beside others; return the ids of both."""
    rows = [
        {"replica_id": f"rold{n:08}", "replica_name": f"campaign_{n}", "age": "200d"} for n in range(EXPIRED)
    ]
    young = [
        {"replica_id": f"rnew{n:08}", "replica_name": f"campaign-new_{n}", "age": "5d"} for n in range(50)
    ]
    for row in state(tavus)["replicas"]:  # none of the world that a sandbox begins with
        requests.post(
            f"{tavus}/_sandbox/replicas",
            json={"replica_id": row["replica_id"], "deleted": "hard"},
            timeout=10,
        ).raise_for_status()
    for some in (young, *(rows[n : n + 500] for n in range(0, EXPIRED, 500))):
        requests.post(f"{tavus}/_sandbox/replicas", json=some, timeout=60).raise_for_status()
    return {row["replica_id"] for row in rows}, {row["replica_id"] for row in young}


def slow_deletes(tavus: str, *, seconds: float) -> None:
    faults = [{"method": "DELETE", "path": "/v2/replicas", "delay": seconds, "times": None}]
    answer = requests.post(
        f"{tavus}/_sandbox/switches", json={"faults": faults if seconds else []}, timeout=10
    )
    answer.raise_for_status()


class Api:
    """Airflow's REST API about one run."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.run = ""

    def up(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            # The second is what tasks talk to; it is built by its first request.
            paths = ("/api/v2/monitor/health", "/execution/health")
            return all(self.session.get(self.url + path, timeout=60).ok for path in paths)
        return False

    def ask(self, path: str, method: str = "GET", **how: Any) -> Any:
        answer = self.session.request(method, f"{self.url}/api/v2{path}", timeout=60, **how)
        check(answer.ok, f"{method} {path} was answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()

    def login(self) -> None:
        token = self.session.get(f"{self.url}/auth/token", timeout=60).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def knows_dag(self) -> bool:
        return DAG in [dag["dag_id"] for dag in self.ask("/dags")["dags"]]

    def trigger(self, **conf: Any) -> None:
        made = self.ask(f"/dags/{DAG}/dagRuns", "POST", json={"logical_date": None, "conf": conf})
        self.run = f"/dags/{DAG}/dagRuns/{made['dag_run_id']}"

    def ended(self) -> str | None:
        now: str = self.ask(self.run)["state"]
        return now if now in ("success", "failed") else None

    def instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(f"{self.run}/taskInstances?limit=1000")["task_instances"]
        return found

    def both_have_done_some(self) -> bool:
        done = [one for one in self.instances() if one["task_id"] == "apply" and one["state"] == "success"]
        check(not self.ended(), "the run ended before both workers had done a batch")
        return {one["hostname"] for one in done} == set(WORKERS)

    def tries(self, map_index: int) -> list[dict[str, Any]]:
        path = f"{self.run}/taskInstances/apply/{map_index}/tries"
        found: list[dict[str, Any]] = self.ask(path)["task_instances"]
        return found

    def xcom(self, task: str, map_index: int = -1) -> Any:
        path = f"{self.run}/taskInstances/{task}/xcomEntries/return_value"
        return self.ask(f"{path}?map_index={map_index}")["value"]


def half_done(api: Api, tavus: str) -> str | None:
    """The worker of a batch of which some and not all deletes have reached the sandbox, if there is one."""
    from tavus_provider.storage.ledger import ledger_root
    from tavus_provider.storage.ledger_verify import verify

    gone = {row["replica_id"] for row in state(tavus)["deletes"]}
    under_way = {
        one.begin_record["map_index"]
        for one in verify(ledger_root())[0]
        if not one.closed and 10 <= len(one.intended & gone) <= BATCH_SIZE // 2
    }
    for instance in api.instances():
        if instance["map_index"] in under_way and instance["state"] == "running":
            return str(instance["hostname"])
    return None


def judge(api: Api, tavus: str, expired: set[str], young: set[str], killed: str) -> None:
    """Compare what the sandbox saw with what was to go, and with what the reports and the ledger say."""
    from tavus_provider.storage.ledger import ledger_root
    from tavus_provider.storage.ledger_verify import compare_report, verify

    seen = state(tavus)
    often = Counter(row["replica_id"] for row in seen["deletes"])
    check(not expired - often.keys(), f"{len(expired - often.keys())} expired replicas are still there")
    check(
        not often.keys() - expired, f"what was not expired was deleted: {sorted(often.keys() - expired)[:5]}"
    )
    check(set(often.values()) == {1}, "the sandbox deleted a replica twice")
    left = {row["replica_id"] for row in seen["replicas"] if not row["deleted"]}
    check(left == young, f"the account holds {len(left)} replicas, and not just the {len(young)} young ones")
    say(f"The sandbox says: {len(expired)} expired replicas are gone, each once; {len(left)} others stay.")

    batches = [instance for instance in api.instances() if instance["task_id"] == "apply"]
    reports = [api.xcom("apply", at) for at in sorted(instance["map_index"] for instance in batches)]
    plan, summary = api.xcom("plan"), api.xcom("summary")
    items = [item for report in reports for item in report["items"]]
    planned = [row["replica_id"] for row in plan["delete"]]
    check([item["replica_id"] for item in items] == planned, "the reports of the batches are not the plan")
    check(summary["items"] == items, "the summary does not tell what the batches tell")
    check({report["plan_digest"] for report in [*reports, summary]} == {plan["digest"]}, "digests differ")
    counts = {outcome: count for outcome, count in summary["counts"].items() if count}
    check(counts.keys() <= {"deleted", "confirmed", "already_gone"}, f"the summary says {counts}")
    check(sum(counts.values()) == EXPIRED, f"the summary says {counts}")
    say(f"The {len(reports)} reports are the plan; the summary says {counts}.")

    hosts = [(one["hostname"], one["state"]) for batch in batches for one in api.tries(batch["map_index"])]
    done = Counter(host for host, how in hosts if how == "success")
    again = len(hosts) - len(batches)
    check(again, f"no batch of {killed} had to be tried again: it was killed too late")
    check(
        {host for host, _ in hosts} == set(WORKERS), f"not both workers took part, but {sorted(set(hosts))}"
    )
    by = ", ".join(f"{host} {n}" for host, n in sorted(done.items()))
    say(f"Batches done: {by}; {again} had to be tried again.")

    tries, findings = verify(ledger_root())
    # The record that was being written when the power went is torn, as it would be on any disk.
    torn = [finding for finding in findings if "not written whole" in finding]
    check(len(torn) <= 2 and torn == findings, f"the ledger says: {findings[:3]}")
    differ = compare_report(tries, summary)
    check(not differ, f"summary and ledger differ: {differ[:3]}")
    say(f"The ledger holds {len(tries)} tries, and agrees with the summary.")


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

        def start(name: str, *command: Any, **more: str) -> None:
            alive[name] = stack.enter_context(running(name, list(command), env | more))

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
        say(
            "Starting PostgreSQL, Redis and an Airflow of five processes, which takes about half a minute ..."
        )
        with (HOME / "migrate.log").open("w") as log:
            made = subprocess.run(
                [BIN / "airflow", "db", "migrate"], env=env, stdout=log, stderr=log, check=False
            )
        check(made.returncode == 0, "airflow db migrate failed: see .cluster/migrate.log")
        for part in ("api-server", "scheduler", "dag-processor"):
            start(part, BIN / "airflow", part)
        for worker in WORKERS:
            name = ("--celery-hostname", f"{worker}@%h")
            start(
                *(worker, BIN / "airflow", "celery", "worker", *name, "--skip-serve-logs"),
                NAME_OF_WORKER=worker,
            )
        api = Api(f"http://127.0.0.1:{port}")
        until(api.up, "the API server", alive=alive)
        api.login()
        until(api.knows_dag, f"the DAG {DAG}", alive=alive)

        logs = [HOME / f"{worker}.log" for worker in WORKERS]
        until(lambda: all(" ready." in log.read_text() for log in logs), "the workers", alive=alive)

        # Slow enough that the workers have not done all of it before they are looked at.
        slow_deletes(tavus, seconds=0.25)
        api.trigger(batch_size=BATCH_SIZE)
        say(f"Triggered {DAG} on {EXPIRED:,} expired replicas, in batches of {BATCH_SIZE}.")
        until(api.both_have_done_some, "both workers to have done a batch", alive=alive)
        slow_deletes(tavus, seconds=1.0)
        killed = until(lambda: half_done(api, tavus), "a batch that is half done", alive=alive)
        kill(all_of(alive.pop(killed)))
        seen = len(state(tavus)["deletes"])
        slow_deletes(tavus, seconds=0)
        say(f"Killed {killed} when the sandbox had seen {seen} deletes, some of them of a batch of its own.")
        how = until(api.ended, "the end of the run", alive=alive)
        check(how == "success", f"the run ended as {how}: see .cluster/logs")
        judge(api, tavus, expired, young, killed)


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        run()
    except Failed as failure:
        verdict = f"failed: {failure}"
    except KeyboardInterrupt:
        verdict = "failed: interrupted; all that was started is stopped"
    except Exception as error:  # noqa: BLE001  # the last line says how it ended, whatever happened
        traceback.print_exc()
        verdict = f"failed: {type(error).__name__}"
    else:
        verdict = f"passed, in {time.monotonic() - began:.0f} s"
    say(verdict)
    return 0 if verdict.startswith("passed") else 1


if __name__ == "__main__":
    sys.exit(main())
