"""Look again after the deletes of an erasure, and correct the outcomes by what is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tavus_provider.execution.sweep import Answer, Sweep, SweepClient, ask_for, find_listings
from tavus_provider.execution.verification import LIST_WAITS
from tavus_provider.keys import parse_key
from tavus_provider.outcomes import GONE, Outcome
from tavus_provider.planning.erasure import ErasurePlan
from tavus_provider.planning.erasure_report import Asked, Look
from tavus_provider.planning.report import Result


def look_again(
    client: SweepClient,
    plan: ErasurePlan,
    *,
    results: Mapping[str, Result],
    concurrency: int,
    log: Callable[[str], None],
) -> Look:
    """
    Ask for every object, and read all lists.

    While an object that was deleted is still listed, its list is read again, up to four times in eight
    seconds, because a list may lag behind deletes.

    :param results: the result of each object that was to be deleted
    :param concurrency: the maximum number of simultaneous requests
    :param log: called with one line for each list that cannot be read
    """
    rows = [row["key"] for part in (plan["delete"], plan["held"], plan["left"]) for row in part]
    gone = [row["key"] for row in plan["gone"]]
    known = {*rows, *gone}
    keys = [*results, *gone]
    deleted = {key for key, result in results.items() if result.outcome in GONE}
    answers = ask_for(client, keys, concurrency=concurrency)
    sweep = Sweep.of(client, keys=known, replica_ids=frozenset(plan["replica_ids"]))
    for seconds in LIST_WAITS:
        lagging = {sweep.items[key].kind for key in sweep.items.keys() & deleted}
        if not lagging or client.wait(seconds):
            break
        for name in lagging:
            sweep.read_list(client, name)
    for name, error in sweep.errors.items():
        log(f"The list of {name}s could not be read completely: {error}")
    undetermined = {row["row"] for row in plan["undetermined"]}
    sweep.attribute(client, known=undetermined, concurrency=concurrency)
    new = sweep.items.keys() - known
    return Look(
        asked={key: _asked(answer).value for key, answer in answers.items()},
        listings=find_listings(sweep),
        still_listed=frozenset(sweep.items.keys() & set(keys)),
        found=frozenset(key for key in new if parse_key(key)[0].value in plan["kinds"]),
        undetermined=frozenset(sweep.undetermined.keys() - undetermined),
        references=tuple(sweep.references),
    )


def judge(results: Mapping[str, Result], look: Look, *, plan: ErasurePlan) -> dict[str, Result]:
    """
    Return the results that a look corrects.

    :param results: the result of each object that was to be deleted
    """
    # Their absence proves nothing, because Tavus did not know them before either.
    unknown = {row["key"] for row in plan["delete"] if not row["is_known"]}
    judged = {}
    for key, (outcome, detail) in results.items():
        is_there = look.asked.get(key) == Asked.FOUND or key in look.still_listed
        is_gone = look.shows_gone(key) and key not in unknown
        if outcome in GONE and is_there:
            judged[key] = Result(Outcome.UNKNOWN, f"{detail}; {_where(key, look)}")
        elif outcome is Outcome.ALREADY_GONE and is_there:
            judged[key] = Result(Outcome.FAILED, f"{detail}; but {_where(key, look)}")
        elif outcome is Outcome.UNKNOWN and is_gone:
            judged[key] = Result(Outcome.CONFIRMED, f"{detail}; it is gone now")
        elif outcome in (Outcome.FAILED, Outcome.NOT_ATTEMPTED) and is_gone:
            judged[key] = Result(Outcome.ALREADY_GONE, f"{detail}; it is gone all the same")
    return judged


def may_lag(look: Look, judged: Mapping[str, Result]) -> bool:
    """Return whether another look may show more: something is not known, or still there after its delete."""
    is_unknown = any(result.outcome is Outcome.UNKNOWN for result in judged.values())
    return is_unknown or Asked.UNKNOWN in look.asked.values() or not all(look.listings.values())


def _where(key: str, look: Look) -> str:
    return "Tavus still returns it" if look.asked.get(key) == Asked.FOUND else "it is still listed"


def _asked(answer: Answer) -> Asked:
    if answer.item is not None:
        return Asked.FOUND
    return Asked.NOT_FOUND if answer.is_missing else Asked.UNKNOWN
