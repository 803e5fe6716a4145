"""
Which replicas may go and which stay, and for each of them one sentence that says why.

A policy decides and does nothing else: no I/O, no clock, neither Airflow nor HTTP. What it is not
sure of stays. ``_LADDER`` is the order in which it decides.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple
from unicodedata import normalize

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from tavus_provider.exceptions import BadAnswer, InvalidInput
from tavus_provider.replica import Activity, Persona, Replica, check_replica_id, one_line

# Tavus refunds a failed training, but not if its replica is deleted before the failure was registered.
REFUND_WINDOW: Final = timedelta(hours=72)

_STATUSES: Final = ("started", "completed", "error")
_KINDS: Final = ("persona", "conversation", "video")
# Every other status of a conversation or a video is use, an unknown one too.
_AT_REST: Final = {"conversation": {"ended"}, "video": {"ready", "deleted", "error"}}
_UNITS: Final = {
    "w": (timedelta(weeks=1), "week"),
    "d": (timedelta(days=1), "day"),
    "h": (timedelta(hours=1), "hour"),
    "m": (timedelta(minutes=1), "minute"),
}
_ZERO: Final = timedelta()
_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)


def canonical_digest(value: Mapping[str, Any]) -> str:
    """Return the sha256 hex of ``value`` as JSON with sorted keys, no spaces, in UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# --- reading a policy: each reader returns the value or raises the sentence that the user will see ----


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time, written back as it was read: ``90d``, ``12h``, ``30m``, ``2w``."""

    text: str
    delta: timedelta

    def __str__(self) -> str:
        return self.text

    def of(self, age: timedelta) -> str:
        """Say ``age`` in the unit of this limit, rounded down, so that a person can compare the two."""
        unit, word = _UNITS[self.text[-1]]
        count = age // unit
        return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _show(value: object) -> str:
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"
    shown = ascii(value[:40] if isinstance(value, str) else value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _duration(value: object) -> Duration:
    if isinstance(value, Duration):
        return value
    said, units = _show(value), "(units: w, d, h, m)"
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    if re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise ValueError(f"{said} has no unit, write {text}d {units}")
    match = re.fullmatch("0*([0-9]{1,9})([wdhm])", text)
    if match is None:
        raise ValueError(f"{said} is not a duration, write one number and one unit such as 90d {units}")
    delta = int(match[1]) * _UNITS[match[2]][0]
    if not _ZERO < delta <= timedelta(days=36500):
        raise ValueError(f"{said} is not above zero and at most 36500d")
    return Duration(text, delta)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_show(value)} is not text")
    if not value.strip() or value == "None":
        raise ValueError(f"{_show(value)} is blank, or what a template makes of a missing value")
    if value != value.strip() or not value.isprintable():
        raise ValueError(f"{_show(value)} begins or ends with a space or holds an invisible character")
    return value


def _id(value: object) -> str:
    try:
        return check_replica_id(value)
    except InvalidInput:
        pass
    raise ValueError(f"{_show(value)} is not a replica id such as 'rf4e9d9790f0'")


def _pattern(value: object) -> str:
    text = _text(value)
    try:
        groups = re.compile(text).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{_show(value)} is not a regular expression: {one_line(str(error), 80)}") from None
    if "group" not in groups:
        raise ValueError(f"{_show(value)} has no group named 'group', write (?P<group>...)")
    return text


def _list(value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{_show(value)} is not a list")
    return tuple(value)


def _some_of(known: Sequence[str]) -> BeforeValidator:
    def read(value: object) -> tuple[object, ...]:
        items = _list(value)
        for at, item in enumerate(items):
            if item not in known:
                raise ValueError(f"{_show(item)} is not one of {', '.join(known)}")
            if item in items[:at]:
                raise ValueError(f"{_show(item)} is named twice")
        return items

    return BeforeValidator(read)


def _whole(low: int, high: int | None = None, hint: str = "") -> BeforeValidator:
    def read(value: object) -> int:
        if type(value) is not int:  # not isinstance: True would be 1
            raise ValueError(f"{_show(value)} is not a whole number")
        if value < low or (high is not None and value > high):
            raise ValueError(f"{_show(value)} is below {low}{f' or above {high}' if high else ''}{hint}")
        return value

    return BeforeValidator(read)


def _default(default: object) -> BeforeValidator:
    """``None`` is refused wherever it would mean that a condition or a guard has gone missing."""
    return BeforeValidator(lambda value: default if value is None else value)


_Duration = Annotated[Duration | None, BeforeValidator(_duration), PlainSerializer(str)]
_Text = Annotated[str, BeforeValidator(_text)]
_Texts = Annotated[tuple[_Text, ...], BeforeValidator(_list)]
_Ids = Annotated[tuple[Annotated[str, BeforeValidator(_id)], ...], BeforeValidator(_list)]


class _Part(BaseModel):
    """A mapping of known keys only: a guard whose name is mistyped must not be a guard left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, value: object) -> object:
        if isinstance(value, cls):
            return value
        known = ", ".join(cls.model_fields)
        if not isinstance(value, Mapping):
            raise ValueError(f"{_show(value)} is not a mapping with keys of: {known}")
        unknown = [_show(key) for key in value if key not in cls.model_fields]
        if unknown:
            raise ValueError(f"unknown key {', '.join(unknown[:5])}; known: {known}")
        return dict(value)


class Rule(_Part):
    """May go: a replica of one of these statuses for which every condition given here holds."""

    rule: _Text = ""  # the policy fills in "rule 1"
    older_than: _Duration = None
    unused_for: _Duration = None
    status: Annotated[tuple[str, ...], _some_of(_STATUSES)] = ("completed", "error")

    @model_validator(mode="after")
    def _asks_something(self) -> Rule:
        if self.older_than is None and self.unused_for is None:
            raise ValueError("has neither older_than nor unused_for, a rule needs one of them")
        if not self.status:
            raise ValueError("status is empty, name at least one or leave it out")
        return self

    def holds(self, case: _Case) -> bool:
        """Whether all conditions do."""
        older_than, unused_for = self.older_than, self.unused_for
        return (older_than is None or case.age >= older_than.delta) and (
            unused_for is None or case.idle >= unused_for.delta
        )

    def wait(self, case: _Case) -> timedelta:
        """How long it takes until all conditions hold; none if they do."""
        age = self.older_than.delta - case.age if self.older_than is not None else _ZERO
        idle = self.unused_for.delta - case.idle if self.unused_for is not None else _ZERO
        return max(age, idle, _ZERO)

    def conditions(self, case: _Case) -> Iterator[tuple[str, Duration, bool]]:
        """What is so, the limit to hold it against, and if the limit is reached."""
        if (limit := self.older_than) is not None:
            yield f"{limit.of(case.age)} old", limit, case.age >= limit.delta
        if (limit := self.unused_for) is not None:
            idle = limit.of(case.idle)
            if case.perhaps is not None:
                said = f"perhaps used {idle} ago, {case.perhaps}"
            elif case.last_used_at is None:
                said = f"never used since it was created {idle} ago"
            else:
                said = f"unused for {idle}"
            yield said, limit, case.idle >= limit.delta


class Narrow(_Part):
    """Globs on the name, case-sensitive. No ``include`` means every name; ``exclude`` wins."""

    include: _Texts = ()
    exclude: _Texts = ()


class Scope(Narrow):
    """What the policy considers at all."""

    model_names: _Texts = ()


class Keep(_Part):
    """What stays although a rule matches."""

    protected_ids: _Ids = ()
    keep_within: _Duration = None
    keep_last: Annotated[int | None, _whole(1, hint=": to keep none by number leave it out")] = None
    group_by: Annotated[str | None, BeforeValidator(_pattern)] = None
    in_use: Annotated[tuple[str, ...], _some_of(_KINDS)] = _KINDS

    @model_validator(mode="after")
    def _groups_for_something(self) -> Keep:
        if self.group_by is not None and self.keep_last is None:
            raise ValueError("group_by without keep_last groups nothing, add keep_last or leave group_by out")
        return self


class Limits(_Part):
    """How much one run may delete; ``0`` allows nothing."""

    max_deletions: Annotated[int, _whole(0)] = 10
    max_deletion_percent: Annotated[int, _whole(0, 100)] = 25

    def breach(self, *, delete: int, listed: int) -> str | None:
        """Return the sentence that names each limit which this many would pass, if any."""
        passed = []
        if delete > self.max_deletions:
            passed.append(f"max_deletions is {self.max_deletions}")
        if 100 * delete > self.max_deletion_percent * listed:
            passed.append(f"max_deletion_percent is {self.max_deletion_percent}")
        if not passed:
            return None
        return (
            f"{delete} of {listed} replicas would be deleted, {' and '.join(passed)}: "
            "narrow the policy or raise the limit in the DAG file; nothing was deleted"
        )


class RetentionPolicy(_Part):
    """
    What may go, what stays, and how much one run may delete; made by :meth:`read`.

    ``narrow`` is a second scope, what a trigger form said. A replica must pass both, so that a form
    can only make a run smaller.
    """

    name: Annotated[_Text, _default("retention")] = "retention"
    expire: Annotated[tuple[Rule, ...], BeforeValidator(_list)]
    scope: Scope = Scope()
    narrow: Narrow = Narrow()
    keep: Keep = Keep()
    limits: Annotated[Limits, _default(Limits())] = Limits()

    @field_validator("expire", mode="after")
    @classmethod
    def _names_of_rules(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if not rules:
            raise ValueError("is empty, name at least one rule")
        rules = tuple(
            rule if rule.rule else rule.model_copy(update={"rule": f"rule {number}"})
            for number, rule in enumerate(rules, start=1)
        )
        for name, times in Counter(rule.rule for rule in rules).items():
            if times > 1:
                raise ValueError(f"{times} rules are named {_show(name)}, give each a name of its own")
        return rules

    @classmethod
    def read(cls, value: object) -> RetentionPolicy:
        """
        Return the policy which a mapping describes.

        :raises InvalidInput: saying on one line what is wrong, and where
        """
        if isinstance(value, cls):
            return value
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            problems = [_in_plain_words(detail) for detail in error.errors(include_url=False)]
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InvalidInput(f"policy: {'; '.join(problems[:5])}{more}")

    def as_json(self) -> dict[str, Any]:
        """Return the whole policy with its defaults; :meth:`read` makes the same policy of it again."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        return canonical_digest(self.as_json())

    @property
    def needs(self) -> frozenset[str]:
        """Which of personas, conversations and videos :meth:`decide` must be given, each complete."""
        kinds = (
            set(_KINDS) if any(rule.unused_for is not None for rule in self.expire) else set(self.keep.in_use)
        )
        if "conversation" in kinds:
            kinds.add("persona")  # a conversation may name no replica and use the default of its persona
        return frozenset(f"{kind}s" for kind in kinds)

    def decide(self, replicas: Iterable[Replica], use: Use, *, now: datetime) -> Decision:
        """
        Give every replica its verdict.

        :param replicas: the complete listing
        :param use: the complete lists that :attr:`needs` names
        :param now: the time by the wall clock, aware
        :raises BadAnswer: if an id was listed twice, or it cannot be known which replica is in use
        """
        if not isinstance(now, datetime) or now.utcoffset() is None:
            raise InvalidInput(f"now must be a datetime with a time zone, not {_show(str(now))}")
        now = now.astimezone(UTC)
        now = datetime.combine(now.date(), now.time(), UTC)  # pendulum's would do sums in its own way
        facts = _Facts(self, use, now)
        cases = [facts.case(replica) for replica in replicas]
        for replica_id, times in Counter(case.replica.replica_id for case in cases).items():
            if times > 1:
                raise BadAnswer(f"replica {one_line(replica_id)} was listed twice; nothing may be deleted")
        facts.rank(cases)
        verdicts = (_verdict(case, facts) for case in cases)
        return Decision(tuple(sorted(verdicts, key=_reading_order)), self.limits)


def _in_plain_words(detail: Any) -> str:
    where = ".".join(str(step) for step in detail["loc"])
    said = detail.get("ctx", {}).get("error")
    if said is None:
        said = "is missing" if detail["type"] == "missing" else f"{_show(detail['input'])} cannot be used"
    return f"{where}: {said}" if where else str(said)


# --- facts: what the rungs need, gathered once per decision -------------------------------------------


@dataclass(frozen=True, slots=True)
class Use:
    """The personas, conversations and videos of the account."""

    personas: Sequence[Persona]
    conversations: Sequence[Activity]
    videos: Sequence[Activity]


class _Case(NamedTuple):
    """One replica at one time. A span that is in doubt is zero, which reaches no limit."""

    replica: Replica
    age: timedelta
    idle: timedelta
    last_used_at: datetime | None
    use_doubt: str | None
    perhaps: str | None = None


class _Facts:
    def __init__(self, policy: RetentionPolicy, use: Use, now: datetime) -> None:
        self.now = now
        self.rules_for = {
            status: tuple(rule for rule in policy.expire if status in rule.status) for status in _STATUSES
        }
        self.asks = {rule.rule: f"rule '{one_line(rule.rule, 60)}' asks for" for rule in policy.expire}
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
        self._read_use(use)
        if not policy.needs >= {"conversations", "videos"}:
            self._last_used.clear()  # from one list alone it would look too long ago
            self._nameless = None

    def _read_use(self, use: Use) -> None:
        default_of = {persona.persona_id: persona.replica_id for persona in use.personas}
        if "persona" in self.keep.in_use:
            for persona_id, replica_id in sorted(default_of.items()):
                if replica_id is not None:
                    self.in_use.setdefault(replica_id, f"is the default of persona {one_line(persona_id)}")
        for kind, activities in (("conversation", use.conversations), ("video", use.videos)):
            guarded, at_rest = kind in self.keep.in_use, _AT_REST[kind]
            busy = []
            for activity in activities:
                replica_id = activity.replica_id or default_of.get(activity.persona_id or "")
                active = guarded and activity.status not in at_rest
                if replica_id is not None:
                    self._note_use(replica_id, kind, activity)
                    if active:
                        busy.append((activity.activity_id, activity.status or "", replica_id))
                elif active:
                    status = one_line(activity.status or "of unknown status", 40)
                    raise BadAnswer(
                        f"{kind} {one_line(activity.activity_id)} is {status} and does not say which replica "
                        "it uses; nothing may be deleted"
                    )
                else:
                    seen = (
                        min(activity.at or self.now, self.now),
                        f"{kind} {one_line(activity.activity_id)}",
                    )
                    self._nameless = max(seen, self._nameless or seen)
            for activity_id, status, replica_id in sorted(busy):  # so that the order listed does not show
                shown = f"{kind} {one_line(activity_id)}"
                if kind == "conversation" and status == "active":
                    self.in_use.setdefault(replica_id, f"is in active {shown}")
                else:
                    state = one_line(status, 40) or "of unknown status"
                    self.in_use.setdefault(replica_id, f"is in {shown}, which is {state}")

    def _note_use(self, replica_id: str, kind: str, activity: Activity) -> None:
        at = activity.at
        if at is None or at > self.now:
            why = "has no readable date" if at is None else "is dated in the future"
            doubt = (activity.activity_id, f"{kind} {one_line(activity.activity_id)} {why}")
            self._use_doubts[replica_id] = min(doubt, self._use_doubts.get(replica_id, doubt))
        elif at > self._last_used.get(replica_id, _LONG_AGO):
            self._last_used[replica_id] = at

    def case(self, replica: Replica) -> _Case:
        created = replica.created_at
        doubt = self._use_doubts.get(replica.replica_id)
        age = max(self.now - created, _ZERO) if created is not None else _ZERO
        if doubt is not None:
            return _Case(replica, age, _ZERO, None, doubt[1])
        used = self._last_used.get(replica.replica_id)
        idle = age if used is None else min(age, self.now - used)
        if self._nameless is not None and self.now - self._nameless[0] < idle:
            at, shown = self._nameless
            perhaps = f"{shown} does not say by which replica it was made"
            return _Case(replica, age, self.now - at, used, None, perhaps)
        return _Case(replica, age, idle, used, None)

    def rank(self, cases: Iterable[_Case]) -> None:
        """Find the newest of each group, expired or not; what is in doubt takes nobody's place."""
        limit = self.keep.keep_last
        if limit is None:
            return
        gates = [step.asks for step in _LADDER if step.rung in {"out_of_scope", "undetermined"}]
        pattern = None if self.keep.group_by is None else re.compile(self.keep.group_by)
        groups: defaultdict[tuple[str, str | None], list[Replica]] = defaultdict(list)
        for case in cases:
            replica = case.replica
            if any(asks(case, self) for asks in gates):
                continue
            if pattern is None:
                groups["", None].append(replica)
                continue
            match = pattern.search(replica.replica_name or "")
            found = match["group"] if match else None
            groups["" if found is not None else replica.replica_id, found].append(replica)
        for (own, found), members in groups.items():
            group = f" in group '{one_line(found, 40)}'" if found is not None else ""
            group = " in a group of its own" if own else group
            members.sort(key=lambda replica: replica.replica_id)
            members.sort(key=lambda replica: replica.created_at or _LONG_AGO, reverse=True)
            for place, replica in enumerate(members[:limit], start=1):
                self.places[replica.replica_id] = (
                    f"number {place} of {len(members)}{group}, newest first, keep_last is {limit}"
                )


class _Filter(NamedTuple):
    include: tuple[Callable[[str], object], ...]
    exclude: tuple[tuple[str, Callable[[str], object]], ...]
    wanted: str


def _filters(where: str, scope: Narrow) -> Iterator[_Filter]:
    def compiled(glob: str) -> Callable[[str], object]:
        # What fnmatchcase does. Composed, for a Mac writes "é" as two characters and a keyboard as one.
        return re.compile(fnmatch.translate(normalize("NFC", glob))).match

    include = () if "*" in scope.include else scope.include
    if include or scope.exclude:
        shown = {glob: f"'{one_line(glob, 60)}'" for glob in (*include, *scope.exclude)}
        yield _Filter(
            include=tuple(compiled(glob) for glob in include),
            exclude=tuple((f"{where}.exclude {shown[glob]}", compiled(glob)) for glob in scope.exclude),
            wanted=f"{where}.include {one_line(', '.join(shown[glob] for glob in include), 120)}",
        )


# --- the ladder: each rung answers with the reason why a replica stops there, or with None -------------


def _not_user(case: _Case, facts: _Facts) -> str | None:
    replica = case.replica
    if "replica_type" in replica.doubts:
        return one_line(replica.doubts["replica_type"])
    if replica.replica_type != "user":
        return f"replica_type is {_said(replica.replica_type)}, not 'user'"
    return None


def _out_of_scope(case: _Case, facts: _Facts) -> str | None:
    replica = case.replica
    if facts.models and replica.model_name not in facts.models:
        return f"model_name is {_said(replica.model_name)}, not one of scope.model_names"
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


def _undetermined(case: _Case, facts: _Facts) -> str | None:
    return next(_doubts(case, facts), None)


def _doubts(case: _Case, facts: _Facts) -> Iterator[str]:
    replica, now = case.replica, facts.now
    for key in ("created_at", "replica_name", "status"):
        if key in replica.doubts:
            yield one_line(replica.doubts[key])
    if replica.created_at is None:
        yield "created_at is not given"
    elif replica.created_at > now:
        yield f"created_at {replica.created_at:%Y-%m-%dT%H:%M:%SZ} is in the future"
    if replica.status not in _STATUSES:
        yield f"status is {_said(replica.status)}, not one of {', '.join(_STATUSES)}"
    if replica.status == "error":
        doubt = replica.doubts.get("updated_at", _NOT_GIVEN)
        if doubt != _NOT_GIVEN:  # where there is no date at all, created_at takes its place
            yield one_line(doubt)
        if replica.updated_at is not None and replica.updated_at > now:
            yield f"updated_at {replica.updated_at:%Y-%m-%dT%H:%M:%SZ} is in the future"
    if case.use_doubt is not None and replica.status in facts.use_counts:
        yield f"last use is unknown: {case.use_doubt}"


def _protected(case: _Case, facts: _Facts) -> str | None:
    return "is in keep.protected_ids" if case.replica.replica_id in facts.protected else None


def _in_use(case: _Case, facts: _Facts) -> str | None:
    return facts.in_use.get(case.replica.replica_id)


def _training(case: _Case, facts: _Facts) -> str | None:
    if case.replica.status != "started" or facts.rules_for["started"]:
        return None
    return "is still in training, and no rule names status 'started'"


def _failed_recently(case: _Case, facts: _Facts) -> str | None:
    if case.replica.status != "error":
        return None
    updated_at = case.replica.updated_at
    since = case.age if updated_at is None else min(case.age, facts.now - updated_at)
    if since >= REFUND_WINDOW:
        return None
    return f"failed {_HOURS.of(since)} ago, a delete within {_HOURS} can lose the refund of the training"


def _keep_within(case: _Case, facts: _Facts) -> str | None:
    limit = facts.keep.keep_within
    return (
        None
        if limit is None or case.age >= limit.delta
        else f"{limit.of(case.age)} old, keep_within is {limit}"
    )


def _keep_last(case: _Case, facts: _Facts) -> str | None:
    return facts.places.get(case.replica.replica_id)


def _expired(case: _Case, facts: _Facts) -> str | None:
    rule = _rule_that_holds(case, facts)
    if rule is None:
        return None
    return "; ".join(f"{so}, limit is {limit}" for so, limit, _ in rule.conditions(case))


def _not_expired(case: _Case, facts: _Facts) -> str | None:
    rules = facts.rules_for.get(case.replica.status or "")
    if not rules:
        return f"no rule matches status '{case.replica.status}'"
    nearest = rules[0] if len(rules) == 1 else min(rules, key=lambda rule: rule.wait(case))
    asks = facts.asks[nearest.rule]
    return "; ".join(
        f"{so}, {asks} {limit}" for so, limit, reached in nearest.conditions(case) if not reached
    )


class _Step(NamedTuple):
    rung: str
    word: str
    asks: Callable[[_Case, _Facts], str | None]


# From the top; the first rung that answers decides, the last one always does.
_LADDER: Final = (
    _Step("out_of_scope", "not_user", _not_user),
    _Step("out_of_scope", "out_of_scope", _out_of_scope),
    # A legal hold will stand here: above all doubt, so that what is held is always shown as held.
    _Step("undetermined", "undetermined", _undetermined),
    _Step("kept", "protected", _protected),
    _Step("kept", "in_use", _in_use),
    _Step("kept", "training", _training),
    _Step("kept", "failed_recently", _failed_recently),
    _Step("kept", "keep_within", _keep_within),
    _Step("kept", "keep_last", _keep_last),
    _Step("expired", "expired", _expired),
    _Step("not_expired", "not_expired", _not_expired),
)
_HOURS: Final = Duration("72h", REFUND_WINDOW)
_NOT_GIVEN: Final = "updated_at is not given"


def _verdict(case: _Case, facts: _Facts) -> Verdict:
    rung, word, reason = next(
        (rung, word, reason) for rung, word, asks in _LADDER if (reason := asks(case, facts)) is not None
    )
    rule = _rule_that_holds(case, facts) if rung == "expired" else None
    created = case.replica.created_at
    return Verdict(
        replica=case.replica,
        rung=rung,
        word=word,
        reason=reason,
        rule=None if rule is None else rule.rule,
        age_days=None if created is None or created > facts.now else case.age.days,
        last_used_at=case.last_used_at,
    )


def _rule_that_holds(case: _Case, facts: _Facts) -> Rule | None:
    for rule in facts.rules_for.get(case.replica.status or "", ()):
        if rule.holds(case):
            return rule
    return None


def _said(value: str | None) -> str:
    return "not given" if value is None else f"'{one_line(value, 40)}'"


# --- what comes of it ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What was decided about one replica, and why.

    ``rung`` is out_of_scope, undetermined, kept, expired or not_expired; what is ``expired`` may be
    deleted, nothing else. ``word`` is what reports count by. ``last_used_at`` is ``None`` if the
    replica was never used, and where use was not read or is in doubt.
    """

    replica: Replica
    rung: str
    word: str
    reason: str
    rule: str | None
    age_days: int | None
    last_used_at: datetime | None


def _reading_order(verdict: Verdict) -> tuple[Any, ...]:
    if verdict.rung == "expired":
        return 0, verdict.replica.created_at, verdict.replica.replica_id
    return 1 if verdict.rung == "undetermined" else 2, verdict.word, verdict.replica.replica_id


@dataclass(frozen=True, slots=True)
class Decision:
    """
    One verdict for every replica that was listed, in an order that does not depend on the listing.

    First what is expired, the oldest first, then what is undetermined, then the others by word.
    """

    verdicts: tuple[Verdict, ...]
    limits: Limits

    @property
    def listed(self) -> int:
        return len(self.verdicts)

    @property
    def delete(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.rung == "expired")

    @property
    def undetermined(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.rung == "undetermined")

    @property
    def keep(self) -> dict[str, int]:
        """How many of the others stay for which word."""
        counts = Counter(v.word for v in self.verdicts if v.rung not in {"expired", "undetermined"})
        return dict(sorted(counts.items()))

    @property
    def breach(self) -> str | None:
        """The sentence that forbids to carry this out, if a limit is passed."""
        return self.limits.breach(delete=len(self.delete), listed=self.listed)
