"""Read everything that the plan of an erasure needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from tavus_provider.execution.sweep import Sweep, SweepClient, ask_for, is_unreadable, undetermined_total
from tavus_provider.planning.erasure import ErasureFacts, count_kinds, find_replica_ids
from tavus_provider.planning.erasure_request import ErasureRequest


def read_erasure_facts(
    client: SweepClient,
    request: ErasureRequest,
    *,
    earlier: frozenset[str],
    recorded: frozenset[str],
    suspects: frozenset[str],
    soft_deleted: Mapping[str, datetime],
    concurrency: int,
) -> ErasureFacts:
    """
    Read all lists of the account, and ask for objects of the request that are not listed.

    :param earlier: keys that approved runs of this request were about
    :param recorded: keys that any plan of this request had
    :param suspects: rows that appeared while an earlier run of this request deleted
    :param soft_deleted: when this package soft-deleted each replica
    :param concurrency: the maximum number of simultaneous requests
    :raises TavusError: if a list cannot be read completely, or an object cannot be asked for
    """
    keys = frozenset(request.keys) | earlier
    sweep = Sweep.of(client, keys=keys, replica_ids=find_replica_ids(request, earlier))
    for error in sweep.errors.values():
        raise error
    sweep.attribute(client, concurrency=concurrency)
    answers = ask_for(client, sorted(keys - sweep.items.keys()), concurrency=concurrency)
    items, undetermined = dict(sweep.items), dict(sweep.undetermined)
    for key, answer in answers.items():
        if answer.item is not None:
            items[key] = answer.item
        elif is_unreadable(answer):
            undetermined[key] = f"cannot be read: {answer.error}"
        elif answer.error is not None:
            raise answer.error
    return ErasureFacts(
        items=items,
        missing=frozenset(key for key, answer in answers.items() if answer.is_missing),
        earlier=earlier,
        recorded=recorded,
        soft_deleted=soft_deleted,
        undetermined=undetermined,
        undetermined_count=undetermined_total(sweep),
        suspects=suspects,
        references=sweep.references,
        listed=count_kinds(sweep.items),
    )
