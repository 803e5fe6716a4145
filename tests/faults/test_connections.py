"""The rows of the matrix that are no answer: the way there, the connection itself, pages and clocks."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
import urllib3
from faults.bench import AFTER, ALWAYS, ONCE, TIMES
from faults.judge import IDS, VICTIM
from faults.kinds import BY_NAME
from faults.server import HANG_UP, Misdeed, answer

from tavus_provider.exceptions import TavusError
from tavus_provider.models import Replica

pytestmark = pytest.mark.cell

CALLS = pytest.mark.parametrize("call", ["LIST", "GET", "DELETE"])


def ask(one, call):
    if call == "LIST":
        return one.ask(one.hook.list_replicas)
    if call == "GET":
        return one.ask(one.hook.get_replica, VICTIM)
    return one.ask(one.hook.delete_replica, VICTIM, hard=True)


def judge_call(one, call, result, *, word, unsent) -> None:
    """A delete by the log; a listing or a look is right, or an error after which nothing is gone."""
    if call == "DELETE":
        assert one.judge(result, unsent=unsent) == ("deleted" if word == "right" else "failed")
    elif word == "right":
        assert [replica.replica_id for replica in ([result] if call == "GET" else result)] == (
            [VICTIM] if call == "GET" else IDS
        )
    else:
        assert isinstance(result, TavusError)
        assert one.tavus.count("DELETE") == 0


# -- F01, F02: no connection


@CALLS
@TIMES
@pytest.mark.parametrize("way", ["failed", "no such host", "timeout"])
def test_what_never_left_is_certain(bench, monkeypatch, call, times, way):
    one = bench(IDS, deaf=way == "failed")
    failures = iter([None] * (1 if times is ONCE else 99))

    def failing(real, error):
        def connect(*args, **kwargs):
            for _ in failures:
                raise error
            return real(*args, **kwargs)

        return connect

    if way == "failed" and times is ONCE:
        sleep = one.clock.sleep
        monkeypatch.setattr(one.clock, "sleep", lambda *wait: one.server.listen() or sleep(*wait))
    elif way == "no such host":
        error = socket.gaierror(-2, "Name or service not known")
        monkeypatch.setattr(socket, "getaddrinfo", failing(socket.getaddrinfo, error))
    elif way == "timeout":
        real = urllib3.util.connection.create_connection
        monkeypatch.setattr(
            urllib3.util.connection, "create_connection", failing(real, TimeoutError("timed out"))
        )
    result = ask(one, call)
    judge_call(
        one, call, result, word="right" if times is ONCE else "error", unsent=1 if times is ONCE else 3
    )
    if times is ALWAYS:
        assert result.attempts == 3
        assert one.tavus.seen == []


# -- F40, F43: whose answer it is, and connections that are not what they were


@pytest.mark.parametrize(
    "name", ["F39 102 alone", "F39 103 alone", "F42 two answers", "F42 length too short"]
)
def test_a_late_answer_to_one_is_not_that_to_the_next(bench, name):
    late = answer(200, {"status": "deleted"})

    def refuse(truth, tavus):
        # On the connection of the first delete its late answer would come first.
        return (late if one.server.connections == 1 else b"") + answer(409, {"error": "no"})

    one = bench(
        IDS,
        Misdeed(BY_NAME[name].says, "DELETE", only="r10", after=True),
        Misdeed(refuse, "DELETE", only=VICTIM, times=ALWAYS),
    )
    one.ask(one.hook.delete_replica, "r10")
    result = one.ask(one.hook.delete_replica, VICTIM)
    assert result.outcome == "failed"
    assert VICTIM in one.tavus.living
    assert one.tavus.count("DELETE") == 2


def test_a_connection_that_the_server_has_closed_meanwhile_costs_no_delete(bench):
    closed = threading.Event()

    def stale(truth, tavus):
        try:
            yield truth
            yield HANG_UP
        finally:
            closed.set()

    one = bench(IDS, Misdeed(stale, "GET"))
    assert isinstance(one.ask(one.hook.get_replica, VICTIM), Replica)
    assert closed.wait(30)
    assert one.judge(one.ask(one.hook.delete_replica, VICTIM)) == "deleted"
    assert one.tavus.count("DELETE") == 1


@TIMES
@AFTER
@pytest.mark.parametrize("name", ["F03 F04 hang-up", "F05 F07 reset"])
def test_a_connection_that_closes_under_a_delete_costs_one_delete_per_send(bench, times, after, name):
    one = bench(IDS, Misdeed(BY_NAME[name].says, "DELETE", after=after, times=times))
    one.ask(one.hook.get_replica, VICTIM)
    assert one.server.connections == 1
    outcome = "confirmed" if after else "deleted" if times is ONCE else "unknown"
    assert one.judge(one.ask(one.hook.delete_replica, VICTIM)) == outcome


# -- F44, F45: pages that shift, counts that lie


@TIMES
@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("change", ["created first", "created last", "deleted first", "deleted last"])
def test_a_listing_that_shifts_is_complete_or_an_error(bench, times, at, change):
    states = [IDS]

    def shift(truth, tavus):
        what, where = change.split()
        if what == "created":
            tavus.living.insert(0 if where == "first" else 99, f"new{len(states)}")
        elif tavus.living:
            tavus.living.pop(0 if where == "first" else -1)
        states.append(list(tavus.living))
        return truth

    one = bench(IDS, Misdeed(shift, "LIST", at=at, times=times))
    result = one.ask(one.hook.list_replicas)
    assert isinstance(result, TavusError) or [replica.replica_id for replica in result] in states
    assert one.tavus.count("DELETE") == 0
    assert one.tavus.count("LIST") < 99


def counting(total):
    return lambda truth, tavus: answer(
        200, {**json.loads(truth.partition(b"\r\n\r\n")[2]), "total_count": total}
    )


def first_page(truth, tavus):
    return answer(200, {"data": [{"replica_id": one} for one in IDS[:2]], "total_count": 7})


@pytest.mark.parametrize("at", [1, 2, 4])
@TIMES
@pytest.mark.parametrize(
    "says",
    [
        *(
            pytest.param(counting(total), id=repr(total))
            for total in (8, 10**9, 1, 0, -1, "7", True, None, 7.0)
        ),
        pytest.param(first_page, id="same page"),
    ],
)
def test_a_count_that_lies_is_found_out(bench, says, times, at):
    one = bench(IDS, Misdeed(says, "LIST", at=at, times=times))
    result = one.ask(one.hook.list_replicas)
    if isinstance(result, TavusError):
        assert result.outcome == "not_attempted"
    else:
        assert [replica.replica_id for replica in result] == IDS
        assert times is ONCE  # read again from the start
    assert one.tavus.count("LIST") < 99


# -- F46: who is it


@CALLS
@pytest.mark.parametrize("certificate", ["self-signed", "wrong name", "expired"])
def test_a_server_that_cannot_prove_who_it_is_learns_nothing(
    bench, certificates, monkeypatch, call, certificate
):
    one = bench(IDS, tls=certificates.server(certificate))
    monkeypatch.setenv("AIRFLOW__TAVUS__CA_BUNDLE", certificates.trusted)
    result = ask(one, call)
    assert (type(result).__name__, result.attempts) == ("TavusRequestRejectedError", 1)
    assert "could not be verified" in str(result)
    assert one.server.heads == one.tavus.seen == []


@CALLS
def test_a_server_that_proves_who_it_is_is_asked(bench, certificates, monkeypatch, call):
    one = bench(IDS, tls=certificates.server("good"))
    monkeypatch.setenv("AIRFLOW__TAVUS__CA_BUNDLE", certificates.trusted)
    judge_call(one, call, ask(one, call), word="right", unsent=0)


# -- F48: the wall clock is set while somebody waits


@CALLS
@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_setting_the_wall_clock_changes_no_wait(bench, monkeypatch, call, step):
    limited = lambda truth, tavus: answer(429, {}, "Retry-After: 5\r\n")  # noqa: E731
    one = bench(IDS, Misdeed(limited, call, times=2))
    real, steps = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + step * next(steps))
    judge_call(one, call, ask(one, call), word="right", unsent=0)
    assert len(one.clock.waits) == 2
    assert all(5 <= wait <= 7 for wait in one.clock.waits)
