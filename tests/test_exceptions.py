"""What the drawing in the docstring says is what the classes are."""

from __future__ import annotations

import inspect
import pickle

import pytest

from tavus_provider import exceptions
from tavus_provider.client.transport import NoResponseError, RequestNotSentError
from tavus_provider.exceptions import TavusError

REPORT_WORDS = {"deleted", "confirmed", "already_gone", "failed", "unknown", "not_attempted"}


def all_errors() -> list[type[TavusError]]:
    found, open_ = [TavusError], [TavusError]
    while open_:
        below = open_.pop().__subclasses__()
        found += below
        open_ += below
    return [known for known in found if known.__module__ == exceptions.__name__]


def drawn() -> dict[str, str]:
    """Class -> parent, as the docstring draws them."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in inspect.getdoc(exceptions).splitlines():
        name = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ").split("  ")
        words = [word for word in name if word.strip()]
        if not line.startswith("    ") or not words:
            continue
        depth = line.index(words[0].strip()[:4])
        above = [(at, known) for at, known in above if at < depth]
        parents[words[0].strip()] = above[-1][1] if above else ""
        above.append((depth, words[0].strip()))
    return parents


def test_the_tree_is_the_one_that_is_drawn():
    assert drawn() == {
        error.__name__: "" if error is TavusError else error.__base__.__name__ for error in all_errors()
    }


@pytest.mark.parametrize("error", [*all_errors(), RequestNotSentError, NoResponseError])
def test_an_error_survives_pickling_with_all_that_it_knows(error):
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
def test_every_error_has_an_outcome_in_the_words_of_a_report(name, outcome):
    assert getattr(exceptions, name).outcome == outcome
    assert outcome in REPORT_WORDS


def test_no_error_claims_that_something_was_deleted():
    assert not {error.outcome for error in all_errors()} & {"deleted", "confirmed"}


def test_what_is_certainly_not_applied_and_what_is_in_doubt_are_no_relatives():
    assert not issubclass(
        exceptions.TavusOutcomeUnknownError,
        exceptions.TavusRequestRejectedError | exceptions.TavusRetryableError,
    )
    assert issubclass(RequestNotSentError, exceptions.TavusRetryableError)
    assert issubclass(NoResponseError, exceptions.TavusOutcomeUnknownError)
