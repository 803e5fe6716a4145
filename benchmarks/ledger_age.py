"""A ledger of many daily runs, and a storage that takes 40 ms for each call."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

RUNS = 3_650
LATENCY = 0.04


def write_daily_runs(origin: str, count: int) -> None:
    """Write what daily runs record: a schedule, a plan, and an attempt that deletes one replica each."""
    from tavus_provider.storage.ledger import Ledger, job_name

    clock = datetime.now(UTC) - timedelta(days=count + 1)
    ledger = Ledger(origin, "tavus_default", now=lambda: clock)
    with mock.patch("os.fsync"):  # nothing here has to survive a power failure
        for day in range(count):
            clock += timedelta(days=1)
            task: dict[str, Any] = {"dag_id": "bench", "run_id": f"{day}", "task_id": "plan", "map_index": -1}
            replica_id = f"old{day:05}"
            ledger.begin_attempt(
                job_name("schedule", "all"), **task, scheduled={}, due={}, cancelled=[]
            ).close()
            plan: dict[str, Any] = {"plan_digest": f"{day}", "policy": "all", "holds": [], "hard": False}
            ledger.begin_attempt(job_name("run", "bench", day), kind="planned", **task, **plan).close()
            writer = ledger.begin_attempt(
                job_name("plan", f"{day}"), **task, hard=False, intent=[replica_id], outcomes={}
            )
            writer.write("outcome", outcomes={replica_id: "deleted"})
            writer.write("verification", listed=9, still_listed=[])
            writer.close(outcomes={replica_id: "deleted"})


@contextlib.contextmanager
def slow_storage(latency: float = LATENCY) -> Iterator[list[int]]:
    """Make each call of the local storage take some time. Yields a list with the number of calls."""
    from airflow.sdk import ObjectStoragePath
    from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]  # it has none

    from tavus_provider.storage import object_storage

    calls = [0]

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            time.sleep(latency)
            return function(*arguments, **options)

        return wrapped

    with contextlib.ExitStack() as stack:
        for owner, name in (
            (object_storage, "_create_local_file"),
            (ObjectStoragePath, "read_bytes"),
            (LocalFileSystem, "ls"),
        ):
            stack.enter_context(mock.patch.object(owner, name, slow(getattr(owner, name))))
        yield calls


def set_ledger(name: str) -> None:
    """Use another ledger from now on."""
    os.environ["AIRFLOW__TAVUS__LEDGER"] = f"{os.environ['AIRFLOW_HOME']}/{name}"
