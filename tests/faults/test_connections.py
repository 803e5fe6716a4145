"""Faults of the network, of the connection, of listings as a whole, and of clocks."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from faults.harness import ALWAYS, ONCE, each_applied, each_times
from faults.judge import IDS, TARGET
from faults.kinds import BY_NAME
from faults.server import CLOSE, Fault, http_response

from tavus_provider.client.connection import _HTTPConnection
from tavus_provider.exceptions import TavusError, TavusInvalidResponseError
from tavus_provider.models import Replica

pytestmark = pytest.mark.cell

each_call = pytest.mark.parametrize("call", ["LIST", "GET", "DELETE"])


def send(harness, call):
    if call == "LIST":
        return harness.call(harness.hook.list_replicas)
    if call == "GET":
        return harness.call(harness.hook.get_replica, TARGET)
    return harness.call(harness.hook.delete_replica, TARGET, hard=True)


def check_result(harness, call, result, *, expected, unsent) -> None:
    """
    Check that the result is right, or an error after which nothing was deleted.

    :param expected: ``right`` or ``error``
    """
    if call == "DELETE":
        assert harness.check_delete(result, unsent=unsent) == ("deleted" if expected == "right" else "failed")
    elif expected == "right":
        assert [replica.replica_id for replica in ([result] if call == "GET" else result)] == (
            [TARGET] if call == "GET" else IDS
        )
    else:
        assert isinstance(result, TavusError)
        assert harness.tavus.count("DELETE") == 0


# F01, F02: no connection


@each_call
@each_times
@pytest.mark.parametrize("failure", ["refused", "no such host", "timeout"])
def test_request_that_was_not_sent_is_certainly_not_applied(start, monkeypatch, call, times, failure):
    harness = start(IDS, listening=failure != "refused")
    attempts = iter([None] * (1 if times is ONCE else 99))

    def failing(real, error):
        def connect(*args, **kwargs):
            for _ in attempts:
                raise error
            return real(*args, **kwargs)

        return connect

    if failure == "refused" and times is ONCE:
        sleep = harness.clock.sleep
        monkeypatch.setattr(harness.clock, "sleep", lambda *wait: harness.server.listen() or sleep(*wait))
    elif failure == "no such host":
        error = socket.gaierror(-2, "Name or service not known")
        monkeypatch.setattr(socket, "getaddrinfo", failing(socket.getaddrinfo, error))
    elif failure == "timeout":
        real = _HTTPConnection._connect
        monkeypatch.setattr(_HTTPConnection, "_connect", failing(real, TimeoutError("timed out")))
    result = send(harness, call)
    expected, unsent = ("right", 1) if times is ONCE else ("error", 3)
    check_result(harness, call, result, expected=expected, unsent=unsent)
    if times is ALWAYS:
        assert result.attempts == 3
        assert harness.tavus.log == []


# F40, F43: late responses, and connections that the server has closed


@pytest.mark.parametrize(
    "name",
    ["F39 102 only", "F39 103 only", "F39 too many 103", "F42 two responses", "F42 Content-Length too short"],
)
def test_late_response_is_not_taken_for_the_next_request(start, name):
    late = http_response(200, {"status": "deleted"})

    def reject(correct, tavus):
        # On the connection of the first delete, its late response would arrive first.
        return (late if harness.server.connections == 1 else b"") + http_response(409, {"error": "no"})

    harness = start(
        IDS,
        Fault(BY_NAME[name].respond, "DELETE", replica_id="r10", applied=True),
        Fault(reject, "DELETE", replica_id=TARGET, times=ALWAYS),
        timed=BY_NAME[name].timed,
    )
    harness.call(harness.hook.delete_replica, "r10")
    result = harness.call(harness.hook.delete_replica, TARGET)
    assert result.outcome == "failed"
    assert TARGET in harness.tavus.existing
    assert harness.tavus.count("DELETE") == 2


def test_connection_closed_while_idle_costs_no_delete(start):
    closed = threading.Event()

    def close_later(correct, tavus):
        try:
            yield correct
            yield CLOSE
        finally:
            closed.set()

    harness = start(IDS, Fault(close_later, "GET"))
    assert isinstance(harness.call(harness.hook.get_replica, TARGET), Replica)
    assert closed.wait(30)
    assert harness.check_delete(harness.call(harness.hook.delete_replica, TARGET)) == "deleted"
    assert harness.tavus.count("DELETE") == 1


@each_times
@each_applied
@pytest.mark.parametrize("name", ["F03 F04 connection closed", "F05 F07 connection reset"])
def test_connection_closed_during_a_delete_costs_one_delete_per_attempt(start, times, applied, name):
    harness = start(IDS, Fault(BY_NAME[name].respond, "DELETE", applied=applied, times=times))
    harness.call(harness.hook.get_replica, TARGET)
    assert harness.server.connections == 1
    outcome = "confirmed" if applied else "deleted" if times is ONCE else "unknown"
    assert harness.check_delete(harness.call(harness.hook.delete_replica, TARGET)) == outcome


# F44, F45: listings that change while they are read, and wrong counts


@each_times
@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize("change", ["created first", "created last", "deleted first", "deleted last"])
def test_listing_that_changes_has_all_rows_that_stay(start, times, first, change):
    states = [IDS]

    def change_replicas(correct, tavus):
        what, where = change.split()
        if what == "created":
            tavus.existing.insert(0 if where == "first" else 99, f"new{len(states)}")
        elif tavus.existing:
            tavus.existing.pop(0 if where == "first" else -1)
        states.append(list(tavus.existing))
        return correct

    harness = start(IDS, Fault(change_replicas, "LIST", first=first, times=times))
    result = harness.call(harness.hook.list_replicas)
    assert set.intersection(*map(set, states)) <= {replica.replica_id for replica in result}
    assert harness.tavus.count("DELETE") == 0
    assert harness.tavus.count("LIST") < 99


def with_total_count(total):
    return lambda correct, tavus: http_response(
        200, {**json.loads(correct.partition(b"\r\n\r\n")[2]), "total_count": total}
    )


def always_first_page(correct, tavus):
    return http_response(200, {"data": [{"replica_id": one} for one in IDS[:5]], "total_count": len(IDS)})


@pytest.mark.parametrize("first", [1, 2, 4])
@each_times
@pytest.mark.parametrize(
    "respond",
    [
        *(
            pytest.param(with_total_count(total), id=repr(total))
            for total in (17, 10**9, 6, 1, 0, -1, "16", "16.0", True, None, 16.0)
        ),
        pytest.param(always_first_page, id="same page"),
    ],
)
def test_listing_with_a_wrong_count_is_complete_or_an_error(start, respond, times, first):
    harness = start(IDS, Fault(respond, "LIST", first=first, times=times))
    result = harness.call(harness.hook.list_replicas)
    if isinstance(result, TavusError):
        assert result.outcome == "not_attempted"
    else:
        assert [replica.replica_id for replica in result] == IDS
    assert harness.tavus.count("LIST") < 150


@pytest.mark.parametrize("total", [17, 10**9, -1, True, None, 16.0])
def test_count_that_is_always_too_high_or_no_number_is_an_error(start, total):
    harness = start(IDS, Fault(with_total_count(total), "LIST", times=None))
    result = harness.call(harness.hook.list_replicas)
    assert isinstance(result, TavusInvalidResponseError)


# F46: certificates


@each_call
@pytest.mark.parametrize("certificate", ["self-signed", "wrong name", "expired"])
def test_server_with_an_invalid_certificate_receives_nothing(
    start, certificates, monkeypatch, call, certificate
):
    harness = start(IDS, tls=certificates.server(certificate))
    monkeypatch.setenv("AIRFLOW__TAVUS__CA_BUNDLE", certificates.trusted)
    result = send(harness, call)
    assert (type(result).__name__, result.attempts) == ("TavusRequestRejectedError", 1)
    assert "could not be verified" in str(result)
    assert harness.server.heads == harness.tavus.log == []


@each_call
def test_server_with_a_valid_certificate_is_used(start, certificates, monkeypatch, call):
    harness = start(IDS, tls=certificates.server("good"))
    monkeypatch.setenv("AIRFLOW__TAVUS__CA_BUNDLE", certificates.trusted)
    check_result(harness, call, send(harness, call), expected="right", unsent=0)


# F48: the wall clock is set during a wait


@each_call
@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_setting_the_wall_clock_changes_no_wait(start, monkeypatch, call, step):
    limited = lambda correct, tavus: http_response(429, {}, "Retry-After: 5\r\n")  # noqa: E731
    harness = start(IDS, Fault(limited, call, times=2))
    real, steps = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + step * next(steps))
    check_result(harness, call, send(harness, call), expected="right", unsent=0)
    assert len(harness.clock.waits) == 2
    assert all(5 <= wait <= 7 for wait in harness.clock.waits)
