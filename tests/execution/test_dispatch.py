"""Deletes in threads: every row is done, and a stop is not held up by a thread that hangs."""

from __future__ import annotations

import threading

import pytest

from tavus_provider.execution import dispatch
from tavus_provider.execution.dispatch import run_deletes
from tavus_provider.execution.halting import Halt, InProgress


def run(rows, delete, *, halt=None, done=lambda row: None, concurrency=2):
    """Run deletes; return the rows for which the client was stopped."""
    stopped = []
    run_deletes(
        rows,
        delete,
        concurrency=concurrency,
        halt=halt or Halt(),
        in_progress=InProgress(),
        stop_client=lambda: stopped.append(True),
        done=done,
    )
    return stopped


def test_every_row_is_deleted_and_done():
    deleted, done = [], []
    assert run(range(50), deleted.append, done=done.append) == []
    assert sorted(deleted) == sorted(done) == list(range(50))


def test_no_rows():
    assert run([], lambda row: None) == []


@pytest.mark.parametrize("where", ["delete", "done"])
def test_error_stops_everything(where):
    def fail(row):
        raise ZeroDivisionError

    halt, stopped = Halt(), []
    with pytest.raises(ZeroDivisionError):
        run_deletes(
            range(9),
            fail if where == "delete" else lambda row: None,
            concurrency=2,
            halt=halt,
            in_progress=InProgress(),
            stop_client=lambda: stopped.append(True),
            done=fail if where == "done" else lambda row: None,
        )
    assert (halt.is_stopped, stopped) == (True, [True])


def test_stop_does_not_wait_for_a_thread_that_hangs(monkeypatch):
    """A DNS look-up cannot be ended."""
    monkeypatch.setattr(dispatch, "LEAVE_AFTER", 0.1)
    halt, release, begun, ended, done = Halt(), threading.Event(), [], [], []

    def hang(row):
        if halt.is_set:
            return
        begun.append(row)
        halt.stop("stopped")
        release.wait(30)
        ended.append(row)

    run(range(9), hang, halt=halt, done=done.append, concurrency=1)
    assert (begun, ended, done) == ([0], [], [])
    release.set()


def test_halt_without_a_stop_waits_for_deletes_in_progress(monkeypatch):
    monkeypatch.setattr(dispatch, "LEAVE_AFTER", 0.0)
    halt, second, finished = Halt(), threading.Event(), []

    def delete(row):
        if row == 0:
            second.wait(60)
            halt.set("too many errors")
        elif row == 1:
            second.set()
            threading.Event().wait(0.6)  # longer than the wait of one check
        finished.append(row)

    run(range(2), delete, halt=halt)
    assert sorted(finished) == [0, 1]


def test_timeout_while_deletes_in_progress_are_waited_for_stops_the_client(monkeypatch):
    """Otherwise a delete that waits to be sent again would be sent."""
    real, calls, stopped = dispatch._wait_for_all, [], []

    def wait_for_all(halt, in_progress):
        calls.append(halt.is_stopped)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(halt, in_progress)

    monkeypatch.setattr(dispatch, "_wait_for_all", wait_for_all)
    with pytest.raises(KeyboardInterrupt):
        run_deletes(
            [1],
            lambda row: None,
            concurrency=1,
            halt=Halt(),
            in_progress=InProgress(),
            stop_client=lambda: stopped.append(True),
            done=lambda row: None,
        )
    assert (calls, stopped) == ([False, True], [True])
