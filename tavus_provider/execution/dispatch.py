"""Run deletes and look-ups in threads, and end in time when the task is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from tavus_provider.execution.halting import Halt, InProgress

Row = TypeVar("Row")
Result = TypeVar("Result")

CHECK_SECONDS: Final = 0.25
"""Interval at which the wait for the next delete checks whether the task was stopped."""

LEAVE_AFTER: Final = 3.75
"""
Seconds after a stop after which deletes in progress are not waited for any more. The client closes their
connections after three seconds; only a DNS look-up can take longer.
"""


def run_deletes(
    rows: Sequence[Row],
    delete: Callable[[Row], None],
    *,
    concurrency: int,
    halt: Halt,
    in_progress: InProgress,
    stop_client: Callable[[], None],
    done: Callable[[Row], None],
) -> None:
    """
    Call ``delete`` for each row in threads, and ``done`` in this thread for each row that is finished.

    After a stop (:meth:`.Halt.stop`) it returns when no delete is in progress, or after ``LEAVE_AFTER``
    seconds; ``done`` is not called any more. If this thread is interrupted by an exception, or ``done``
    raises one, everything is stopped in the same way.

    :param delete: must check ``halt`` before it sends anything
    :param stop_client: ends all waits of the client
    :raises Exception: what ``delete`` or ``done`` raised
    """
    if not rows:
        return
    completed: SimpleQueue[tuple[Row, Future[None]]] = SimpleQueue()
    pool = ThreadPoolExecutor(min(concurrency, len(rows)), thread_name_prefix="tavus")
    try:
        for row in rows:
            future = pool.submit(_run, delete, row, in_progress)
            future.add_done_callback(partial(_put, completed, row))
        remaining = len(rows)
        while remaining and not halt.is_stopped:
            try:
                row, future = completed.get(timeout=CHECK_SECONDS)
            except Empty:
                continue
            remaining -= 1
            future.result()
            done(row)
    except BaseException:
        # execution_timeout, Ctrl+C, or the ledger is unavailable. Deletes that wait to be sent, or to be sent
        # again, would be sent below.
        halt.stop()
        stop_client()
        raise
    finally:
        halt.set()
        pool.shutdown(wait=False, cancel_futures=True)
        try:
            _wait_for_all(halt, in_progress)
        except BaseException:
            halt.stop()
            stop_client()
            _wait_for_all(halt, in_progress)
            raise


def call_each(
    keys: Collection[str],
    function: Callable[[str], Result],
    *,
    concurrency: int,
    stop_client: Callable[[], None],
) -> dict[str, Result]:
    """
    Return what a function that only reads returns for each key. It is called in threads.

    :param concurrency: the maximum number of simultaneous calls
    :param stop_client: ends all waits of the client, if this thread is interrupted or the function raises
    """
    if not keys:
        return {}
    pool = ThreadPoolExecutor(min(concurrency, len(keys)), thread_name_prefix="tavus")
    try:
        return dict(zip(keys, pool.map(function, keys), strict=True))
    except BaseException:
        stop_client()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run(delete: Callable[[Row], None], row: Row, in_progress: InProgress) -> None:
    with in_progress:
        delete(row)


def _wait_for_all(halt: Halt, in_progress: InProgress) -> None:
    """Wait until no delete is in progress; after a stop, not for long."""
    # Not by the pool, which does not know a thread that it was starting when an exception was raised.
    since = time.monotonic()
    while not in_progress.wait(CHECK_SECONDS):
        if not halt.is_stopped:
            since = time.monotonic()
        elif time.monotonic() - since > LEAVE_AFTER:
            return


def _put(completed: SimpleQueue[tuple[Row, Future[None]]], row: Row, future: Future[None]) -> None:
    completed.put((row, future))
