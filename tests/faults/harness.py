"""Run one cell of the fault matrix: a server with faults, a hook, and everything the hook has disclosed."""

from __future__ import annotations

import base64
import pickle
import time
import traceback
from collections.abc import Callable
from urllib.parse import quote

import pytest
from faults.judge import IDS, TARGET, false_delete_claims, false_end_claims, unwanted_deletes
from faults.kinds import KEY
from faults.server import FakeTavus, Fault, RawServer

from tavus_provider.client import connection
from tavus_provider.client.api import Deletion, Ending
from tavus_provider.exceptions import TavusError
from tavus_provider.hooks.tavus import TavusHook

ONCE, ALWAYS = 1, None
each_times = pytest.mark.parametrize("times", [ONCE, ALWAYS], ids=["once", "always"])
each_applied = pytest.mark.parametrize("applied", [False, True], ids=["not applied", "applied"])

KEY_ENCODINGS = {
    KEY,
    quote(KEY, safe=""),
    base64.b64encode(KEY.encode()).decode().rstrip("="),
    base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("="),
    repr(KEY)[1:-1],
}


def each_kind(kinds):
    """Parametrize a test by kinds of fault."""
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name)


class FakeTime:
    """The clock of the client while it waits for a response. It advances only by what the server does."""

    def __init__(self, tavus: FakeTavus) -> None:
        self.tavus = tavus
        self.requests = 0

    def monotonic(self) -> float:
        state = connection.current_request._state
        if state is None:
            self.requests += 1  # a request begins
        elif state.sent:
            # The client waits for the response. Let the server decide on it first.
            self.tavus.wait_for_requests(self.requests)
            if self.tavus.dripping:
                self.tavus.clock += 5  # per part that the client reads
        return self.tavus.clock


def frame_locals(error: BaseException) -> list[str]:
    """Return the local variables of the package's frames, as an error reporting service would send them."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if "tavus_provider" in frame.f_code.co_filename]
    return [repr(frame.f_locals) for frame in ours]


class Harness:
    """One server and one hook, which ``restart`` replaces."""

    def __init__(self, tavus: FakeTavus, server: RawServer, clock) -> None:
        self.tavus = tavus
        self.server = server
        self.clock = clock
        self.hook = TavusHook()
        self.disclosed: list[str] = []

    def restart(self, ids, *faults: Fault, timed: bool = False) -> None:
        """Start again with other replicas, other faults, and a hook that has used no retry."""
        self.hook.close()
        self.tavus = FakeTavus(ids, *faults, kind=self.tavus.kind, other_origin=self.tavus.other_origin)
        self.server.respond = self.tavus.respond
        connection.time = FakeTime(self.tavus) if timed else time

    def call(self, function: Callable[..., object], *args, **kwargs) -> object:
        """Call ``function`` and return its result or the ``TavusError`` that it raises."""
        try:
            result = function(*args, **kwargs)
        except TavusError as error:
            result = error
        self.record(result)
        return result

    def record(self, result: object) -> None:
        """Record everything that can be read from a result, to search it for the API key."""
        self.disclosed += [str(result), repr(result), repr(pickle.dumps(result))]
        if isinstance(result, BaseException):
            self.disclosed += [repr(result.args), repr(vars(result)), *frame_locals(result)]
            for cause in (result.__cause__, result.__context__):
                assert cause is None or isinstance(cause, TavusError), "an error of a library is chained"
                self.disclosed += [str(cause), repr(cause), repr(vars(cause) if cause else "")]

    def check_delete(self, result: object, *, unsent: int = 0) -> str:
        """
        Return the reported outcome of a delete of ``TARGET`` after comparing it with the server's log.

        :param unsent: number of attempts that did not reach the server
        """
        assert isinstance(result, Deletion | TavusError)
        wrong = false_delete_claims(self.tavus, result.outcome) + unwanted_deletes(self.tavus)
        assert not wrong, wrong
        received = self.tavus.count("DELETE")
        assert received == result.attempts - unsent, (
            f"the server received {received} deletes, but the result counts {result.attempts} attempts"
        )
        assert set(IDS) - set(self.tavus.existing) <= {TARGET}
        return result.outcome

    def check_end(self, result: object) -> str:
        """Return what is reported about the end of ``TARGET`` after comparing it with the server's log."""
        assert isinstance(result, Ending | TavusError)
        outcome = "ended" if isinstance(result, Ending) else result.outcome
        wrong = false_end_claims(self.tavus, outcome) + unwanted_deletes(self.tavus, ())
        assert not wrong, wrong
        assert self.tavus.count("END") == result.attempts
        assert self.tavus.ended <= {TARGET}
        return outcome
