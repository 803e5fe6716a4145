"""Read everything of the account that a decision needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from tavus_provider.exceptions import PlanRejectedError, ReplicaNotFoundError
from tavus_provider.execution.conversations import (
    ConversationClient,
    read_active_conversations,
    read_past_conversations,
)
from tavus_provider.models import Replica, UnreadableRow
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.known_use import KnownUse
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.verdict import ReasonCode, Status, Verdict

if TYPE_CHECKING:
    from tavus_provider.models import Conversation, Persona, Video

__all__ = ["MANUAL_POLICY", "Inventory", "InventoryClient", "evaluate_one", "read_inventory"]

MAX_CLOCK_SKEW: Final = 300.0
"""Seconds by which the clocks of Tavus and of the worker may differ; beyond that, ages are meaningless."""

MANUAL_POLICY: Final = Policy.parse(
    {
        "name": "by hand",
        "expire": [{"rule": "by hand", "older_than": "1min", "status": ["started", "completed", "error"]}],
        "limits": {"max_deletions": 1, "max_deletion_percent": 100},
    }
)
"""The policy for one replica that a person chose: it must be the account's own and not in use."""

T = TypeVar("T")


class InventoryClient(ConversationClient, Protocol):
    """The client methods that read the account."""

    @property
    def clock_skew(self) -> float | None: ...
    @property
    def clock_evidence(self) -> str | None: ...
    def list_replicas(self, *, while_deleting: bool = False) -> Sequence[Replica | UnreadableRow]: ...
    def list_personas(self) -> Sequence[Persona | UnreadableRow]: ...
    def list_videos(self, *, latest_only: bool = False) -> Sequence[Video | UnreadableRow]: ...
    def get_replica(self, replica_id: str) -> Replica: ...


def read_inventory(
    client: InventoryClient,
    policy: Policy,
    *,
    now: Callable[[], datetime],
    history: Callable[[datetime], History] = lambda now: History(),
    held: Callable[[datetime], frozenset[str]] = lambda now: frozenset(),
    while_deleting: bool = False,
    known_use: KnownUse | None = None,
) -> Inventory:
    """
    Read the replicas, and the lists that a policy needs.

    :param now: returns the wall clock; called once, after everything of the account was read
    :param history: returns what earlier runs did; called with the time that ``now`` returned
    :param held: returns the ids under legal hold; called with the time that ``now`` returned
    :param while_deleting: whether other tasks delete replicas at the same time
    :param known_use: what the plan read of past conversations, if it is known
    :raises PlanRejectedError: if the clocks of Tavus and of this worker differ by more than five minutes
    :raises TavusError: if a list that the policy needs cannot be read completely
    """
    inventory = _read_lists(
        client, policy, client.list_replicas(while_deleting=while_deleting), now=now, known_use=known_use
    )
    check_clock(client)
    read_at = now()
    return dataclasses.replace(inventory, history=history(read_at), held=held(read_at), read_at=read_at)


def reread_use(
    client: InventoryClient,
    policy: Policy,
    inventory: Inventory,
    *,
    now: Callable[[], datetime],
    held: Callable[[datetime], frozenset[str]],
) -> Inventory:
    """
    Return an inventory in which personas, active conversations, videos and holds are read again.

    Only the lists that the policy needs are read, and of conversations only the active ones. The replicas,
    their past use and the history stay as they are.

    :raises TavusError: if something cannot be read completely
    """
    needs, unreadable = policy.needs, list(inventory.unreadable)
    personas, conversations, videos = inventory.personas, inventory.conversations, inventory.videos
    if "personas" in needs:
        personas = _split(client.list_personas(), unreadable)
    if "conversations" in needs:
        conversations = [*conversations, *_split(read_active_conversations(client), unreadable)]
    if "videos" in needs:
        videos = _split(client.list_videos(latest_only=True), unreadable)
    read_at = now()
    return dataclasses.replace(
        inventory,
        personas=personas,
        conversations=conversations,
        videos=videos,
        unreadable=unreadable,
        held=held(read_at),
        read_at=read_at,
    )


def evaluate_one(
    client: InventoryClient,
    replica_id: str,
    *,
    now: Callable[[], datetime],
    ignore_if_missing: bool = False,
) -> Verdict:
    """
    Read one replica that a person chose, and what uses it.

    :param now: returns the wall clock
    :param ignore_if_missing: accept an id that Tavus does not know; the replica may be soft-deleted
    :returns: a verdict with the status ``expired``; its reason names what would otherwise keep the replica
    :raises PlanRejectedError: if the replica is not the account's own, or is in use, or if the clocks of
        Tavus and of this worker differ by more than five minutes
    :raises ReplicaNotFoundError: if Tavus does not know the id
    """
    missing = None
    try:
        replica = client.get_replica(replica_id)
    except ReplicaNotFoundError as error:
        if not ignore_if_missing:
            raise
        missing = str(error)
    check_clock(client)
    if missing is not None:
        reason = f"chosen by hand although {missing}; it may be soft-deleted already"
        return Verdict(
            Replica(replica_id), Status.EXPIRED, ReasonCode.MANUAL, reason, rule="by hand", listed=False
        )
    inventory = _read_lists(client, MANUAL_POLICY, [replica], now=now)
    verdict = evaluate(MANUAL_POLICY, inventory, now=now()).verdicts[0]
    if verdict.reason_code in (ReasonCode.NOT_USER, ReasonCode.IN_USE):
        raise PlanRejectedError(
            f"replica {replica_id} cannot be deleted by hand: {verdict.reason}; nothing was deleted"
        )
    caveat = "" if verdict.status == Status.EXPIRED else f" although {verdict.reason}"
    return verdict._replace(status=Status.EXPIRED, rule="by hand", reason=f"chosen by hand{caveat}")


def check_clock(client: InventoryClient) -> None:
    """
    Check the worker's clock against the one of Tavus, as its last responses showed it.

    :raises PlanRejectedError: if they differ by more than five minutes
    """
    skew = client.clock_skew
    if skew is not None and abs(skew) > MAX_CLOCK_SKEW:
        raise PlanRejectedError(
            f"the clocks of Tavus and of this worker differ by {abs(skew):.0f} s (at most "
            f"{MAX_CLOCK_SKEW:.0f} s allowed), so ages cannot be computed: {client.clock_evidence}. "
            f"Correct the "
            "clock that is wrong, or have no cache between Tavus and this worker. Nothing was deleted"
        )


def _read_lists(
    client: InventoryClient,
    policy: Policy,
    replicas: Sequence[Replica | UnreadableRow],
    *,
    now: Callable[[], datetime],
    known_use: KnownUse | None = None,
) -> Inventory:
    needs, unreadable = policy.needs, list[UnreadableRow]()
    personas = client.list_personas() if "personas" in needs else ()
    conversations: Sequence[Conversation | UnreadableRow] = ()
    read_use = None
    if policy.asks_about_past:
        conversations, read_use = read_past_conversations(client, known=known_use, now=now)
    elif "conversations" in needs:
        conversations = read_active_conversations(client)
    return Inventory(
        replicas=_split(replicas, unreadable),
        personas=_split(personas, unreadable),
        conversations=_split(conversations, unreadable),
        videos=_split(client.list_videos(latest_only=True) if "videos" in needs else (), unreadable),
        unreadable=unreadable,
        known_use=None if any(row.kind == "conversation" for row in unreadable) else read_use,
    )


def _split(rows: Iterable[T | UnreadableRow], unreadable: list[UnreadableRow]) -> list[T]:
    """Return the readable rows, and append the others to ``unreadable``."""
    readable: list[T] = []
    for row in rows:
        if isinstance(row, UnreadableRow):
            unreadable.append(row)
        else:
            readable.append(row)
    return readable
