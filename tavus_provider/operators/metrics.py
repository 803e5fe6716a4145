"""
Metrics of plans, deletes and erasure requests, through Airflow's own.

They are sent only if the deployment turns on metrics in section ``[metrics]``. They hold numbers and the id
of the connection, and no id or name of a replica. StatsD drops tags, so a status or an outcome is a part of
the name. A metric is never a reason for a task to fail.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tavus_provider.retention.engine import Decision

log = logging.getLogger(__name__)


@contextlib.contextmanager
def timed(action: str, *, tavus_conn_id: str) -> Iterator[None]:
    """
    Send how long the block took as ``tavus.<action>_duration``, whether it fails or not.

    :param action: ``read``, ``decide`` or ``delete``
    """
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        _send("timing", f"tavus.{action}_duration", timedelta(seconds=seconds), {"conn_id": tavus_conn_id})


def send_decision(decision: Decision, *, tavus_conn_id: str, overdue: int) -> None:
    """
    Send how many replicas have each status, and how many are undetermined or overdue.

    :param overdue: number of replicas that the plan calls overdue
    """
    from tavus_provider.retention.verdict import Status

    counts = Counter(verdict.status for verdict in decision.verdicts)
    gauges = {f"tavus.replicas.{status}": counts[status] for status in Status}
    gauges |= {"tavus.undetermined": counts[Status.UNDETERMINED], "tavus.overdue": overdue}
    for name, value in gauges.items():
        _send("gauge", name, value, {"conn_id": tavus_conn_id})


def send_outcomes(outcomes: Iterable[str], *, hard: bool, tavus_conn_id: str) -> None:
    """
    Count outcomes of deletes, by outcome and by whether the deletes are permanent.

    :param outcomes: those of this attempt only, so that a retry counts none twice
    """
    kind = "hard" if hard else "soft"
    for outcome, count in Counter(outcomes).items():
        tags = {"conn_id": tavus_conn_id, "outcome": outcome, "hard": str(hard).lower()}
        _send("incr", f"tavus.deletes.{kind}.{outcome}", count, {"conn_id": tavus_conn_id})
        _send("incr", "tavus.deletes", count, tags)


def send_requests(*, open_count: int, overdue: int, failing: int, tavus_conn_id: str) -> None:
    """
    Send how many requests for erasures are open, overdue, and need somebody now.

    :param open_count: requests without a certificate that is complete
    :param overdue: those of them whose due date is over
    :param failing: requests with any problem
    """
    gauges = {"open": open_count, "overdue": overdue, "failing": failing}
    for name, value in gauges.items():
        _send("gauge", f"tavus.erasures.{name}", value, {"conn_id": tavus_conn_id})


def _send(kind: str, name: str, value: Any, tags: dict[str, str]) -> None:
    try:
        from airflow.providers.common.compat.sdk import Stats

        getattr(Stats, kind)(name, value, tags=tags)
    except Exception as error:  # noqa: BLE001  # a client of the deployment may raise anything
        log.debug("The metric %s was not sent: %s", name, type(error).__name__)
