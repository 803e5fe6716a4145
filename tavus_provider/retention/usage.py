"""Which replicas are in use, and when each was last used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.keys import fold
from tavus_provider.models import Activity, Conversation, Persona, UnreadableRow, Video
from tavus_provider.retention.fields import LONG_AGO
from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.policy import Policy

_WAY_OUT: Final = {
    "conversation": (
        "end that conversation in Tavus, wait until it ends, or take 'conversation' out of keep.in_use"
    ),
    "video": "wait until that video is finished, delete it in Tavus, or take 'video' out of keep.in_use",
    "persona": "correct or delete that persona in Tavus, or take 'persona' out of keep.in_use",
}
"""How a person can continue if it is unknown which replica something uses."""


class _Unattributed(NamedTuple):
    """A use that names no replica: it may have been the use of any."""

    used_at: datetime
    label: str


class _UnknownUse(NamedTuple):
    """A use at an unknown time."""

    activity_id: str
    reason: str


class _PresumedEnded(NamedTuple):
    """A conversation that is still called active although no call lasts that long."""

    used_at: datetime
    label: str


class Usage:
    """
    Which replicas are in use, and when each was last used.

    Nothing here depends on the order in which Tavus lists, nor on the letter case of the ids that rows name:
    all keys are ids as :func:`.fold` returns them.

    An unreadable row counts as use of every replica that it names. A conversation that has been active for
    ``keep.active_for`` counts as ended: a call lasts at most one hour (Tavus API reference,
    ``max_call_duration``), and Tavus does not end every conversation.

    :raises TavusInvalidResponseError: if it is unknown which replica an unfinished conversation or video, or
        an unreadable persona, uses
    """

    def __init__(self, policy: Policy, inventory: Inventory, now: datetime) -> None:
        self.in_use: dict[str, str] = {}
        """Why each replica counts as in use."""
        self.last_used: dict[str, datetime] = {}
        self.unknown: dict[str, _UnknownUse] = {}
        self.unattributed: _Unattributed | None = None
        """The latest one."""
        self._presumed_ended: dict[str, _PresumedEnded] = {}
        self._now = now
        self._kinds = frozenset(policy.keep.in_use)
        self._active_for = policy.keep.active_for
        self._default_replicas = {persona.persona_id: persona.replica_id for persona in inventory.personas}
        self._replicas_of_unreadable: dict[str, tuple[str, ...]] = {}
        self._read_personas([row for row in inventory.unreadable if row.kind == Persona.kind])
        for kind, activities in ((Conversation, inventory.conversations), (Video, inventory.videos)):
            self._read(kind, activities)
            self._read_unreadable(kind, [row for row in inventory.unreadable if row.kind == kind.kind])
        if not policy.asks_about_past:
            # Only present use was read, so the last use may be later than it seems.
            self.last_used.clear()
            self.unattributed = None

    def describe_presumed_ended(self, replica_id: str) -> str | None:
        """Return which active conversation with a replica counts as ended, and why; ``None`` if none does."""
        conversation = self._presumed_ended.get(fold(replica_id))
        if conversation is None:
            return None
        since = self._active_for.format(self._now - conversation.used_at)
        return (
            f"{conversation.label} has been active for {since} and counts as ended, "
            f"keep.active_for is {self._active_for}"
        )

    def _read_personas(self, unreadable: Iterable[UnreadableRow]) -> None:
        guarded = Persona.kind in self._kinds
        if guarded:
            for persona_id, replica_id in sorted(self._default_replicas.items()):
                if replica_id is not None:
                    self.in_use.setdefault(
                        fold(replica_id), f"is the default of persona {escape_line(persona_id)}"
                    )
        for row in sorted(unreadable, key=_row_order):
            for persona_id in row.own_ids:
                known = self._replicas_of_unreadable.get(persona_id, ())
                self._replicas_of_unreadable[persona_id] = (*known, *row.replica_ids)
            if guarded and not row.replica_ids:
                raise _unknown_replica(f"{_problem(row)} and names no replica", row.kind)
            if guarded:
                self._note_unreadable(row, row.replica_ids)

    def _read(self, kind: type[Activity], activities: Sequence[Activity]) -> None:
        guarded, finished = kind.kind in self._kinds, kind.finished_statuses
        unfinished = []
        for activity in activities:
            is_active = guarded and activity.status not in finished
            is_presumed_ended = is_active and self._is_presumed_ended(activity)
            replica_ids = self._find_replicas(activity.replica_id, activity.persona_id)
            for replica_id in replica_ids:
                self._note_use(replica_id, activity)
                if is_presumed_ended:
                    self._note_presumed_ended(replica_id, activity)
                elif is_active:
                    unfinished.append((activity.activity_id, activity.status or "", replica_id))
            if not replica_ids:
                if is_active and not is_presumed_ended:
                    raise _unknown_replica(self._describe_nameless(activity), activity.kind)
                self._note_unattributed(activity.used_at, _label(activity))
        for activity_id, status, replica_id in sorted(unfinished):
            label = f"{kind.kind} {escape_line(activity_id)}"
            if kind is Conversation and status == "active":
                reason = f"is in active {label}"
            else:
                reason = f"is in {label}, which is {escape_line(status, 40) or 'of unknown status'}"
            self.in_use.setdefault(fold(replica_id), reason)

    def _read_unreadable(self, kind: type[Activity], unreadable: Iterable[UnreadableRow]) -> None:
        guarded = kind.kind in self._kinds
        for row in sorted(unreadable, key=_row_order):
            replica_ids = list(row.replica_ids)
            for persona_id in row.persona_ids:
                replica_ids += self._find_replicas(None, persona_id)
            for replica_id in replica_ids:
                self._note_unknown(replica_id, _UnknownUse(row.shown_id, _problem(row)))
            if guarded:
                self._note_unreadable(row, replica_ids)
            if not replica_ids:
                is_finished = row.status in kind.finished_statuses or self._is_presumed_ended(row)
                if guarded and not is_finished:
                    raise _unknown_replica(f"{_problem(row)} and names no replica", row.kind)
                self._note_unattributed(row.used_at if is_finished else None, _label(row))

    def _find_replicas(self, replica_id: str | None, persona_id: str | None) -> tuple[str, ...]:
        """Return the replica that a row names, or those of its persona; several if that is unreadable."""
        if replica_id is not None:
            return (replica_id,)
        if persona_id is None:
            return ()
        default = self._default_replicas.get(persona_id)
        others = self._replicas_of_unreadable.get(persona_id, ())
        return others if default is None else (default, *others)

    def _is_presumed_ended(self, row: Activity | UnreadableRow) -> bool:
        return (
            row.kind == Conversation.kind
            and row.status == "active"
            and row.used_at is not None
            and self._now - row.used_at >= self._active_for.delta
        )

    def _describe_nameless(self, activity: Activity) -> str:
        persona_id = activity.persona_id
        if persona_id is None:
            problem = "names neither a replica nor a persona"
        else:
            persona = f"its persona {escape_line(persona_id)}"
            if persona_id in self._replicas_of_unreadable:
                problem = f"names no replica, and {persona} cannot be read"
            elif persona_id in self._default_replicas:
                problem = f"names no replica, and {persona} has no default replica"
            else:
                problem = f"names no replica, and {persona} is not listed"
        status = escape_line(activity.status or "of unknown status", 40)
        undated = activity.used_at is None or activity.used_at > self._now
        date = ", has no date in the past" if undated and activity.kind == Conversation.kind else ""
        return f"{_label(activity)} is {status}{date} and {problem}"

    def _note_use(self, replica_id: str, activity: Activity) -> None:
        used_at = activity.used_at
        if used_at is None or used_at > self._now:
            problem = "has no readable date" if used_at is None else "is dated in the future"
            self._note_unknown(replica_id, _UnknownUse(activity.activity_id, f"{_label(activity)} {problem}"))
        elif used_at > self.last_used.get(fold(replica_id), LONG_AGO):
            self.last_used[fold(replica_id)] = used_at

    def _note_unknown(self, replica_id: str, use: _UnknownUse) -> None:
        replica_id = fold(replica_id)
        self.unknown[replica_id] = min(use, self.unknown.get(replica_id, use))

    def _note_presumed_ended(self, replica_id: str, activity: Activity) -> None:
        replica_id = fold(replica_id)
        ended = _PresumedEnded(activity.used_at or LONG_AGO, _label(activity))
        self._presumed_ended[replica_id] = max(ended, self._presumed_ended.get(replica_id, ended))

    def _note_unattributed(self, used_at: datetime | None, label: str) -> None:
        use = _Unattributed(min(used_at or self._now, self._now), label)
        self.unattributed = max(use, self.unattributed or use)

    def _note_unreadable(self, row: UnreadableRow, replica_ids: Iterable[str]) -> None:
        for replica_id in replica_ids:
            reason = f"is named by {_label(row)}, which cannot be read: {escape_line(row.reason)}"
            self.in_use.setdefault(fold(replica_id), reason)


def _problem(row: UnreadableRow) -> str:
    return f"{_label(row)} cannot be read ({escape_line(row.reason)})"


def _unknown_replica(problem: str, kind: str) -> TavusInvalidResponseError:
    return TavusInvalidResponseError(
        f"{problem}; it may use any replica, so nothing may be deleted. To continue, {_WAY_OUT[kind]}"
    )


def _row_order(row: UnreadableRow) -> tuple[str, str]:
    return row.shown_id, row.fingerprint


def _label(row: Activity | UnreadableRow) -> str:
    row_id = row.shown_id if isinstance(row, UnreadableRow) else row.activity_id
    return f"{row.kind} {escape_line(row_id)}"
