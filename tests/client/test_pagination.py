from __future__ import annotations

import contextlib
import threading
from concurrent.futures import wait

import pytest

from tavus_provider.client import pagination
from tavus_provider.client.pagination import WorkerThreads
from tavus_provider.exceptions import TavusValidationError


@pytest.fixture
def workers():
    """Return a function that makes worker threads: ``workers(count)``."""
    with contextlib.ExitStack() as stack:

        def make(count: int) -> WorkerThreads:
            return stack.enter_context(contextlib.closing(WorkerThreads(count)))

        yield make


# --- worker threads


def tavus_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("tavus")]


def test_results_come_as_they_are_ready(workers):
    second = threading.Event()

    def act(item: int) -> int:
        if item == 1:
            assert second.wait(20)
        if item == 2:
            second.set()
        return item * 10

    assert dict(workers(2).map(act, [1, 2, 3])) == {1: 10, 2: 20, 3: 30}


def test_items_are_taken_when_their_turn_is_near(workers):
    taken = []
    items = (taken.append(at) or at for at in range(1000))
    with contextlib.closing(workers(3).map(str, items)) as results:
        next(results)
    assert len(taken) == 6


@pytest.mark.parametrize("ending", ["the caller leaves", "an error"])
def test_what_ends_early_begins_nothing_more_and_waits_for_what_is_under_way(workers, monkeypatch, ending):
    began, ended, release, second = [], [], threading.Event(), threading.Event()

    def act(item: int) -> None:
        began.append(item)
        if item == 0:
            second.wait(20)
        else:
            second.set()
            release.wait(20)
        ended.append(item)
        if item == 0 and ending == "an error":
            raise TavusValidationError("no")

    def let_go(futures):
        release.set()
        return wait(futures)

    monkeypatch.setattr(pagination, "wait", let_go)
    results = workers(2).map(act, range(100))
    with pytest.raises(TavusValidationError) if ending == "an error" else contextlib.nullcontext():
        next(results)
    results.close()
    assert set(began) == set(ended)
    assert set(began) <= {0, 1, 2}


def test_the_threads_end_with_the_transport(workers):
    one = workers(2)
    assert dict(one.map(str, [1, 2])) == {1: "1", 2: "2"}
    assert tavus_threads() != []
    one.close()
    assert tavus_threads() == []
