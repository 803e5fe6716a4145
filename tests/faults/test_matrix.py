"""
Every kind of fault, once and always, in a listing, a look-up and a delete, alone and in pairs.

The judge is the server's log: what a client says is compared with what the server did.
"""

from __future__ import annotations

import tracemalloc

import pytest
from faults.bench import AFTER, ALWAYS, ONCE, TIMES, each
from faults.judge import IDS, VICTIM, lies_about_a_list
from faults.kinds import BY_NAME, KINDS, Kind, ends, rows
from faults.server import Misdeed

from tavus_provider.exceptions import ReplicaNotFoundError
from tavus_provider.models import Replica

pytestmark = pytest.mark.cell

DOUBTFUL = [kind for kind in KINDS if kind.doubtful]
LOOKS = [kind for kind in KINDS if kind.gets is None]


def expected(column: str, times) -> str:
    """The word of a column for a fault that comes once or always."""
    once, always = column.split()
    return once if times == ONCE else always


# -- one fault


@each(KINDS)
@TIMES
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_listing_is_complete_or_an_error(bench, kind: Kind, times, at):
    one = bench(IDS, Misdeed(kind.says, "LIST", at=at, times=times), timed=kind.timed)
    result = one.ask(one.hook.list_replicas)
    if isinstance(result, list):
        assert lies_about_a_list(one.tavus, [replica.replica_id for replica in result]) == []
        word = "right"
    else:
        assert not isinstance(result, ReplicaNotFoundError)
        assert result.outcome in ("not_attempted", "failed")
        word = "error"
    assert word == expected(kind.reads, times)
    assert one.tavus.count("DELETE") == 0
    if word == "right":
        assert sum(one.clock.waits) >= kind.waits
    if kind.final:
        # The first page is read alone; of the others one more may be under way when one fails.
        assert at <= one.tavus.count("LIST") <= at + (at > 1)


@each(KINDS)
@TIMES
def test_a_look_tells_of_that_replica_or_is_an_error(bench, kind: Kind, times):
    one = bench(IDS, Misdeed(kind.says, "GET", times=times), timed=kind.timed)
    result = one.ask(one.hook.get_replica, VICTIM)
    if isinstance(result, Replica):
        assert result.replica_id == VICTIM
        word = "right"
    else:
        word = "gone" if isinstance(result, ReplicaNotFoundError) else "error"
    assert word == expected(kind.gets or kind.reads, times)
    assert one.tavus.count("DELETE") == 0
    assert one.tavus.count("GET") <= (1 if kind.final else 3)


@each([kind for kind in KINDS if kind.before])
@TIMES
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_a_delete_that_had_no_effect(bench, kind: Kind, times, hard):
    one = bench(IDS, Misdeed(kind.says, "DELETE", times=times), timed=kind.timed)
    result = one.ask(one.hook.delete_replica, VICTIM, hard=hard)
    assert one.judge(result) == expected(kind.before, times)
    if kind.final:
        assert one.tavus.count("DELETE") == 1
    elif times is ONCE:
        assert sum(one.clock.waits) >= kind.waits


@each([kind for kind in KINDS if kind.after])
@TIMES
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_a_delete_that_had_its_effect(bench, kind: Kind, times, hard):
    one = bench(IDS, Misdeed(kind.says, "DELETE", after=True, times=times), timed=kind.timed)
    result = one.ask(one.hook.delete_replica, VICTIM, hard=hard)
    assert one.judge(result) == expected(kind.after, times)
    assert one.tavus.count("DELETE") == 1


@each([kind for kind in KINDS if kind.gets])
def test_a_delete_of_what_is_not_there_is_already_gone(bench, kind: Kind):
    others = [one for one in IDS if one != VICTIM]
    for misdeeds in ([], [Misdeed(kind.says, "DELETE", times=ALWAYS)]):
        one = bench(others, *misdeeds)
        assert one.judge(one.ask(one.hook.delete_replica, VICTIM)) == "already_gone"
        assert one.tavus.count("DELETE") == 1


@each([kind for kind in KINDS if "F34" in kind.name or "F36" in kind.name])
@pytest.mark.parametrize("call", ["LIST", "GET", "DELETE"])
def test_no_answer_takes_more_than_32_mib(bench, kind: Kind, call):
    one = bench(IDS, Misdeed(kind.says, call, after=True))
    kind.says(b"", one.tavus)  # what the server needs for it is not what is measured
    ask = {
        "LIST": one.hook.list_replicas,
        "GET": lambda: one.hook.get_replica(VICTIM),
        "DELETE": lambda: one.hook.delete_replica(VICTIM),
    }
    tracemalloc.start()
    try:
        one.ask(ask[call])
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


# -- two faults: a delete in doubt, and a look-up that settles nothing


def pairs(bench, each_of, kind: Kind, looks, *, times, after, outcome) -> None:
    one = bench(IDS)

    def cell(look: Kind) -> None:
        one.again(
            IDS,
            Misdeed(kind.says, "DELETE", after=after, times=times),
            Misdeed(look.says, "GET", times=ALWAYS),
            timed=kind.timed or look.timed,
        )
        assert one.judge(one.ask(one.hook.delete_replica, VICTIM)) == outcome

    each_of(looks, cell)


@each(ends(DOUBTFUL))
@AFTER
def test_doubt_about_the_look_stays_doubt(bench, each_of, kind: Kind, after):
    looks = [row[0] for row in rows(LOOKS)]
    pairs(bench, each_of, kind, looks, times=ALWAYS, after=after, outcome="unknown")


@AFTER
def test_doubt_about_a_look_of_any_kind_stays_doubt(bench, each_of, after):
    kind = BY_NAME["F13 F15 503"]
    pairs(bench, each_of, kind, LOOKS, times=ALWAYS, after=after, outcome="unknown")


@each(DOUBTFUL)
@AFTER
def test_where_no_look_settles_it_the_next_delete_does(bench, each_of, kind: Kind, after):
    looks = [BY_NAME["F03 F04 hang-up"], BY_NAME["F20 401"], BY_NAME["F31 200 HTML"]]
    outcome = "confirmed" if after else "deleted"
    pairs(bench, each_of, kind, looks, times=ONCE, after=after, outcome=outcome)
