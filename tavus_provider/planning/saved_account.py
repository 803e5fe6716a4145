"""
A saved account: everything that a decision is made from, as a JSON document.

With it, the commands decide without a connection, a key or the network, for example where changes of a policy
are reviewed. Decisions are made as of the time when the account was read. Pure: no I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NotRequired, TypedDict, TypeVar, cast

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.models import (
    Activity,
    Conversation,
    Persona,
    Replica,
    UnreadableRow,
    Video,
    check_replica_id,
)
from tavus_provider.planning.documents import find_mismatch
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.verdict import format_time
from tavus_provider.sanitize import quote

VERSION: Final = 1

T = TypeVar("T", Conversation, Video)


class SavedReplica(TypedDict):
    """A replica. Times are ISO 8601 in UTC; see :class:`.Replica` for the fields."""

    replica_id: str
    replica_name: NotRequired[str | None]
    altered_name: NotRequired[str]
    is_name_cut: NotRequired[bool]
    status: str | None
    replica_type: str | None
    model_name: str | None
    created_at: str | None
    updated_at: str | None
    unreadable: NotRequired[dict[str, str]]


class SavedPersona(TypedDict):
    """A persona, and its default replica."""

    persona_id: str
    replica_id: str | None


class SavedActivity(TypedDict):
    """A conversation or a video."""

    id: str
    replica_id: str | None
    persona_id: str | None
    status: str | None
    used_at: str | None
    created_at: str | None


class SavedUnreadableRow(TypedDict):
    """A row that could not be read; see :class:`.UnreadableRow` for the fields."""

    kind: Literal["replica", "persona", "conversation", "video"]
    reason: str
    fingerprint: str
    own_ids: list[str]
    replica_ids: list[str]
    persona_ids: list[str]
    status: str | None
    used_at: str | None
    position: int | None


class SavedHistory(TypedDict):
    """What the ledger knew: ids and times."""

    scheduled: dict[str, str]
    soft_deleted: dict[str, str]
    due: dict[str, str]
    erasures: NotRequired[dict[str, str]]


class SavedAccount(TypedDict):
    """
    A saved account.

    ``policy`` is the name of the policy whose schedule is in ``history``. ``names`` says whether the names
    of the replicas were saved.
    """

    version: Literal[1]
    read_at: str
    tavus_conn_id: str
    origin: str
    policy: str
    names: bool
    replicas: list[SavedReplica]
    personas: list[SavedPersona]
    conversations: list[SavedActivity]
    videos: list[SavedActivity]
    unreadable: list[SavedUnreadableRow]
    held: list[str]
    history: SavedHistory


def save_account(
    inventory: Inventory, *, policy: Policy, tavus_conn_id: str, origin: str, names: bool = True
) -> SavedAccount:
    """
    Return an account as a document.

    :param inventory: as it was read for ``policy``
    :param tavus_conn_id: the Airflow connection that it was read with
    :param origin: the URL that this connection stands for
    :param names: whether to save the names of the replicas
    """
    return {
        "version": VERSION,
        "read_at": inventory.read_at.isoformat(),
        "tavus_conn_id": tavus_conn_id,
        "origin": origin,
        "policy": policy.name,
        "names": names,
        "replicas": [_save_replica(replica, names=names) for replica in inventory.replicas],
        "personas": [
            {"persona_id": persona.persona_id, "replica_id": persona.replica_id}
            for persona in inventory.personas
        ],
        "conversations": [_save_activity(activity) for activity in inventory.conversations],
        "videos": [_save_activity(activity) for activity in inventory.videos],
        "unreadable": [_save_unreadable(row) for row in inventory.unreadable],
        "held": sorted(inventory.held),
        "history": {
            "scheduled": _save_times(inventory.history.scheduled),
            "soft_deleted": _save_times(inventory.history.soft_deleted),
            "due": _save_times(inventory.history.due),
            "erasures": dict(inventory.history.erasures),
        },
    }


def load_account(value: object, *policies: Policy) -> Inventory:
    """
    Return the inventory of a saved account.

    The schedule of another policy than those is left out: each policy has its own.

    :param policies: what will be decided with
    :raises TavusValidationError: naming what is wrong, and if the names were not saved although one of the
        policies asks for them
    """
    account = _check(value)
    if not account["names"]:
        for policy in policies:
            if (asks := policy.find_name_setting()) is not None:
                raise TavusValidationError(
                    f"account: was saved without names, but {asks} of policy {quote(policy.name)} asks for "
                    "them; save the account with names"
                )
    history = account["history"]
    is_its_schedule = all(policy.name == account["policy"] for policy in policies)
    return Inventory(
        replicas=[_load_replica(row, f"replicas[{n}]") for n, row in enumerate(account["replicas"])],
        personas=[Persona(row["persona_id"], row["replica_id"]) for row in account["personas"]],
        conversations=_load_activities(Conversation, account["conversations"], "conversations"),
        videos=_load_activities(Video, account["videos"], "videos"),
        held=frozenset(account["held"]),
        history=History(
            scheduled=_load_times(history["scheduled"], "history.scheduled") if is_its_schedule else {},
            soft_deleted=_load_times(history["soft_deleted"], "history.soft_deleted"),
            due=_load_times(history["due"], "history.due") if is_its_schedule else {},
            erasures=history.get("erasures", {}),
        ),
        read_at=_parse_time(account["read_at"], "read_at"),
        unreadable=[_load_unreadable(row, f"unreadable[{n}]") for n, row in enumerate(account["unreadable"])],
    )


def _check(value: object) -> SavedAccount:
    if not isinstance(value, dict):
        raise _invalid("must be a JSON object, as plan --save writes it")
    if value.get("version") != VERSION:
        raise _invalid(
            f"version is {quote(value.get('version'))}, this release of the provider reads {VERSION}"
        )
    if unknown := sorted(value.keys() - SavedAccount.__annotations__.keys()):
        raise _invalid(f"unknown key {quote(unknown[0])}; known: {', '.join(SavedAccount.__annotations__)}")
    if (mismatch := find_mismatch(value, SavedAccount, name="account")) is not None:
        raise TavusValidationError(mismatch)
    return cast("SavedAccount", value)


def _save_replica(replica: Replica, *, names: bool) -> SavedReplica:
    saved: SavedReplica = {
        "replica_id": replica.replica_id,
        "status": replica.status,
        "replica_type": replica.replica_type,
        "model_name": replica.model_name,
        "created_at": format_time(replica.created_at),
        "updated_at": format_time(replica.updated_at),
    }
    if replica.unreadable:
        saved["unreadable"] = dict(replica.unreadable)
    if names:
        saved["replica_name"] = replica.replica_name
        if replica.altered_name is not None:
            saved["altered_name"] = replica.altered_name
        if replica.is_name_cut:
            saved["is_name_cut"] = True
    return saved


def _load_replica(row: SavedReplica, path: str) -> Replica:
    try:
        replica_id = check_replica_id(row["replica_id"])
    except TavusValidationError:
        raise _invalid(f"{path}.replica_id: {quote(row['replica_id'])} is not a replica id") from None
    return Replica(
        replica_id=replica_id,
        replica_name=row.get("replica_name"),
        status=row["status"],
        replica_type=row["replica_type"],
        model_name=row["model_name"],
        created_at=_parse_optional_time(row["created_at"], f"{path}.created_at"),
        updated_at=_parse_optional_time(row["updated_at"], f"{path}.updated_at"),
        unreadable=row.get("unreadable", {}),
        altered_name=row.get("altered_name"),
        is_name_cut=row.get("is_name_cut", False),
    )


def _save_activity(activity: Activity) -> SavedActivity:
    return {
        "id": activity.activity_id,
        "replica_id": activity.replica_id,
        "persona_id": activity.persona_id,
        "status": activity.status,
        "used_at": format_time(activity.used_at),
        "created_at": format_time(activity.created_at),
    }


def _load_activities(model: type[T], rows: Sequence[SavedActivity], name: str) -> list[T]:
    return [
        model(
            row["id"],
            row["replica_id"],
            row["persona_id"],
            row["status"],
            _parse_optional_time(row["used_at"], f"{name}[{number}].used_at"),
            _parse_optional_time(row["created_at"], f"{name}[{number}].created_at"),
        )
        for number, row in enumerate(rows)
    ]


def _save_unreadable(row: UnreadableRow) -> SavedUnreadableRow:
    return {
        "kind": cast("Any", row.kind),
        "reason": row.reason,
        "fingerprint": row.fingerprint,
        "own_ids": list(row.own_ids),
        "replica_ids": list(row.replica_ids),
        "persona_ids": list(row.persona_ids),
        "status": row.status,
        "used_at": format_time(row.used_at),
        "position": row.position,
    }


def _load_unreadable(row: SavedUnreadableRow, path: str) -> UnreadableRow:
    return UnreadableRow(
        kind=row["kind"],
        reason=row["reason"],
        fingerprint=row["fingerprint"],
        own_ids=tuple(row["own_ids"]),
        replica_ids=tuple(row["replica_ids"]),
        persona_ids=tuple(row["persona_ids"]),
        status=row["status"],
        used_at=_parse_optional_time(row["used_at"], f"{path}.used_at"),
        position=row["position"],
    )


def _save_times(times: Mapping[str, datetime]) -> dict[str, str]:
    return {replica_id: moment.isoformat() for replica_id, moment in sorted(times.items())}


def _load_times(times: Mapping[str, str], path: str) -> dict[str, datetime]:
    return {replica_id: _parse_time(text, f"{path}.{replica_id}") for replica_id, text in times.items()}


def _parse_optional_time(text: str | None, path: str) -> datetime | None:
    return None if text is None else _parse_time(text, path)


def _parse_time(text: str, path: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise _invalid(f"{path}: {quote(text)} is not an ISO 8601 time with a time zone")
    return moment


def _invalid(problem: str) -> TavusValidationError:
    return TavusValidationError(f"account: {problem}")
