"""
What is so: the account, and what is known from elsewhere, in the form in which the rungs ask for it.

Everything that more than one rung needs, or that needs more than one replica, is gathered here once for each
decision. Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from unicodedata import normalize

from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.models import Activity, Conversation, Persona, Replica, Video
from tavus_provider.retention.fields import STATUSES, ZERO
from tavus_provider.retention.policy import Names, Policy, Rule
from tavus_provider.sanitize import escape_line

# Every other status of a conversation or a video is use, an unknown one too.
LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class History:
    """
    What earlier runs did, from the ledger.

    :param scheduled: since when each id has been scheduled without a break under this policy
    :param soft_deleted: when this package soft-deleted each id
    """

    scheduled: Mapping[str, datetime] = field(default_factory=dict)
    soft_deleted: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """
    Everything that one decision is made from.

    :param replicas: the complete listing
    :param personas, conversations, videos: complete, where :attr:`.Policy.needs` names them
    :param held: ids under legal hold
    :param history: what earlier runs did
    :param read_at: when it was read, to be given as ``now`` to :func:`.evaluate`; an inventory without it
        is read as one in whose time every date is in the future, so everything is kept
    """

    replicas: Sequence[Replica]
    personas: Sequence[Persona] = ()
    conversations: Sequence[Conversation] = ()
    videos: Sequence[Video] = ()
    held: frozenset[str] = frozenset()
    history: History = field(default_factory=History)
    read_at: datetime = LONG_AGO


class Case(NamedTuple):
    """
    What is so of one replica at one time, whichever rung asks.

    A span that is in doubt is zero, which reaches no limit.
    """

    replica: Replica
    age: timedelta
    idle: timedelta
    last_used_at: datetime | None
    perhaps: str | None
    """An activity that may have used it, and does not say so."""
    outside: str | None
    """Why it is out of scope."""
    doubt: str | None
    """What makes it undetermined."""
    rule: Rule | None
    """The first rule whose conditions all hold."""


class Facts:
    """
    What the rungs need to know beside the replica itself.

    :raises TavusInvalidResponseError: if it cannot be known which replica an unfinished conversation or video uses
    """

    def __init__(self, policy: Policy, inventory: Inventory, now: datetime, *, hard: bool) -> None:
        self.now = now
        self.hard = hard
        self.held = inventory.held
        self.history = inventory.history
        self.hard_delete_after = policy.hard_delete_after if hard else None
        self.narrow = policy.narrow
        self.sentinels = frozenset(policy.account.expect_present if policy.account is not None else ())
        self.rules_for = {
            status: tuple(rule for rule in policy.expire if status in rule.status) for status in STATUSES
        }
        self.asks = {rule.rule: f"rule '{escape_line(rule.rule, 60)}' asks for" for rule in policy.expire}
        self.use_counts = frozenset(
            s for rule in policy.expire if rule.unused_for is not None for s in rule.status
        )
        self.models = frozenset(policy.scope.model_names)
        self.filters = [*_filters("scope", policy.scope), *_filters("narrow", policy.narrow)]
        self.keep = policy.keep
        self.protected = frozenset(policy.keep.protected_ids)
        self.in_use: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self._last_used: dict[str, datetime] = {}
        self._use_doubts: dict[str, tuple[str, str]] = {}
        self._nameless: tuple[datetime, str] | None = None
        self._read_use(inventory)
        if not policy.needs >= {"conversations", "videos"}:
            self._last_used.clear()  # from one list alone it would look too long ago
            self._nameless = None

    def _read_use(self, use: Inventory) -> None:
        default_of = {persona.persona_id: persona.replica_id for persona in use.personas}
        if "persona" in self.keep.in_use:
            for persona_id, replica_id in sorted(default_of.items()):
                if replica_id is not None:
                    self.in_use.setdefault(replica_id, f"is the default of persona {escape_line(persona_id)}")
        for kind, activities in ((Conversation.kind, use.conversations), (Video.kind, use.videos)):
            guarded = kind in self.keep.in_use
            busy = []
            for activity in activities:
                replica_id = activity.replica_id or default_of.get(activity.persona_id or "")
                active = guarded and not activity.is_finished
                if replica_id is not None:
                    self._note_use(replica_id, kind, activity)
                    if active:
                        busy.append((activity.activity_id, activity.status or "", replica_id))
                elif active:
                    status = escape_line(activity.status or "of unknown status", 40)
                    raise TavusInvalidResponseError(
                        f"{kind} {escape_line(activity.activity_id)} is {status} and does not say which replica "
                        "it uses; nothing may be deleted"
                    )
                else:
                    seen = (
                        min(activity.used_at or self.now, self.now),
                        f"{kind} {escape_line(activity.activity_id)}",
                    )
                    self._nameless = max(seen, self._nameless or seen)
            for activity_id, status, replica_id in sorted(busy):  # so that the order listed does not show
                shown = f"{kind} {escape_line(activity_id)}"
                if kind == "conversation" and status == "active":
                    self.in_use.setdefault(replica_id, f"is in active {shown}")
                else:
                    state = escape_line(status, 40) or "of unknown status"
                    self.in_use.setdefault(replica_id, f"is in {shown}, which is {state}")

    def _note_use(self, replica_id: str, kind: str, activity: Activity) -> None:
        at = activity.used_at
        if at is None or at > self.now:
            why = "has no readable date" if at is None else "is dated in the future"
            doubt = (activity.activity_id, f"{kind} {escape_line(activity.activity_id)} {why}")
            self._use_doubts[replica_id] = min(doubt, self._use_doubts.get(replica_id, doubt))
        elif at > self._last_used.get(replica_id, LONG_AGO):
            self._last_used[replica_id] = at

    def case(self, replica: Replica) -> Case:
        """Return what is so of one replica."""
        replica_id, created = replica.replica_id, replica.created_at
        age = max(self.now - created, ZERO) if created is not None else ZERO
        idle, perhaps = age, None
        used = self._last_used.get(replica_id)
        use_doubt = self._use_doubts.get(replica_id)
        if use_doubt is not None:
            idle, used = ZERO, None
        else:
            if used is not None:
                idle = min(age, self.now - used)
            if self._nameless is not None and self.now - self._nameless[0] < idle:
                idle = self.now - self._nameless[0]
                perhaps = f"{self._nameless[1]} does not say by which replica it was made"
        rule = None
        for one in self.rules_for.get(replica.status or "", ()):
            if _holds(one, age, idle):
                rule = one
                break
        doubt = _doubt(replica, None if use_doubt is None else use_doubt[1], self)
        return Case(replica, age, idle, used, perhaps, _outside(replica, self), doubt, rule)

    def rank(self, cases: Iterable[Case]) -> None:
        """
        Find the newest of each group, expired or not.

        What is in doubt takes nobody's place, nor does what was deleted softly and is listed still.
        """
        limit = self.keep.keep_last
        if limit is None:
            return
        pattern = None if self.keep.group_by is None else re.compile(self.keep.group_by)
        groups: defaultdict[tuple[str, str | None], list[Replica]] = defaultdict(list)
        for case in cases:
            replica = case.replica
            if replica.replica_type != "user" or case.outside or case.doubt:
                continue
            if replica.replica_id in self.history.soft_deleted:
                continue
            if pattern is None:
                groups["", None].append(replica)
                continue
            match = pattern.search(replica.replica_name or "")
            found = match["group"] if match else None
            groups["" if found is not None else replica.replica_id, found].append(replica)
        for (own, found), members in groups.items():
            group = f" in group '{escape_line(found, 40)}'" if found is not None else ""
            group = " in a group of its own" if own else group
            members.sort(key=lambda replica: replica.replica_id)
            members.sort(key=lambda replica: replica.created_at or LONG_AGO, reverse=True)
            for place, replica in enumerate(members[:limit], start=1):
                self.places[replica.replica_id] = (
                    f"number {place} of {len(members)}{group}, newest first, keep_last is {limit}"
                )


class _Filter(NamedTuple):
    include: tuple[Callable[[str], object], ...]
    exclude: tuple[tuple[str, Callable[[str], object]], ...]
    wanted: str


def _filters(where: str, scope: Names) -> Iterator[_Filter]:
    def compiled(glob: str) -> Callable[[str], object]:
        # What fnmatchcase does. Composed, for a Mac writes "é" as two characters and a keyboard as one.
        return re.compile(fnmatch.translate(normalize("NFC", glob))).match

    include = () if "*" in scope.include else scope.include
    if include or scope.exclude:
        shown = {glob: f"'{escape_line(glob, 60)}'" for glob in (*include, *scope.exclude)}
        yield _Filter(
            include=tuple(compiled(glob) for glob in include),
            exclude=tuple((f"{where}.exclude {shown[glob]}", compiled(glob)) for glob in scope.exclude),
            wanted=f"{where}.include {escape_line(', '.join(shown[glob] for glob in include), 120)}",
        )


def _outside(replica: Replica, facts: Facts) -> str | None:
    if facts.models and replica.model_name not in facts.models:
        return f"model_name is {said(replica.model_name)}, not one of scope.model_names"
    if not facts.filters:
        return None
    name = normalize("NFC", replica.replica_name or "")
    if not name.strip():
        return "has no name to check against the scope"
    for include, exclude, wanted in facts.filters:
        for glob, matches in exclude:
            if matches(name):
                return f"name matches {glob}"
        if include and not any(matches(name) for matches in include):
            return f"name does not match {wanted}"
    return None


def _doubt(replica: Replica, use_doubt: str | None, facts: Facts) -> str | None:
    created, unreadable = replica.created_at, replica.unreadable
    if unreadable:
        for key in ("created_at", "replica_name", "status"):
            if key in unreadable:
                return escape_line(unreadable[key])
    if created is None:
        return "created_at is not given"
    if created > facts.now:
        return f"created_at {created:%Y-%m-%dT%H:%M:%SZ} is in the future"
    if replica.status not in STATUSES:
        return f"status is {said(replica.status)}, not one of {', '.join(STATUSES)}"
    if replica.status == "error":
        if "updated_at" in unreadable:  # if it is missing, created_at is used instead
            return escape_line(unreadable["updated_at"])
        if replica.updated_at is not None and replica.updated_at > facts.now:
            return f"updated_at {replica.updated_at:%Y-%m-%dT%H:%M:%SZ} is in the future"
    if use_doubt is not None and replica.status in facts.use_counts:
        return f"last use is unknown: {use_doubt}"
    return None


def _holds(rule: Rule, age: timedelta, idle: timedelta) -> bool:
    """Whether all conditions of a rule do."""
    older_than, unused_for = rule.older_than, rule.unused_for
    return (older_than is None or age >= older_than.delta) and (
        unused_for is None or idle >= unused_for.delta
    )


def said(value: str | None) -> str:
    """Return a word of Tavus as it is quoted in a reason."""
    return "not given" if value is None else f"'{escape_line(value, 40)}'"
