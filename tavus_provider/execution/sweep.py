"""
Read an account for one request: every list completely, and keep only what belongs to the request.

Memory grows with what belongs to the person, not with the account. A plan reads the account once before the
deletes, and an apply task once more after them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, assert_never

from tavus_provider.exceptions import (
    ItemNotFoundError,
    TavusError,
    TavusInvalidResponseError,
)
from tavus_provider.execution.dispatch import call_each
from tavus_provider.keys import Kind, is_named, item_key, parse_key
from tavus_provider.models import Activity, Item, Persona, Replica, UnreadableRow
from tavus_provider.planning.erasure import MAX_UNDETERMINED, Reference
from tavus_provider.planning.erasure_report import PERSONA

_OTHER_CASE: Final = "names replica {}, an id of the request in another letter case"
MAX_ASKED: Final = 200
"""Rows without a replica that are asked for one by one."""


class SweepClient(Protocol):
    """The client methods that read what belongs to a request."""

    def list_personas(
        self, *, keep: Callable[[Persona | UnreadableRow], bool] | None = None
    ) -> Sequence[Persona | UnreadableRow]: ...
    def list_items(
        self, kind: Kind, *, keep: Callable[[Item | UnreadableRow], bool] | None = None
    ) -> Sequence[Item | UnreadableRow]: ...
    def get_item(self, key: str) -> Item: ...
    def stop(self) -> None: ...
    def wait(self, seconds: float) -> bool: ...


@dataclass
class Sweep:
    """
    What the lists of an account show about one request.

    :param keys: the keys that are known to belong to the request
    :param replica_ids: the replicas that show the person; what was made with them belongs to the request
    :param items: every listed object that belongs to the request, by key
    :param undetermined: rows that may belong to it, and why this cannot be seen; at most ``MAX_UNDETERMINED``
    :param overflow: about how many more such rows there are
    :param references: personas that name one of these replicas
    :param errors: why a list could not be read completely, by the singular of its name
    :param read: the lists that were read completely
    :param unattributed: the undetermined rows that can be read and name no replica
    """

    keys: Set[str]
    replica_ids: frozenset[str]
    items: dict[str, Item] = field(default_factory=dict)
    undetermined: dict[str, str] = field(default_factory=dict)
    overflow: int = 0
    references: list[Reference] = field(default_factory=list)
    errors: dict[str, TavusError] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    unattributed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._ids: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        for key in self.keys:
            kind, item_id = parse_key(key)
            self._ids[kind].add(item_id)

    @classmethod
    def of(cls, client: SweepClient, *, keys: Collection[str], replica_ids: Collection[str]) -> Sweep:
        """Read all lists. A list that cannot be read is in ``errors``, and does not stop the others."""
        sweep = cls(keys=frozenset(keys), replica_ids=frozenset(replica_ids))
        for name in (PERSONA, *Kind):
            sweep.read_list(client, name)
        return sweep

    def read_list(self, client: SweepClient, name: str) -> None:
        """
        Read one list, again if it was read before.

        :param name: ``persona`` or a value of :class:`.Kind`. Personas must be read before conversations
        :raises ValueError: for any other name
        """
        kind = None if name == PERSONA else Kind(name)
        self.errors.pop(name, None)
        self.read.discard(name)
        self.items = {key: item for key, item in self.items.items() if item.kind != name}
        try:
            if kind is None:
                self._read_personas(client)
            else:
                self._read_kind(client, kind)
        except TavusError as error:
            self.errors[name] = error
        else:
            self.read.add(name)

    def attribute(self, client: SweepClient, *, known: Collection[str] = (), concurrency: int) -> None:
        """
        Ask for rows that name no replica: the object may name one although its row in the list does not.

        Nothing is asked if there are more than ``MAX_ASKED``: then the account does not show it.

        :param known: rows that need not be asked for
        :param concurrency: the maximum number of simultaneous requests
        """
        keys = sorted(self.unattributed.difference(known))
        if self.overflow or len(keys) > MAX_ASKED:
            return
        for key, answer in ask_for(client, keys, concurrency=concurrency).items():
            if (replica_id := getattr(answer.item, "replica_id", None)) is None:
                continue
            self.unattributed.discard(key)
            if replica_id not in self.replica_ids and is_named(replica_id, self.replica_ids):
                self.undetermined[key] = _OTHER_CASE.format(replica_id)
                continue
            self.undetermined.pop(key, None)
            if answer.item is not None and replica_id in self.replica_ids:
                self.items[key] = answer.item

    def _read_personas(self, client: SweepClient) -> None:
        def keep(row: Persona | UnreadableRow) -> bool:
            if isinstance(row, UnreadableRow):
                return self._name_ours(row.replica_ids) or (bool(self.replica_ids) and not row.replica_ids)
            return row.replica_id is not None and is_named(row.replica_id, self.replica_ids)

        self.references = []
        for row in client.list_personas(keep=keep):
            if not isinstance(row, UnreadableRow):
                self.references.append({"persona_id": row.persona_id, "replica_id": str(row.replica_id)})
            elif shown := [one for one in row.replica_ids if is_named(one, self.replica_ids)]:
                self.references.append({"persona_id": row.shown_id, "replica_id": min(shown)})
            else:
                self._add_undetermined(f"persona {row.shown_id}", f"cannot be read: {row.reason}")

    def _read_kind(self, client: SweepClient, kind: Kind) -> None:
        for row in client.list_items(kind, keep=partial(self._keep, kind)):
            if not isinstance(row, UnreadableRow):
                self.items[item_key(kind, row.key)] = row

    def _keep(self, kind: Kind, row: Item | UnreadableRow) -> bool:
        """Return whether a row belongs to the request, and note a row of which this cannot be seen."""
        match row:
            case UnreadableRow():
                if self._may_be_ours(kind, row):
                    self._add_undetermined(f"{kind} {row.shown_id}", f"cannot be read: {row.reason}")
                return False
            case Replica():
                return row.replica_id in self.keys
            case Activity():
                return self._keep_activity(kind, row)
            case _:  # rows of another model: which of them belong to the request must be decided here
                assert_never(row)

    def _keep_activity(self, kind: Kind, row: Activity) -> bool:
        try:
            key = item_key(kind, row.key)
        except TavusError as error:
            if row.replica_id in self.replica_ids:
                self._add_undetermined(f"{kind} {row.key}", f"has no valid id: {error}")
            return False
        if key in self.keys or row.replica_id in self.replica_ids:
            return True
        if row.replica_id is not None and is_named(row.replica_id, self.replica_ids):
            self._add_undetermined(key, _OTHER_CASE.format(row.replica_id))
        if row.replica_id is None and self.replica_ids:
            self.unattributed.add(key)
            self._add_undetermined(key, self._describe_unattributed(row))
        return False

    def _describe_unattributed(self, row: Activity) -> str:
        for one in self.references:
            if row.persona_id == one["persona_id"]:
                return (
                    f"names no replica; its persona {one['persona_id']} now names replica {one['replica_id']}"
                )
        return "names no replica"

    def _may_be_ours(self, kind: Kind, row: UnreadableRow) -> bool:
        """Return whether an unreadable row shows this request, or nothing that says whose it is."""
        if not self._ids[kind].isdisjoint(row.own_ids):
            return True
        if kind is Kind.REPLICA:
            return row.hides_its_id and bool(self.replica_ids)
        return bool(self.replica_ids) and (not row.replica_ids or self._name_ours(row.replica_ids))

    def _name_ours(self, replica_ids: Iterable[str]) -> bool:
        """Return whether one of these ids is a replica of the request, in any letter case."""
        return any(is_named(replica_id, self.replica_ids) for replica_id in replica_ids)

    def _add_undetermined(self, row: str, reason: str) -> None:
        if row in self.undetermined or len(self.undetermined) < MAX_UNDETERMINED:
            self.undetermined[row] = reason
        else:
            self.overflow += 1


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What Tavus returned for one key.

    :param item: the object; ``None`` if it was not returned
    :param is_missing: whether Tavus said that it does not know the id
    :param error: why it is not known whether it exists
    """

    item: Item | None = None
    is_missing: bool = False
    error: TavusError | None = None


def ask_for(client: SweepClient, keys: Collection[str], *, concurrency: int) -> dict[str, Answer]:
    """
    Ask Tavus for objects one by one. An object that cannot be asked for does not stop the others.

    :param concurrency: the maximum number of simultaneous requests
    """
    return call_each(keys, partial(_ask, client), concurrency=concurrency, stop_client=client.stop)


def is_unreadable(answer: Answer) -> bool:
    """Return whether Tavus returned something for a key that cannot be read."""
    return isinstance(answer.error, TavusInvalidResponseError)


def _ask(client: SweepClient, key: str) -> Answer:
    try:
        return Answer(item=client.get_item(key))
    except ItemNotFoundError:
        return Answer(is_missing=True)
    except TavusError as error:
        return Answer(error=error)


def undetermined_total(sweep: Sweep) -> int:
    """Return the number of rows that may belong to the request, about."""
    return len(sweep.undetermined) + sweep.overflow


def find_listings(sweep: Sweep) -> Mapping[str, bool]:
    """Return for each list whether it was read completely."""
    return {name: name in sweep.read for name in (PERSONA, *(kind.value for kind in Kind))}
