"""
Every kind of fault, once and always, in a listing, a look-up and a delete, alone and in pairs.

What the client reports is compared with the log of the server.
"""

from __future__ import annotations

import tracemalloc

import pytest
from faults.harness import ALWAYS, ONCE, each_applied, each_kind, each_times
from faults.judge import IDS, TARGET, false_list_claims
from faults.kinds import BY_NAME, KINDS, FaultKind, rows, samples
from faults.server import Fault

from tavus_provider.exceptions import ReplicaNotFoundError
from tavus_provider.models import Replica

pytestmark = pytest.mark.cell

AMBIGUOUS = [kind for kind in KINDS if kind.ambiguous]
LOOKUP_FAULTS = [kind for kind in KINDS if kind.lookup is None and not kind.understood]


def expected(results: str, times) -> str:
    """Return the expected result for a fault that happens once or always."""
    once, always = results.split()
    return once if times == ONCE else always


# One fault


@each_kind(KINDS)
@each_times
@pytest.mark.parametrize("first", [1, 2, 4])
def test_listing_is_complete_or_an_error(start, kind: FaultKind, times, first):
    harness = start(IDS, Fault(kind.respond, "LIST", first=first, times=times), timed=kind.timed)
    result = harness.call(harness.hook.list_replicas)
    if isinstance(result, list):
        assert false_list_claims(harness.tavus, [replica.replica_id for replica in result]) == []
        outcome = "right"
    else:
        assert not isinstance(result, ReplicaNotFoundError)
        assert result.outcome in ("not_attempted", "failed")
        outcome = "error"
    assert outcome == ("right" if kind.too_large and times == ONCE else expected(kind.listing, times))
    assert harness.tavus.count("DELETE") == 0
    if outcome == "right":
        assert sum(harness.clock.waits) >= kind.min_wait
    if kind.no_retry and not kind.too_large:
        # The first page is read alone. Later, one more page may be requested while one fails.
        assert first <= harness.tavus.count("LIST") <= first + (first > 1)


@each_kind(KINDS)
@each_times
def test_lookup_returns_the_replica_or_an_error(start, kind: FaultKind, times):
    harness = start(IDS, Fault(kind.respond, "GET", times=times), timed=kind.timed)
    result = harness.call(harness.hook.get_replica, TARGET)
    if isinstance(result, Replica):
        assert result.replica_id == TARGET
        outcome = "right"
    else:
        outcome = "gone" if isinstance(result, ReplicaNotFoundError) else "error"
    assert outcome == expected(kind.lookup or kind.listing, times)
    assert harness.tavus.count("DELETE") == 0
    assert harness.tavus.count("GET") <= (1 if kind.no_retry else 3)


@each_kind([kind for kind in KINDS if kind.not_applied])
@each_times
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_delete_that_was_not_applied(start, kind: FaultKind, times, hard):
    harness = start(IDS, Fault(kind.respond, "DELETE", times=times), timed=kind.timed)
    result = harness.call(harness.hook.delete_replica, TARGET, hard=hard)
    assert harness.check_delete(result) == expected(kind.not_applied, times)
    if kind.no_retry:
        assert harness.tavus.count("DELETE") == 1
    elif times is ONCE:
        assert sum(harness.clock.waits) >= kind.min_wait


@each_kind([kind for kind in KINDS if kind.applied])
@each_times
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_delete_that_was_applied(start, kind: FaultKind, times, hard):
    harness = start(IDS, Fault(kind.respond, "DELETE", applied=True, times=times), timed=kind.timed)
    result = harness.call(harness.hook.delete_replica, TARGET, hard=hard)
    assert harness.check_delete(result) == expected(kind.applied, times)
    assert harness.tavus.count("DELETE") == 1


@each_kind([kind for kind in KINDS if kind.lookup])
def test_delete_of_a_missing_replica_is_already_gone(start, kind: FaultKind):
    others = [one for one in IDS if one != TARGET]
    for faults in ([], [Fault(kind.respond, "DELETE", times=ALWAYS)]):
        harness = start(others, *faults)
        assert harness.check_delete(harness.call(harness.hook.delete_replica, TARGET)) == "already_gone"
        assert harness.tavus.count("DELETE") == 1


@each_kind([kind for kind in KINDS if "F34" in kind.name or "F36" in kind.name])
@pytest.mark.parametrize("call", ["LIST", "GET", "DELETE"])
def test_no_response_uses_more_than_32_mib_of_memory(start, kind: FaultKind, call):
    harness = start(IDS, Fault(kind.respond, call, applied=True))
    kind.respond(b"", harness.tavus)  # fills the server's caches, so that its memory is not measured
    functions = {
        "LIST": harness.hook.list_replicas,
        "GET": lambda: harness.hook.get_replica(TARGET),
        "DELETE": lambda: harness.hook.delete_replica(TARGET),
    }
    tracemalloc.start()
    try:
        harness.call(functions[call])
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


# Two faults: an ambiguous delete, and a look-up that does not settle it


def check_pairs(start, run_cells, kind: FaultKind, lookups, *, times, applied, outcome) -> None:
    harness = start(IDS)

    def run(lookup: FaultKind) -> None:
        harness.restart(
            IDS,
            Fault(kind.respond, "DELETE", applied=applied, times=times),
            Fault(lookup.respond, "GET", times=ALWAYS),
            timed=kind.timed or lookup.timed,
        )
        assert harness.check_delete(harness.call(harness.hook.delete_replica, TARGET)) == outcome

    run_cells(lookups, run)


@each_kind(samples(AMBIGUOUS))
@each_applied
def test_delete_stays_unknown_if_the_lookup_fails(start, run_cells, kind: FaultKind, applied):
    lookups = [row[0] for row in rows(LOOKUP_FAULTS)]
    check_pairs(start, run_cells, kind, lookups, times=ALWAYS, applied=applied, outcome="unknown")


@each_applied
def test_delete_stays_unknown_for_every_kind_of_lookup_fault(start, run_cells, applied):
    kind = BY_NAME["F13 F15 503"]
    check_pairs(start, run_cells, kind, LOOKUP_FAULTS, times=ALWAYS, applied=applied, outcome="unknown")


@each_kind(AMBIGUOUS)
@each_applied
def test_second_delete_settles_what_the_lookup_does_not(start, run_cells, kind: FaultKind, applied):
    lookups = [BY_NAME["F03 F04 connection closed"], BY_NAME["F20 401"], BY_NAME["F31 200 HTML"]]
    outcome = "confirmed" if applied else "deleted"
    check_pairs(start, run_cells, kind, lookups, times=ONCE, applied=applied, outcome=outcome)
