"""
The same kinds of fault for videos and conversations, which share the code of replicas.

Each fault happens once; what happens always is shown with one or two faults of each row of the matrix. All
combinations are those of replicas, in ``test_matrix``.
"""

from __future__ import annotations

import pytest
from faults.harness import ALWAYS, ONCE, each_applied, each_kind
from faults.judge import IDS, TARGET, false_list_claims
from faults.kinds import KINDS, FaultKind, samples
from faults.server import Fault
from faults.test_matrix import expected

from tavus_provider.exceptions import ItemNotFoundError, ReplicaNotFoundError
from tavus_provider.keys import Kind, item_key
from tavus_provider.models import Conversation, Video

pytestmark = pytest.mark.cell

each_item = pytest.mark.parametrize("item", [Kind.VIDEO, Kind.CONVERSATION])
each_hard = pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])

NOT_APPLIED = [kind for kind in KINDS if kind.not_applied]
APPLIED = [kind for kind in KINDS if kind.applied]


def delete(harness, item: Kind, *, hard: bool) -> object:
    return harness.call(harness.hook.delete_item, item_key(item, TARGET), hard=hard)


@each_item
@each_kind(KINDS)
def test_listing_is_complete_or_an_error(start, item, kind: FaultKind):
    harness = start(IDS, Fault(kind.respond, "LIST", first=2), kind=item, timed=kind.timed)
    list_all = harness.hook.list_videos if item is Kind.VIDEO else harness.hook.list_conversations
    result = harness.call(list_all)
    outcome = "right" if isinstance(result, list) else "error"
    if outcome == "right":
        assert false_list_claims(harness.tavus, [row.key for row in result]) == []
    else:
        assert not isinstance(result, ItemNotFoundError)
        assert result.outcome in ("not_attempted", "failed")
    assert outcome == ("right" if kind.too_large else expected(kind.listing, ONCE))
    assert harness.tavus.count("DELETE") == 0


@each_item
@each_kind(KINDS)
def test_lookup_returns_the_item_or_an_error(start, item, kind: FaultKind):
    harness = start(IDS, Fault(kind.respond, "GET"), kind=item, timed=kind.timed)
    result = harness.call(harness.hook.get_item, item_key(item, TARGET))
    if isinstance(result, Video | Conversation):
        assert (result.kind, result.key) == (item, TARGET)
        outcome = "right"
    else:
        outcome = "gone" if isinstance(result, ItemNotFoundError) else "error"
    assert outcome == expected(kind.lookup or kind.listing, ONCE)
    assert not isinstance(result, ReplicaNotFoundError)


@each_item
@each_kind(NOT_APPLIED)
@each_hard
def test_delete_that_was_not_applied(start, item, kind: FaultKind, hard):
    harness = start(IDS, Fault(kind.respond, "DELETE"), kind=item, timed=kind.timed)
    assert harness.check_delete(delete(harness, item, hard=hard)) == expected(kind.not_applied, ONCE)
    if kind.no_retry:
        assert harness.tavus.count("DELETE") == 1


@each_item
@each_kind(APPLIED)
@each_hard
def test_delete_that_was_applied(start, item, kind: FaultKind, hard):
    harness = start(IDS, Fault(kind.respond, "DELETE", applied=True), kind=item, timed=kind.timed)
    assert harness.check_delete(delete(harness, item, hard=hard)) == expected(kind.applied, ONCE)
    assert harness.tavus.count("DELETE") == 1


@each_item
@each_applied
@each_kind(samples([kind for kind in KINDS if kind.not_applied and kind.applied]))
def test_delete_that_always_fails(start, item, kind: FaultKind, applied):
    fault = Fault(kind.respond, "DELETE", applied=applied, times=ALWAYS)
    harness = start(IDS, fault, kind=item, timed=kind.timed)
    results = kind.applied if applied else kind.not_applied
    assert harness.check_delete(delete(harness, item, hard=True)) == expected(results, ALWAYS)


@each_item
@each_kind([kind for kind in KINDS if kind.lookup])
def test_delete_of_a_missing_item_is_already_gone(start, item, kind: FaultKind):
    others = [one for one in IDS if one != TARGET]
    for faults in ([], [Fault(kind.respond, "DELETE", times=ALWAYS)]):
        harness = start(others, *faults, kind=item)
        assert harness.check_delete(delete(harness, item, hard=True)) == "already_gone"


# The end of a conversation. It may be repeated, and a look-up shows whether it has ended.


def end(start, *faults: Fault, timed: bool) -> str:
    harness = start(IDS, *faults, kind=Kind.CONVERSATION, timed=timed)
    outcome = harness.check_end(harness.call(harness.hook.end_conversation, TARGET))
    assert harness.tavus.count("END") <= 3
    return outcome


def as_end(outcome: str) -> str:
    return "ended" if outcome in ("deleted", "confirmed") else outcome


@each_kind(NOT_APPLIED)
@pytest.mark.parametrize("times", [ONCE, ALWAYS], ids=["once", "always"])
def test_end_that_was_not_applied(start, kind: FaultKind, times):
    outcome = end(start, Fault(kind.respond, "END", times=times), timed=kind.timed)
    assert outcome == as_end(expected(kind.not_applied, times))


@each_kind(APPLIED)
@pytest.mark.parametrize("times", [ONCE, ALWAYS], ids=["once", "always"])
def test_end_that_was_applied(start, kind: FaultKind, times):
    assert end(start, Fault(kind.respond, "END", applied=True, times=times), timed=kind.timed) == "ended"


@each_kind(samples([kind for kind in KINDS if kind.ambiguous]))
@each_applied
def test_end_stays_unknown_if_the_lookup_fails(start, kind: FaultKind, applied):
    faults = [Fault(kind.respond, request, applied=applied, times=ALWAYS) for request in ("END", "GET")]
    assert end(start, *faults, timed=kind.timed) == "unknown"


@each_kind([kind for kind in KINDS if kind.lookup])
def test_not_found_of_a_conversation_that_can_be_read_is_a_failure(start, kind: FaultKind):
    assert end(start, Fault(kind.respond, "END"), timed=False) == "failed"
