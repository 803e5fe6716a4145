"""Threads that read several pages at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class WorkerThreads:
    """
    Threads that read pages. They start when they are needed and end with :meth:`close`.

    :param count: maximum number of threads
    :param stop: is set if a signal or a timeout interrupts the caller, so that the items under way end soon
    """

    def __init__(self, count: int, *, stop: threading.Event | None = None) -> None:
        self._count = count
        self._stop = stop or threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def close(self) -> None:
        """End the threads. The object can be used again."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
        self._pool = None

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="tavus-read")
            self._process = os.getpid()
        return self._pool

    def map(
        self, function: Callable[[Argument], Result], items: Iterable[Argument]
    ) -> Generator[tuple[Argument, Result], None, None]:
        """
        Call ``function`` for each item in parallel. Yield item and result as they complete.

        Items are taken shortly before they are needed. If the generator ends early (an error, a signal, a
        caller that closes it), no further item is begun, and the items under way are waited for.

        :raises Exception: what ``function`` raised for the first item that failed
        """
        remaining = iter(items)
        running: dict[Future[Result], Argument] = {}
        completed: SimpleQueue[Future[Result]] = SimpleQueue()
        pool = self._started()
        try:
            while True:
                # Twice as many as threads, so that no thread waits for this one to submit the next item.
                for item in islice(remaining, 2 * self._count - len(running)):
                    future = pool.submit(function, item)
                    running[future] = item
                    future.add_done_callback(completed.put)
                if not running:
                    return
                future = completed.get()
                yield running.pop(future), future.result()
        except (Exception, GeneratorExit):
            raise
        except BaseException:
            self._stop.set()
            raise
        finally:
            for future in running:
                future.cancel()
            wait(running)
