"""
Compare the speed of this provider with other ways to do the same.

Prints one table. The rows of a group are measured alternately, in one run on one machine. A row shows the
median and its ratio to the value in the column "relative to". No test depends on the results.

    make bench                               all groups, about ten minutes
    make bench BENCH="deletes --repeats 9"   deletes mapped pace plan use erasure ledger import dag page
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
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
CONCURRENCY = 16
LATENCY = 0.05
RATE = 10
CALLERS = 32
STALE = {  # the policy of docs/policies.md, with limits that never apply
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
UNUSED = ALL | {"expire": [{"rule": "unused", "unused_for": "1d"}]}

Row = tuple[str, str, str, str, str, str]
"""Task, implementation, result, ratio, what the ratio is relative to, and target."""


class Server:
    """The server of ``server.py`` in its own process, so that it does not slow down the measured process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / "server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()  # type: ignore[union-attr]

    def close(self) -> None:
        self._process.communicate()

    def reset(self, **world: Any) -> None:
        """Replace the rows and settings of the server; the arguments are those of ``server.World``."""
        import requests

        requests.post(f"{self.url}/_bench", json=world, timeout=60).raise_for_status()

    def counts(self) -> dict[str, float]:
        """Return the counts of requests since the last reset, and the time of the first and last DELETE."""
        import requests

        counts: dict[str, float] = requests.get(f"{self.url}/_bench", timeout=60).json()
        return counts


def connection(url: str, key: str = KEY, **extra: object) -> dict[str, str]:
    """Return environment variables that connect ``tavus_default`` to a server."""
    value = {"conn_type": "tavus", "host": url, "password": key, "extra": extra}
    return {
        "AIRFLOW__TAVUS__ALLOWED_ORIGINS": url,
        "AIRFLOW_CONN_TAVUS_DEFAULT": json.dumps(value),
        "no_proxy": "127.0.0.1,localhost",
    }


# --- deletes: time relative to the theoretical minimum ---


def ids(count: int) -> list[str]:
    """Return the ids of the first replicas of the server."""
    from server import replica_id

    return [replica_id(number) for number in range(count)]


class Ti:
    """The part of a task instance that the operators use."""

    dag_id, run_id, try_number, map_index = "bench", "one", 1, -1

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def apply_plan(url: str, count: int, hard: bool = False, policy: dict[str, Any] = ALL) -> None:
    """Plan and apply as the two tasks do. The server measures the time from the first to the last DELETE."""
    from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

    os.environ |= connection(url, concurrency=CONCURRENCY)
    os.environ["AIRFLOW__TAVUS__LEDGER"] = f"{os.environ['AIRFLOW_HOME']}/{time.monotonic_ns()}"
    plan = PlanRetentionOperator(task_id="plan", policy=policy, hard=hard).execute({"ti": Ti("plan")})  # type: ignore[typeddict-item]
    if hard:
        _approve(plan)
    apply = ApplyRetentionOperator(task_id="apply", plan=plan, hard=hard)
    report = apply.execute({"ti": Ti("apply")})  # type: ignore[typeddict-item]
    if report["counts"]["deleted"] != count:
        raise SystemExit(f"not all replicas were deleted: {report['counts']}")


def _approve(plan: Any) -> None:
    """Record an approval as the approve task does."""
    from tavus_provider.storage.authority import APPROVE, RunAuthority, Trigger
    from tavus_provider.storage.ledger import Ledger
    from tavus_provider.storage.plan_store import from_xcom

    task = {"dag_id": "bench", "run_id": "one", "task_id": "approve", "map_index": -1, "try_number": 1}
    authority = RunAuthority(Ledger(plan["origin"], plan["tavus_conn_id"]), task=task)
    authority.record_shown(from_xcom(plan), subject="", body="")
    authority.record_answer(
        APPROVE, person={"id": "bench"}, answered_at="2026-01-01T00:00:00Z", trigger=Trigger()
    )


def requests_loop(url: str, count: int) -> None:
    """Delete one replica after the other with requests."""
    import requests

    with requests.Session() as session:
        for replica_id in ids(count):
            session.delete(f"{url}/v2/replicas/{replica_id}", headers={"x-api-key": KEY}, timeout=30)


def requests_threads(url: str, count: int) -> None:
    """Delete with 16 threads and requests."""
    import requests

    with requests.Session() as session, ThreadPoolExecutor(CONCURRENCY) as pool:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CONCURRENCY))
        list(
            pool.map(
                lambda replica_id: session.delete(
                    f"{url}/v2/replicas/{replica_id}", headers={"x-api-key": KEY}, timeout=30
                ),
                ids(count),
            )
        )


def with_httpx(url: str, count: int) -> None:
    """Delete with asyncio and httpx."""
    import httpx

    async def run() -> None:
        slots = asyncio.Semaphore(CONCURRENCY)
        limits = httpx.Limits(max_connections=CONCURRENCY)
        async with httpx.AsyncClient(limits=limits, headers={"x-api-key": KEY}, timeout=30) as client:

            async def delete(replica_id: str) -> None:
                async with slots:
                    await client.delete(f"{url}/v2/replicas/{replica_id}")

            await asyncio.gather(*map(delete, ids(count)))

    asyncio.run(run())


def with_aiohttp(url: str, count: int) -> None:
    """Delete with asyncio and aiohttp."""
    import aiohttp

    async def run() -> None:
        connector = aiohttp.TCPConnector(limit=CONCURRENCY)
        async with aiohttp.ClientSession(connector=connector, headers={"x-api-key": KEY}) as session:

            async def delete(replica_id: str) -> None:
                async with session.delete(f"{url}/v2/replicas/{replica_id}") as response:
                    await response.read()

            await asyncio.gather(*map(delete, ids(count)))

    asyncio.run(run())


def with_curl(url: str, count: int) -> None:
    """Delete with xargs and curl."""
    subprocess.run(
        [
            *("xargs", f"-P{CONCURRENCY}", "-I{}"),
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
    "xargs -P16 curl": with_curl,
    "a loop over requests": requests_loop,
}


def deletes(server: Server, repeats: int) -> Iterator[Row]:
    """Measure deletes at a latency of 50 ms, 16 at the same time."""
    for count in (200, 1000):
        ours: dict[str, Callable[[str, int], None]] = {
            "this package": apply_plan,
            "this package, hard": lambda url, count: apply_plan(url, count, hard=True),
        }
        implementations = {
            name: delete
            for name, delete in (ours | OTHERS).items()
            if shutil.which("curl") or name != "xargs -P16 curl"
            if count <= 200 or name != "a loop over requests"  # takes a minute; five times as long as for 200
        }
        seconds: dict[str, list[float]] = {name: [] for name in implementations}
        for _ in range(repeats):
            for name, delete in implementations.items():
                slow = name in ("a loop over requests", "xargs -P16 curl")
                if slow and len(seconds[name]) >= (1 if count > 200 else 2):
                    continue
                server.reset(replicas=count, age=100, latency=LATENCY)
                delete(server.url, count)
                counts = server.counts()
                if counts["deletes"] != count:
                    raise SystemExit(f"{name}: {counts}")
                seconds[name].append(counts["last"] - counts["first"])
        rounds = -(-count // CONCURRENCY)
        for name, times in seconds.items():
            # A hard delete reads the replica once more before each DELETE.
            minimum = (2 * rounds - 1 if name.endswith("hard") else rounds) * LATENCY
            yield (
                f"{count} deletes at {LATENCY * 1000:.0f} ms, {CONCURRENCY} at the same time",
                name,
                f"{statistics.median(times):.2f} s",
                f"{statistics.median(times) / minimum:.2f}",
                f"the minimum, {minimum:.2f} s",
                "<= 1.15" if name.startswith("this") else "",
            )


def mapped(server: Server, repeats: int) -> Iterator[Row]:
    """Measure 200 deletes as runs of a DAG on a running Airflow; once, because it takes minutes."""
    from mapped import runs

    yield from runs(ids(200), LATENCY, 1)


# --- pace: a server with a rate limit ---


def pace(server: Server, repeats: int) -> Iterator[Row]:
    """Measure 32 threads, each with its own hook, on a server that allows 10 requests per second."""
    from tavus_provider.exceptions import TavusError
    from tavus_provider.hooks.tavus import TavusHook

    count = 4 * CALLERS
    settings: list[tuple[str, dict[str, object], bool]] = [
        ("requests_per_second: 10", {"requests_per_second": RATE}, False),
        ("not set, 429 with Retry-After", {}, True),
        ("not set, 429 without Retry-After", {}, False),
    ]
    for number, (name, extra, retry_after) in enumerate(settings):
        # Each setting has its own key: the rate limiter is shared by all hooks of one account.
        os.environ |= connection(server.url, f"{KEY}-{number}", **extra)
        server.reset(replicas=count, age=100, rate=RATE, retry_after=retry_after)
        failed: list[str] = []

        def call(share: Sequence[str], failed: list[str] = failed) -> None:
            with TavusHook() as hook:
                for replica_id in share:
                    try:
                        hook.delete_replica(replica_id)
                    except TavusError as error:
                        failed.append(str(error))

        threads = [
            threading.Thread(target=call, args=[ids(count)[first::CALLERS]], name=f"caller-{first}")
            for first in range(CALLERS)
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - started
        counts = server.counts()
        limited = 100 * counts["limited"] / counts["requests"]
        ideal = count / RATE
        yield (
            f"{count} deletes by {CALLERS} threads, {RATE} requests per second allowed",
            name,
            f"{seconds:.1f} s, {limited:.1f} % rate limited, {len(failed)} failed",
            f"{seconds / ideal:.2f}",
            f"the ideal, {ideal:.1f} s",
            "<= 1.15, < 1 %, 0" if extra else "",
        )


# --- plan: reading the account and evaluating the policy ---


def memory() -> float:
    """Return the peak memory of this process in MiB. Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def plan_in_a_process(server: Server, *, policy: dict[str, Any] = STALE) -> dict[str, float]:
    """Return the result of :func:`plan_once` in a new process; stop if it fails."""
    output = subprocess.run(
        [sys.executable, __file__, "--plan-once", server.url, "--policy", json.dumps(policy)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def plan_once(url: str, value: object) -> dict[str, float]:
    """Read the account and evaluate the policy, in its own process so that peak memory can be measured."""
    from tavus_provider.execution.inventory import read_inventory
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.retention.engine import evaluate
    from tavus_provider.retention.policy import Policy

    os.environ |= connection(url)
    policy = Policy.parse(value)
    with TavusHook() as hook:
        hook.list_videos()  # opens a connection, which is not measured
        before, started = memory(), (time.perf_counter(), time.process_time())
        account = read_inventory(hook, policy, now=lambda: datetime.now(UTC))
        peak_reading, read = memory(), (time.perf_counter(), time.process_time())
        decision = evaluate(policy, account, now=account.read_at)
        evaluated = (time.perf_counter(), time.process_time())
    return {
        "listed": decision.listed,
        "reading": read[0] - started[0],
        "reading_cpu": read[1] - started[1],
        "evaluating": evaluated[0] - read[0],
        "evaluating_cpu": evaluated[1] - read[1],
        "memory_reading": peak_reading - before,
        "memory": memory() - before,
    }


def plan(server: Server, repeats: int) -> Iterator[Row]:
    """Measure plans for 1,000, 10,000 and 100,000 replicas with three conversations each."""
    before: dict[str, float] | None = None
    for count in (1_000, 10_000, 100_000):
        server.reset(replicas=count, conversations=3)
        runs = []
        for _ in range(repeats if count < 100_000 else max(1, repeats // 3)):
            runs.append(plan_in_a_process(server))
            if runs[-1]["listed"] != count:
                raise SystemExit(f"listed {runs[-1]['listed']} of {count}")
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        large = count == 100_000
        for quantity, key, unit, target in (
            ("reading", "reading", "s", ""),
            ("reading, CPU", "reading_cpu", "s", ""),
            ("evaluating", "evaluating", "s", "< 2 s, linear" if large else ""),
            ("evaluating, CPU", "evaluating_cpu", "s", ""),
            ("peak memory, reading", "memory_reading", "MB", ""),
            ("peak memory, all", "memory", "MB", "< 150 MB" if large else ""),
        ):
            yield (
                f"plan {count:,} replicas, {3 * count:,} conversations",
                quantity,
                f"{medians[key]:.2f} {unit}" if unit == "s" else f"{medians[key]:.0f} {unit}",
                f"{medians[key] / before[key]:.1f}" if before else "",
                f"{count // 10:,} replicas" if before else "",
                target,
            )
        before = medians


# --- use: what it costs to know which replicas are in use ---


def use(server: Server, repeats: int) -> Iterator[Row]:
    """Measure prunes, plans of a busy account, and the memory for a long history of conversations."""
    before: tuple[float, float] | None = None
    for ended in (0, 1_000, 50_000):
        seconds = []
        for _ in range(repeats):
            server.reset(replicas=10, age=100, conversations=ended // 10, latency=LATENCY)
            started = time.monotonic()
            apply_plan(server.url, 10)
            seconds.append(time.monotonic() - started)
        requests, median = server.counts()["requests"], statistics.median(seconds)
        for result, value, target, index in (
            (f"{requests:.0f} requests", requests, "1.0", 0),
            (f"{median:.2f} s", median, "", 1),
        ):
            yield (
                f"prune of 10 replicas without unused_for, {ended:,} ended conversations",
                "this package",
                result,
                f"{value / before[index]:.2f}" if before else "",
                "no ended conversations" if before else "",
                target if before else "",
            )
        before = before or (requests, median)
    for policy, name in ((ALL, "without unused_for"), (STALE, "with unused_for")):
        server.reset(replicas=200, age=100, conversations=100, latency=0.2, starts_every=2.0)
        plans = [plan_in_a_process(server, policy=policy) for _ in range(repeats)]
        reading = statistics.median(one["reading"] for one in plans)
        yield (
            "plan of 20,000 conversations, a new one every 2 s, 200 ms for a page",
            name,
            f"{len(plans)} of {repeats} plans, {reading:.1f} s",
            "",
            "",
            "all plans",
        )
    server.reset(replicas=100, age=300, conversations=200)
    full = plan_in_a_process(server)
    listed = server.counts()["requests"]
    server.reset(replicas=100, age=300, conversations=200)
    apply_plan(server.url, 100, policy=UNUSED)
    requests = server.counts()["requests"]
    yield (
        "prune with unused_for, 20,000 ended conversations",
        "this package, plan and apply",
        f"{requests:.0f} requests for 100 deletes",
        f"{(requests - 100) / listed:.2f} without the deletes",
        f"one full read, {listed:.0f} requests for {full['listed']:.0f} replicas",
        "<= 1.1",
    )
    server.reset(replicas=1_000, age=100, conversations=1_000)
    yield (
        "plan of 1,000,000 conversations",
        "peak memory, reading",
        f"{plan_in_a_process(server)['memory_reading']:.0f} MB",
        "",
        "",
        "< 64 MB",
    )


# --- erasure: one person in a large account ---


def erasure(server: Server, repeats: int) -> Iterator[Row]:
    """Measure the erasure of a replica and its 1,000 conversations among 1,000,000 conversations."""
    from erasure import fewest_requests

    server.reset(replicas=1_000, age=100, conversations=1_000)
    output = subprocess.run(
        [sys.executable, HERE / "erasure.py", server.url, str(500)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | connection(server.url),
    ).stdout
    measured: dict[str, dict[str, float]] = json.loads(output.splitlines()[-1])
    reading = fewest_requests(1_000) + fewest_requests(1_000_000) + 2  # one each for personas and videos
    rest = fewest_requests(999) + fewest_requests(999_000) + 2
    # In apply: the replica is looked at, each object is deleted, and each is asked for.
    for name, fewest in (("plan", reading), ("apply", 1 + 2 * 1_001 + rest)):
        task = f"{name}: a replica with 1,000 of 1,000,000 conversations"
        requests = measured[name]["requests"]
        yield (
            task,
            "requests",
            f"{requests:.0f}",
            f"{requests / fewest:.3f}",
            f"the fewest that show complete lists, {fewest:,}",
            "<= 1.10",
        )
        yield task, "peak memory", f"{measured[name]['memory']:.0f} MB", "", "", "< 64 MB"
        yield task, "time", f"{measured[name]['seconds']:.0f} s", "", "", ""


# --- ledger: plan and apply after ten years of daily runs ---


def ledger(server: Server, repeats: int) -> Iterator[Row]:
    """Measure plan and apply with an empty ledger and with an old one, in a slow storage."""
    from ledger_age import LATENCY, RUNS, set_ledger, slow_storage, write_daily_runs

    from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

    os.environ |= connection(server.url, concurrency=CONCURRENCY)
    announced = {"rule": "announced", "older_than": "900d", "grace": "1d"}
    policy = ALL | {"expire": [announced, {"rule": "old", "older_than": "90d"}]}
    set_ledger("old")
    started = time.perf_counter()
    write_daily_runs(server.url, RUNS)
    print(f"wrote {RUNS} runs in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    seconds: dict[tuple[str, str], list[float]] = {}
    calls: dict[tuple[str, str], int] = {}
    for turn in range(repeats):
        for age in ("empty", "old"):
            set_ledger(f"{age}-{turn}")
            if age == "old":  # links, because a ledger never changes a file
                home = os.environ["AIRFLOW_HOME"]
                subprocess.run(["cp", "-al", f"{home}/old", f"{home}/old-{turn}"], check=True)
            server.reset(replicas=10, age=300, latency=0)
            operators: dict[str, Any] = {"plan": PlanRetentionOperator(task_id="plan", policy=policy)}
            results: dict[str, Any] = {}
            for task in ("plan", "apply"):
                if task == "apply":
                    operators["apply"] = ApplyRetentionOperator(task_id="apply", plan=results["plan"])
                with slow_storage() as count:
                    started = time.perf_counter()
                    results[task] = operators[task].execute({"ti": Ti(task)})
                    seconds.setdefault((task, age), []).append(time.perf_counter() - started)
                calls[task, age] = count[0]
            if results["apply"]["counts"]["deleted"] != 10:
                raise SystemExit(f"not all replicas were deleted: {results['apply']['counts']}")
    name = f"{LATENCY * 1000:.0f} ms for each storage call"
    for task in ("plan", "apply"):
        empty, old = (statistics.median(seconds[task, age]) for age in ("empty", "old"))
        yield (
            name,
            f"{task}, empty ledger",
            f"{empty:.2f} s, {calls[task, 'empty']} calls",
            "",
            "",
            "",
        )
        yield (
            name,
            f"{task}, {RUNS:,} daily runs",
            f"{old:.2f} s, {calls[task, 'old']} calls",
            f"{old / empty:.2f}, {old - empty:+.2f} s",
            f"an empty ledger, {empty:.2f} s",
            "<= 2 s more, both together",
        )


# --- import: the import time of the operators in a DAG file ---

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
    """Measure the time to import operators in addition to airflow.sdk, in new processes."""
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
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            first, second = map(float, done.stdout.split()[-2:])
            sdk.append(first)
            times.append(second)
    base = statistics.median(sdk)
    for module, name in modules.items():
        # The first process reads the files from disk and is not counted.
        seconds = statistics.median(beyond[module][1:])
        yield (
            "import, in addition to airflow.sdk",
            name,
            f"{seconds * 1000:.1f} ms",
            f"{(base + seconds) / base:.3f}",
            f"airflow.sdk, {base:.2f} s",
            "<= 15 ms, < HttpOperator" if name == "this package" else "",
        )


# --- dag: one run of a DAG by one command ---

EMPTY_DAG = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("empty", schedule=None):
    EmptyOperator(task_id="plan") >> EmptyOperator(task_id="apply")
"""


def dag(server: Server, repeats: int) -> Iterator[Row]:
    """Measure ``airflow dags test`` of the prune DAG on a sandbox, and of a DAG with two empty tasks."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import try_it

    seconds: dict[str, list[float]] = {"tavus_prune_replicas": [], "empty": []}
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        folders = {"tavus_prune_replicas": Path(home, "ours"), "empty": Path(home, "beside")}
        folders["tavus_prune_replicas"].mkdir()
        folders["empty"].mkdir()
        shutil.copy(ROOT / "dags" / "tavus_prune_replicas.py", folders["tavus_prune_replicas"])
        (folders["empty"] / "empty.py").write_text(EMPTY_DAG)
        for turn in range(max(3, repeats - 2)):
            for name, times in seconds.items():
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
    ours, empty = (statistics.median(times) for times in seconds.values())
    yield "airflow dags test", "an empty DAG", f"{empty:.1f} s", "", "", ""
    yield (
        "airflow dags test",
        "tavus_prune_replicas",
        f"{ours:.1f} s, {ours - empty:.1f} s more",
        f"{ours / empty:.2f}",
        f"an empty DAG, {empty:.1f} s",
        "<= 1.5 s more",
    )


# --- page: the Tavus page in a browser ---


def page(server: Server, repeats: int) -> Iterator[Row]:
    """Measure the page with many runs and rows, and with few."""
    if not shutil.which("chromium") or importlib.util.find_spec("playwright") is None:
        yield "Tavus page", "this package", "not measured: `make browser` installs Chromium", "", "", ""
        return
    from page import measure

    names = {
        "first picture": ("500 runs, 20 of them with 115 batches", "one run", "<= 2 s"),
        "filter and sort": ("5,000 rows", "100 rows", "<= 100 ms"),
    }
    for what, took, base in measure(repeats):
        many, few, target = names[what]
        yield (
            f"Tavus page, {what}",
            many,
            f"{took:.0f} ms",
            f"{took / base:.2f}",
            f"{few}, {base:.0f} ms",
            target,
        )


GROUPS: dict[str, Callable[[Server, int], Iterator[Row]]] = {
    "deletes": deletes,
    "mapped": mapped,
    "pace": pace,
    "plan": plan,
    "use": use,
    "erasure": erasure,
    "ledger": ledger,
    "import": imports,
    "dag": dag,
    "page": page,
}


@contextlib.contextmanager
def temporary_airflow_home() -> Iterator[None]:
    """Set AIRFLOW_HOME to a temporary folder, because Airflow creates files there when it is imported."""
    with tempfile.TemporaryDirectory() as home:
        for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
            del os.environ[name]
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        # Without bytecode, the compiler would be measured.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="groups to run (default: all)")
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="measurements of each row (default: 5)"
    )
    parser.add_argument("--plan-once", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--policy", type=json.loads, default=STALE, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.plan_once:
        print(json.dumps(plan_once(chosen.plan_once, chosen.policy)))
        return 0
    with temporary_airflow_home():
        return table(chosen.groups or list(GROUPS), chosen.repeats)


def table(groups: Sequence[str], repeats: int) -> int:
    """Print the table, row by row."""
    print(
        "| task | implementation | result | ratio | relative to | target |\n|---|---|---|---|---|---|",
        flush=True,
    )
    server = Server()
    try:
        for name in groups:
            last = ""
            for task, *cells in GROUPS[name](server, repeats):
                print(f"| {task if task != last else ''} | {' | '.join(cells)} |", flush=True)
                last = task
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
