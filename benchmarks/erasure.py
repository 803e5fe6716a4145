"""
The erasure of one person of a large account, in its own process so that peak memory can be measured.

    python benchmarks/erasure.py URL NUMBER    erase a replica of ``server.py`` and its conversations
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from server import replica_id

LIMIT = 100
"""Most rows on a page."""


def fewest_requests(rows: int) -> int:
    """
    Return the fewest pages that show a list of this length to be complete.

    Each page overlaps with an earlier one by a row, and begins at a multiple of its limit (see
    ``client/overlapping_windows.py``). The page that reaches farthest is always the best one: a page that
    begins at an earlier row never reaches farther.
    """
    end, count = LIMIT, 1
    while end < rows:
        end = max(((end - 1) // limit + 1) * limit for limit in range(1, LIMIT + 1))
        count += 1
    return count


class NoLedger:
    """Takes the place of a ledger record, whose cost is measured elsewhere."""

    name = "none"
    last_digest = None

    def write(self, kind: str, **fields: Any) -> None: ...

    def close(self, **fields: Any) -> None: ...


def measure(url: str, work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return the result of a function, and its requests, its seconds and the growth of memory in MiB."""
    import requests
    from bench import memory

    def count() -> float:
        return float(requests.get(f"{url}/_bench", timeout=60).json()["requests"])

    before, begun, started = count(), memory(), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    return result, {"requests": count() - before, "memory": memory() - begun, "seconds": seconds}


def erase(url: str, number: int) -> dict[str, dict[str, float]]:
    """Plan the erasure of a replica, carry the plan out, and check that it is complete."""
    from tavus_provider.execution.erasure import ErasureExecutor
    from tavus_provider.execution.erasure_facts import read_erasure_facts
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.keys import Kind
    from tavus_provider.planning.erasure import ErasureOptions, make_erasure_plan
    from tavus_provider.planning.erasure_request import parse_request

    now = datetime.now(UTC)
    request = parse_request(
        request="DSR-2026-0142",
        received_on=now.date().isoformat(),
        ground="request",
        ids={Kind.REPLICA: [replica_id(number)]},
        now=now,
    )
    measured = {}
    with TavusHook() as hook:
        hook.list_videos()  # opens a connection, which is not measured
        facts, measured["plan"] = measure(
            url,
            lambda: read_erasure_facts(
                hook,
                request,
                earlier=frozenset(),
                recorded=frozenset(),
                suspects=frozenset(),
                soft_deleted={},
                concurrency=8,
            ),
        )
        plan = make_erasure_plan(
            request,
            facts,
            options=ErasureOptions(),
            held=frozenset(),
            now=now,
            tavus_conn_id="tavus_default",
            origin=hook.origin,
        )
        executor = ErasureExecutor(
            plan,
            hook,
            concurrency=8,
            now=lambda: datetime.now(UTC),
            log=lambda line: None,
            begin=lambda **fields: NoLedger(),
            held=lambda now: frozenset(),
        )
        _, measured["apply"] = measure(url, executor.run)
    report = executor.report()
    if report["counts"]["deleted"] != len(plan["delete"]) or len(plan["delete"]) != 1_001:
        raise SystemExit(f"expected 1,001 deletes: {report['counts']}")
    return measured


if __name__ == "__main__":
    print(json.dumps(erase(sys.argv[1], int(sys.argv[2]))))
