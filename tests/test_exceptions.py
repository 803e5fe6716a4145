"""The exception tree is as drawn in its docstring, and each exception has the right outcome."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from tavus_provider import exceptions
from tavus_provider.client.transport import NoResponseError, RequestNotSentError
from tavus_provider.exceptions import TavusError
from tavus_provider.outcomes import GONE, Outcome


def all_errors() -> list[type[TavusError]]:
    found, todo = [TavusError], [TavusError]
    while todo:
        children = todo.pop().__subclasses__()
        found += children
        todo += children
    return [error for error in found if error.__module__ == exceptions.__name__]


def drawn_parents() -> dict[str, str]:
    """Return the parent of each class in the drawing of the docstring."""
    parents: dict[str, str] = {}
    ancestors: list[tuple[int, str]] = []
    for line in inspect.getdoc(exceptions).splitlines():
        match = re.match(r"    ([ │├└─]*)(\w+Error)\b", line)
        if match:
            depth, name = len(match[1]), match[2]
            ancestors = [(other, ancestor) for other, ancestor in ancestors if other < depth]
            parents[name] = ancestors[-1][1] if ancestors else ""
            ancestors.append((depth, name))
    return parents


def test_docstring_draws_the_exception_tree():
    assert drawn_parents() == {
        error.__name__: "" if error is TavusError else error.__base__.__name__ for error in all_errors()
    }


@pytest.mark.parametrize("error", [*all_errors(), RequestNotSentError, NoResponseError])
def test_pickling_keeps_all_attributes(error):
    before = error("DELETE /v2/replicas/r1 returned 503", status=503, attempts=3, request_id="q-1")
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is error
    assert (str(after), after.status, after.attempts, after.request_id, after.outcome) == (
        "DELETE /v2/replicas/r1 returned 503",
        503,
        3,
        "q-1",
        error.outcome,
    )


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("LedgerUnavailableError", "not_attempted"),
        ("TavusError", "not_attempted"),
        ("TavusValidationError", "not_attempted"),
        ("PlanRejectedError", "not_attempted"),
        ("ReplicaNotFoundError", "already_gone"),
        ("TavusRequestRejectedError", "failed"),
        ("TavusAuthError", "failed"),
        ("TavusRetryableError", "failed"),
        ("TavusOutcomeUnknownError", "unknown"),
        ("TavusInvalidResponseError", "not_attempted"),
    ],
)
def test_outcome_of_each_exception(name, outcome):
    assert getattr(exceptions, name).outcome == outcome
    assert isinstance(getattr(exceptions, name).outcome, Outcome)


def test_no_exception_reports_a_delete_as_done():
    assert not {error.outcome for error in all_errors()} & GONE


def test_unknown_outcome_is_not_a_kind_of_certainly_not_applied():
    assert not issubclass(
        exceptions.TavusOutcomeUnknownError,
        exceptions.TavusRequestRejectedError | exceptions.TavusRetryableError,
    )
    assert issubclass(RequestNotSentError, exceptions.TavusRetryableError)
    assert issubclass(NoResponseError, exceptions.TavusOutcomeUnknownError)
