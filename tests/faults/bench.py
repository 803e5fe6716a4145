"""A cell of the fault matrix: a server that misbehaves, a hook on it, and all that the hook has shown."""

from __future__ import annotations

import base64
import pickle
import time
import traceback
from collections.abc import Callable
from urllib.parse import quote

import pytest
from faults.judge import IDS, VICTIM, harm_done, lies_about_a_delete
from faults.kinds import KEY
from faults.server import Misdeed, RawServer, Tavus

from tavus_provider.client import connection
from tavus_provider.client.api import Deletion
from tavus_provider.exceptions import TavusError
from tavus_provider.hooks.tavus import TavusHook

ONCE, ALWAYS = 1, None
TIMES = pytest.mark.parametrize("times", [ONCE, ALWAYS], ids=["once", "always"])
AFTER = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


def each(kinds):
    """One test for each of these kinds."""
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name)


FORMS = {
    KEY,
    quote(KEY, safe=""),
    base64.b64encode(KEY.encode()).decode().rstrip("="),
    base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("="),
    repr(KEY)[1:-1],
}


class Time:
    """The client's clock while it waits for an answer: it moves only with what the server does."""

    def __init__(self, tavus: Tavus) -> None:
        self.tavus = tavus
        self.begun = 0

    def monotonic(self) -> float:
        state = connection.current_request._state
        if state is None:
            self.begun += 1  # a request begins
        elif state.sent:
            self.tavus.wait_for(self.begun)  # it wants the answer: what the server will say is decided
            if self.tavus.dripping:
                self.tavus.seconds += 5  # for each drip that it takes
        return self.tavus.seconds


def locals_of(error: BaseException) -> list[str]:
    """What a reporter of errors would send home: the variables of every frame of ours."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if "tavus_provider" in frame.f_code.co_filename]
    return [repr(frame.f_locals) for frame in ours]


class Bench:
    """One server and one client after the other."""

    def __init__(self, tavus: Tavus, server: RawServer, clock) -> None:
        self.tavus = tavus
        self.server = server
        self.clock = clock
        self.hook = TavusHook()
        self.shown: list[str] = []

    def again(self, ids, *misdeeds: Misdeed, timed: bool = False) -> None:
        """Begin anew: another state, other misdeeds and a client that has spent no retry."""
        self.hook.close()
        self.tavus = Tavus(ids, *misdeeds, elsewhere=self.tavus.elsewhere)
        self.server.talk = self.tavus.talk
        connection.time = Time(self.tavus) if timed else time

    def ask(self, call: Callable[..., object], *args, **kwargs) -> object:
        """Return what a call returns, or the error it raises, which must be one of ours."""
        try:
            result = call(*args, **kwargs)
        except TavusError as error:
            result = error
        self.show(result)
        return result

    def show(self, result: object) -> None:
        """Remember all that can be seen of a result."""
        self.shown += [str(result), repr(result), repr(pickle.dumps(result))]
        if isinstance(result, BaseException):
            self.shown += [repr(result.args), repr(vars(result)), *locals_of(result)]
            for cause in (result.__cause__, result.__context__):
                assert cause is None or isinstance(cause, TavusError), "an error of a library is chained"
                self.shown += [str(cause), repr(cause), repr(vars(cause) if cause else "")]

    def judge(self, result: object, *, unsent: int = 0) -> str:
        """
        Return the outcome which a delete of ``VICTIM`` claims, if the server's log does not prove it wrong.

        :param unsent: how many of its attempts never left this machine
        """
        assert isinstance(result, Deletion | TavusError)
        wrong = lies_about_a_delete(self.tavus, result.outcome) + harm_done(self.tavus)
        assert not wrong, wrong
        seen = self.tavus.count("DELETE")
        assert seen == result.attempts - unsent, (
            f"the server saw {seen} deletes, {result.attempts} were counted"
        )
        assert set(IDS) - set(self.tavus.living) <= {VICTIM}
        return result.outcome
