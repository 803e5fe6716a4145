"""
How fast this provider is, beside what one would otherwise write.

Prints one table. What stands together was measured side by side: in turns, in one run, on one machine;
the medians are shown, and the ratio to what the last column but one names. No test depends on it.

    make bench                               all groups, some ten minutes
    make bench BENCH="deletes --repeats 9"   one of: deletes mapped pace plan import dag
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BIN = Path(sys.executable).parent
KEY = "benchmark-key-4f1d"
AT_ONCE = 16
LATENCY = 0.05
RATE = 10
CALLERS = 32
STALE = {  # the policy of the README, with limits that let everything through
    "name": "stale",
    "expire": [
        {"rule": "failed-training", "status": ["error"], "older_than": "14d"},
        {"rule": "stale", "older_than": "180d", "unused_for": "90d"},
    ],
    "scope": {"exclude": ["vip_*"]},
    "keep": {"keep_within": "7d", "keep_last": 2, "group_by": "^(?P<group>[^_]+)_"},
    "limits": {"max_deletions": 1_000_000, "max_deletion_percent": 100},
}
ALL = {
    "name": "all",
    "expire": [{"rule": "old", "older_than": "90d"}],
    "limits": {"max_deletions": 10_000, "max_deletion_percent": 100},
}

Row = tuple[str, str, str, str, str, str]
"""What was done, by whom, what came out, the ratio, to what, and the target."""


class Server:
    """The server of ``server.py`` in a process of its own, so that it takes no time of who is measured."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / "server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()  # type: ignore[union-attr]

    def close(self) -> None:
        self._process.communicate()

    def start_anew(self, **world: Any) -> None:
        import requests

        requests.post(f"{self.url}/_bench", json=world, timeout=60).raise_for_status()

    def seen(self) -> dict[str, float]:
        import requests

        seen: dict[str, float] = requests.get(f"{self.url}/_bench", timeout=60).json()
        return seen


def connection(url: str, key: str = KEY, **extra: object) -> dict[str, str]:
    """The environment in which ``tavus_default`` means this server."""
    value = {"conn_type": "tavus", "host": url, "password": key, "extra": extra}
    return {
        "AIRFLOW__TAVUS__ALLOWED_ORIGINS": url,
        "AIRFLOW_CONN_TAVUS_DEFAULT": json.dumps(value),
        "no_proxy": "127.0.0.1,localhost",
    }


# --- deletes: who is how far above the floor ----------------------------------------------------------


def ids(count: int) -> list[str]:
    from server import replica_id

    return [replica_id(at) for at in range(count)]


class Ti:
    """What the operators need of a task instance."""

    dag_id, run_id, try_number, map_index = "bench", "one", 1, -1

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def apply_plan(url: str, count: int, hard: bool = False) -> None:
    """Plan and apply as the two tasks do; what the server saw from first to last DELETE is measured."""
    from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

    os.environ |= connection(url, concurrency=AT_ONCE)
    os.environ["AIRFLOW__TAVUS__LEDGER"] = f"{os.environ['AIRFLOW_HOME']}/{time.monotonic_ns()}"
    plan = PlanRetentionOperator(task_id="plan", policy=ALL, hard=hard).execute({"ti": Ti("plan")})  # type: ignore[typeddict-item]
    apply = ApplyRetentionOperator(task_id="apply", plan=plan, hard=hard, approved_digest=plan["digest"])
    report = apply.execute({"ti": Ti("apply")})  # type: ignore[typeddict-item]
    if report["counts"]["deleted"] != count:
        raise SystemExit(f"not all were deleted: {report['counts']}")


def requests_loop(url: str, count: int) -> None:
    import requests

    with requests.Session() as session:
        for one in ids(count):
            session.delete(f"{url}/v2/replicas/{one}", headers={"x-api-key": KEY}, timeout=30)


def requests_threads(url: str, count: int) -> None:
    import requests

    with requests.Session() as session, ThreadPoolExecutor(AT_ONCE) as pool:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))
        list(
            pool.map(
                lambda one: session.delete(
                    f"{url}/v2/replicas/{one}", headers={"x-api-key": KEY}, timeout=30
                ),
                ids(count),
            )
        )


def with_httpx(url: str, count: int) -> None:
    import httpx

    async def run() -> None:
        turns = asyncio.Semaphore(AT_ONCE)
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(limits=limits, headers={"x-api-key": KEY}, timeout=30) as client:

            async def delete(one: str) -> None:
                async with turns:
                    await client.delete(f"{url}/v2/replicas/{one}")

            await asyncio.gather(*map(delete, ids(count)))

    asyncio.run(run())


def with_aiohttp(url: str, count: int) -> None:
    import aiohttp

    async def run() -> None:
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(connector=connector, headers={"x-api-key": KEY}) as session:

            async def delete(one: str) -> None:
                async with session.delete(f"{url}/v2/replicas/{one}") as answer:
                    await answer.read()

            await asyncio.gather(*map(delete, ids(count)))

    asyncio.run(run())


def curl(url: str, count: int) -> None:
    subprocess.run(
        [
            *("xargs", f"-P{AT_ONCE}", "-I{}"),
            *("curl", "-sS", "-o", os.devnull, "-X", "DELETE", "-H", f"x-api-key: {KEY}"),
            f"{url}/v2/replicas/{{}}",
        ],
        input="\n".join(ids(count)),
        text=True,
        check=True,
    )


OTHERS: dict[str, Callable[[str, int], None]] = {
    "16 threads over requests": requests_threads,
    "aiohttp": with_aiohttp,
    "httpx": with_httpx,
    "xargs -P16 curl": curl,
    "a loop over requests": requests_loop,
}


def deletes(server: Server, repeats: int) -> Iterator[Row]:
    """Deletes at 50 ms, 16 connections."""
    for count in (200, 1000):
        ours: dict[str, Callable[[str, int], None]] = {
            "this package": apply_plan,
            "this package, hard": lambda url, count: apply_plan(url, count, hard=True),
        }
        everybody = {
            who: act
            for who, act in (ours | OTHERS).items()
            if shutil.which("curl") or who != "xargs -P16 curl"
            if count <= 200 or who != "a loop over requests"  # a minute, and five times what 200 take
        }
        took: dict[str, list[float]] = {who: [] for who in everybody}
        for _ in range(repeats):
            for who, act in everybody.items():
                slow = who in ("a loop over requests", "xargs -P16 curl")
                if slow and len(took[who]) >= (1 if count > 200 else 2):
                    continue
                server.start_anew(replicas=count, age=100, latency=LATENCY)
                act(server.url, count)
                seen = server.seen()
                if seen["deletes"] != count:
                    raise SystemExit(f"{who}: {seen}")
                took[who].append(seen["last"] - seen["first"])
        rounds = -(-count // AT_ONCE)
        for who, times in took.items():
            # A permanent delete reads the replica once more before each DELETE.
            floor = (2 * rounds - 1 if who.endswith("hard") else rounds) * LATENCY
            yield (
                f"{count} deletes at {LATENCY * 1000:.0f} ms, {AT_ONCE} at once",
                who,
                f"{statistics.median(times):.2f} s",
                f"{statistics.median(times) / floor:.2f}",
                f"the floor, {floor:.2f} s",
                "<= 1.15" if who.startswith("this") else "",
            )


def mapped(server: Server, repeats: int) -> Iterator[Row]:
    """200 of them as runs of a DAG on a running Airflow; once, for that takes minutes."""
    from mapped import runs

    yield from runs(ids(200), LATENCY, 1)


# --- pace: a server that allows so many requests a second ---------------------------------------------


def pace(server: Server, repeats: int) -> Iterator[Row]:
    """32 callers of one process, each with a hook of its own, on a server that allows 10 a second."""
    from tavus_provider.exceptions import TavusError
    from tavus_provider.hooks.tavus import TavusHook

    count = 4 * CALLERS
    ways: list[tuple[str, dict[str, object], bool]] = [
        ("requests_per_second: 10", {"requests_per_second": RATE}, False),
        ("not set, 429 with Retry-After", {}, True),
        ("not set, 429 without", {}, False),
    ]
    for number, (who, extra, retry_after) in enumerate(ways):
        # An account of its own, for the process remembers the pace of an account.
        os.environ |= connection(server.url, f"{KEY}-{number}", **extra)
        server.start_anew(replicas=count, age=100, rate=RATE, retry_after=retry_after)
        given_up: list[str] = []

        def call(share: Sequence[str], given_up: list[str] = given_up) -> None:
            with TavusHook() as hook:
                for one in share:
                    try:
                        hook.delete_replica(one)
                    except TavusError as error:
                        given_up.append(str(error))

        threads = [
            threading.Thread(target=call, args=[ids(count)[at::CALLERS]], name=f"caller-{at}")
            for at in range(CALLERS)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - started
        seen = server.seen()
        share = 100 * seen["limited"] / seen["requests"]
        ideal = count / RATE
        yield (
            f"{count} deletes, {CALLERS} callers, {RATE} a second allowed",
            who,
            f"{took:.1f} s, {share:.1f} % were 429, {len(given_up)} given up",
            f"{took / ideal:.2f}",
            f"the ideal, {ideal:.1f} s",
            "<= 1.15, < 1 %, 0" if extra else "",
        )


# --- plan: reading and deciding, and how both grow ----------------------------------------------------


def memory() -> float:
    """The most memory this process has held, in MiB; Linux alone tells it for one process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def plan_once(url: str) -> dict[str, float]:
    """Read the account and decide; in a process of its own, for a process does not give memory back."""
    from tavus_provider.execution.executor import read_account
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.retention.engine import evaluate
    from tavus_provider.retention.policy import Policy

    os.environ |= connection(url)
    policy = Policy.parse(STALE)
    with TavusHook() as hook:
        hook.client.check_access()  # opens a connection, which is not measured
        before, started = memory(), (time.perf_counter(), time.process_time())
        account = read_account(hook, policy, now=lambda: datetime.now(UTC))
        most_reading, read = memory(), (time.perf_counter(), time.process_time())
        decision = evaluate(policy, account, now=account.read_at)
        decided = (time.perf_counter(), time.process_time())
    return {
        "listed": decision.listed,
        "reading": read[0] - started[0],
        "reading_cpu": read[1] - started[1],
        "deciding": decided[0] - read[0],
        "deciding_cpu": decided[1] - read[1],
        "memory_reading": most_reading - before,
        "memory": memory() - before,
    }


def plan(server: Server, repeats: int) -> Iterator[Row]:
    """1,000, 10,000 and 100,000 replicas with three conversations each."""
    before: dict[str, float] | None = None
    for count in (1_000, 10_000, 100_000):
        server.start_anew(replicas=count, conversations=3)
        runs = []
        for _ in range(repeats if count < 100_000 else max(1, repeats // 3)):
            said = subprocess.run(
                [sys.executable, __file__, "--plan-once", server.url],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            runs.append(json.loads(said.splitlines()[-1]))
            if runs[-1]["listed"] != count:
                raise SystemExit(f"listed {runs[-1]['listed']} of {count}")
        got = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        large = count == 100_000
        for what, key, unit, target in (
            ("reading", "reading", "s", ""),
            ("reading, CPU", "reading_cpu", "s", ""),
            ("deciding", "deciding", "s", "< 2 s, linear" if large else ""),
            ("deciding, CPU", "deciding_cpu", "s", ""),
            ("most memory, reading", "memory_reading", "MB", ""),
            ("most memory, all", "memory", "MB", "< 150 MB" if large else ""),
        ):
            yield (
                f"plan {count:,} replicas, {3 * count:,} conversations",
                what,
                f"{got[key]:.2f} {unit}" if unit == "s" else f"{got[key]:.0f} {unit}",
                f"{got[key] / before[key]:.1f}" if before else "",
                f"{count // 10:,} replicas" if before else "",
                target,
            )
        before = got


# --- import: what a DAG file pays for the operators ---------------------------------------------------

IMPORT = """
import time, sys
started = time.perf_counter()
import airflow.sdk
from airflow.sdk import DAG, BaseOperator
sdk = time.perf_counter()
import {module}
print(sdk - started, time.perf_counter() - sdk)
"""


def imports(server: Server, repeats: int) -> Iterator[Row]:
    """What importing the operators costs beyond airflow.sdk, in fresh processes."""
    modules = {
        "tavus_provider.operators.tavus": "this package",
        "airflow.providers.http.operators.http": "HttpOperator",
        "airflow.providers.standard.operators.empty": "EmptyOperator",
    }
    sdk: list[float] = []
    beyond: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(repeats + 1):
        for module, times in beyond.items():
            code = IMPORT.format(module=module)
            said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            first, second = map(float, said.stdout.split()[-2:])
            sdk.append(first)
            times.append(second)
    base = statistics.median(sdk)
    for module, who in modules.items():
        # The first process of each reads its files for the first time.
        took = statistics.median(beyond[module][1:])
        yield (
            "import, beyond airflow.sdk",
            who,
            f"{took * 1000:.1f} ms",
            f"{(base + took) / base:.3f}",
            f"airflow.sdk, {base:.2f} s",
            "<= 15 ms, < HttpOperator" if who == "this package" else "",
        )


# --- dag: a whole run as one command ------------------------------------------------------------------

EMPTY_DAG = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("empty", schedule=None):
    EmptyOperator(task_id="plan") >> EmptyOperator(task_id="apply")
"""


def dag(server: Server, repeats: int) -> Iterator[Row]:
    """``airflow dags test`` of the prune DAG on a sandbox, beside a DAG of two tasks that do nothing."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import try_it

    took: dict[str, list[float]] = {"tavus_prune_replicas": [], "empty": []}
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        folders = {"tavus_prune_replicas": Path(home, "ours"), "empty": Path(home, "beside")}
        folders["tavus_prune_replicas"].mkdir()
        folders["empty"].mkdir()
        shutil.copy(ROOT / "dags" / "tavus_prune_replicas.py", folders["tavus_prune_replicas"])
        (folders["empty"] / "empty.py").write_text(EMPTY_DAG)
        for turn in range(max(3, repeats - 2)):
            for name, times in took.items():
                url = stack.enter_context(try_it.sandbox())
                env = try_it.environment(url, "sandbox") | {
                    "AIRFLOW_HOME": str(Path(home, name)),
                    "AIRFLOW__CORE__DAGS_FOLDER": str(folders[name]),
                }
                if not turn:
                    subprocess.run(
                        [BIN / "airflow", "db", "migrate"], env=env, capture_output=True, check=True
                    )
                started = time.perf_counter()
                subprocess.run(
                    [BIN / "airflow", "dags", "test", name], env=env, capture_output=True, check=True
                )
                times.append(time.perf_counter() - started)
    ours, empty = (statistics.median(times) for times in took.values())
    yield "airflow dags test", "an empty DAG", f"{empty:.1f} s", "", "", ""
    yield (
        "airflow dags test",
        "tavus_prune_replicas",
        f"{ours:.1f} s, {ours - empty:.1f} s beyond",
        f"{ours / empty:.2f}",
        f"an empty DAG, {empty:.1f} s",
        "<= 1.5 s beyond",
    )


GROUPS: dict[str, Callable[[Server, int], Iterator[Row]]] = {
    "deletes": deletes,
    "mapped": mapped,
    "pace": pace,
    "plan": plan,
    "import": imports,
    "dag": dag,
}


@contextlib.contextmanager
def an_airflow_of_its_own() -> Iterator[None]:
    """Airflow makes a home when it is imported; this one is thrown away."""
    with tempfile.TemporaryDirectory() as home:
        for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
            del os.environ[name]
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        # Whoever sets it would time the compiler.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="all of them unless named")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="how often each is measured (5)")
    parser.add_argument("--plan-once", metavar="URL", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.plan_once:
        print(json.dumps(plan_once(chosen.plan_once)))
        return 0
    with an_airflow_of_its_own():
        return table(chosen.groups or list(GROUPS), chosen.repeats)


def table(groups: Sequence[str], repeats: int) -> int:
    """Print the table row by row."""
    print("| what | who | measured | ratio | to | target |\n|---|---|---|---|---|---|", flush=True)
    server = Server()
    try:
        for name in groups:
            last = ""
            for what, *cells in GROUPS[name](server, repeats):
                print(f"| {what if what != last else ''} | {' | '.join(cells)} |", flush=True)
                last = what
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
