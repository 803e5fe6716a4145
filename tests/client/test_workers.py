from __future__ import annotations

import contextlib
import threading
from concurrent.futures import wait

import pytest

from tavus_provider.client import workers as workers_module
from tavus_provider.client.workers import WorkerThreads
from tavus_provider.exceptions import TavusValidationError


@pytest.fixture
def workers():
    """Return a function that makes worker threads: ``workers(count)``."""
    with contextlib.ExitStack() as stack:

        def make(count: int) -> WorkerThreads:
            return stack.enter_context(contextlib.closing(WorkerThreads(count)))

        yield make


def running_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("tavus-read")]


def test_results_are_yielded_as_they_complete(workers):
    second = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            assert second.wait(20)
        if item == 2:
            second.set()
        return item * 10

    assert dict(workers(2).map(work, [1, 2, 3])) == {1: 10, 2: 20, 3: 30}


def test_items_are_taken_shortly_before_they_are_needed(workers):
    taken = []
    items = (taken.append(number) or number for number in range(1000))
    with contextlib.closing(workers(3).map(str, items)) as results:
        next(results)
    assert len(taken) == 6


@pytest.mark.parametrize("ending", ["generator closed", "function failed"])
def test_early_end_begins_no_item_and_waits_for_the_running_ones(workers, monkeypatch, ending):
    begun, ended, release, second = [], [], threading.Event(), threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            second.wait(20)
        else:
            second.set()
            release.wait(20)
        ended.append(item)
        if item == 0 and ending == "function failed":
            raise TavusValidationError("no")

    def release_and_wait(futures):
        release.set()
        return wait(futures)

    monkeypatch.setattr(workers_module, "wait", release_and_wait)
    results = workers(2).map(work, range(100))
    with pytest.raises(TavusValidationError) if ending == "function failed" else contextlib.nullcontext():
        next(results)
    results.close()
    assert set(begun) == set(ended)
    assert set(begun) <= {0, 1, 2}


def test_close_ends_the_threads(workers):
    one = workers(2)
    assert dict(one.map(str, [1, 2])) == {1: "1", 2: "2"}
    assert running_threads() != []
    one.close()
    assert running_threads() == []
