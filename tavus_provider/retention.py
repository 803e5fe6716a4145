"""
Which replicas may go and which stay, and for each of them one sentence that says why.

A policy decides and does nothing else: no I/O, no clock, neither Airflow nor HTTP. What it is not
sure of stays. ``_LADDER`` is the order in which it decides.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple, Self
from unicodedata import normalize

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from tavus_provider.digest import canonical_digest
from tavus_provider.exceptions import BadAnswer, InvalidInput
from tavus_provider.policy import (
    KINDS,
    NO_TIME,
    STATUSES,
    ZERO,
    AccountCheck,
    Duration,
    Keep,
    LegalHolds,
    Limits,
    Names,
    Narrow,
    OptionalDuration,
    OrDefault,
    Part,
    Rule,
    Scope,
    Text,
    as_list,
    show,
)
from tavus_provider.replica import Activity, Persona, Replica, one_line

# Tavus refunds a failed training, but not if its replica is deleted before the failure was registered.
REFUND_WINDOW: Final = timedelta(hours=72)

# Every other status of a conversation or a video is use, an unknown one too.
_AT_REST: Final = {"conversation": {"ended"}, "video": {"ready", "deleted", "error"}}
_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)


class RetentionPolicy(Part):
    """
    What may go, what stays, and how much one run may delete; made by :meth:`read`.

    ``narrow`` is a second scope, what a trigger form said. A replica must pass both, so that a form
    can only make a run smaller. ``hard_delete_after`` lets a permanent plan name what was deleted softly
    that long ago.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"expire": {"contains": {"required": ["grace"]}}}, "required": ["expire"]},
            "then": {"required": ["name"]},
        }
    )

    name: Annotated[Text, OrDefault("retention")] = "retention"
    """What the policy is called; the schedule of a policy with grace is kept under this name."""
    expire: Annotated[tuple[Rule, ...], BeforeValidator(as_list), Field(json_schema_extra={"minItems": 1})]
    """What may go: a replica that one of these rules matches and nothing keeps."""
    scope: Scope = Scope()
    narrow: Narrow = Narrow()
    keep: Keep = Keep()
    legal_holds: LegalHolds | None = None
    account: AccountCheck | None = None
    hard_delete_after: OptionalDuration = None
    """When what was deleted softly by this package comes into a plan for permanent deletes."""
    limits: Annotated[Limits, OrDefault(Limits())] = Limits()

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
                raise ValueError(f"{times} rules are named {show(name)}, give each a name of its own")
        return rules

    @model_validator(mode="after")
    def _schedule_has_a_name(self) -> Self:
        if self.has_grace and "name" not in self.model_fields_set:
            raise ValueError("name is missing: the schedule of a policy with grace is kept under its name")
        return self

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
            problems = _in_plain_words(error)
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InvalidInput(f"policy: {'; '.join(problems[:5])}{more}")

    @classmethod
    def faults(cls, value: object) -> list[str]:
        """Return all that is wrong with a policy, or without effect in it, one sentence each; or nothing."""
        try:
            return cls.model_validate(value).contradictions()
        except ValidationError as error:
            return _in_plain_words(error)

    def as_json(self) -> dict[str, Any]:
        """Return the whole policy with its defaults; :meth:`read` makes the same policy of it again."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        return canonical_digest(self.as_json())

    def contradictions(self) -> list[str]:
        """Return one sentence for each part of the policy that can never have an effect."""
        found = []
        for at, rule in enumerate(self.expire):
            before = next((one for one in self.expire[:at] if one.comes_before(rule)), None)
            if before is not None:
                found.append(
                    f"expire.{at}: rule {show(rule.rule)} can never decide, for whatever it matches is "
                    f"matched by rule {show(before.rule)} before it: put it first or leave it out"
                )
        include, exclude = set(self.scope.include), set(self.scope.exclude)
        if "*" in exclude or (include and include <= exclude):
            found.append("scope: excludes all that it includes, so no rule can ever match")
        return found

    @property
    def has_grace(self) -> bool:
        """Whether a rule lets time pass between the announcement and the delete."""
        return any(rule.grace is not None for rule in self.expire)

    @property
    def needs(self) -> frozenset[str]:
        """Which of personas, conversations and videos :meth:`decide` must be given, each complete."""
        kinds = (
            set(KINDS) if any(rule.unused_for is not None for rule in self.expire) else set(self.keep.in_use)
        )
        if "conversation" in kinds:
            kinds.add("persona")  # a conversation may name no replica and use the default of its persona
        return frozenset(f"{kind}s" for kind in kinds)

    def decide(
        self,
        replicas: Iterable[Replica],
        use: Use,
        *,
        now: datetime,
        hard: bool = False,
        known: Known | None = None,
    ) -> Decision:
        """
        Give every replica its verdict.

        :param replicas: the complete listing
        :param use: the complete lists that :attr:`needs` names
        :param now: the time by the wall clock, aware
        :param hard: whether it is for permanent deletes
        :param known: who is held, scheduled and soft-deleted; nobody if left out
        :raises BadAnswer: if an id was listed twice, it cannot be known which replica is in use, or a
            replica of ``account.expect_present`` is not listed
        """
        facts, cases = self._facts(replicas, use, now, hard=hard, known=known)
        listed = {case.replica.replica_id for case in cases}
        verdicts = [_verdict(case, facts) for case in cases]
        verdicts += _no_longer_listed(facts, listed)
        return Decision(tuple(sorted(verdicts, key=_reading_order)), self.limits)

    def explain(
        self,
        replica_id: str,
        replicas: Iterable[Replica],
        use: Use,
        *,
        now: datetime,
        hard: bool = False,
        known: Known | None = None,
    ) -> list[Asked]:
        """
        Return what each rung of the ladder says of one replica, from the top; the first reason decides.

        Arguments and errors as for :meth:`decide`; empty if the replica is not listed.
        """
        facts, cases = self._facts(replicas, use, now, hard=hard, known=known)
        asked: list[Asked] = []
        for case in cases:
            if case.replica.replica_id == replica_id:
                for step in _LADDER:
                    asked.append(Asked(step.rung, step.word, step.asks(case, facts)))
                    if step.word == "undetermined" and asked[-1].reason is not None:
                        break  # below doubt a rung would answer from what is in doubt
        return asked

    def _facts(
        self, replicas: Iterable[Replica], use: Use, now: datetime, *, hard: bool, known: Known | None
    ) -> tuple[_Facts, list[_Case]]:
        if not isinstance(now, datetime) or now.utcoffset() is None:
            raise InvalidInput(f"now must be a datetime with a time zone, not {show(str(now))}")
        now = now.astimezone(UTC)
        now = datetime.combine(now.date(), now.time(), UTC)  # pendulum's would do sums in its own way
        facts = _Facts(self, use, now, hard=hard, known=known or Known())
        cases = [facts.case(replica) for replica in replicas]
        listed = {case.replica.replica_id for case in cases}
        if len(listed) < len(cases):
            (replica_id, _), *_ = Counter(case.replica.replica_id for case in cases).most_common(1)
            raise BadAnswer(f"replica {one_line(replica_id)} was listed twice; nothing may be deleted")
        if missing := sorted(facts.sentinels - listed):
            raise BadAnswer(
                f"account.expect_present names {', '.join(missing[:3])}, not listed here: it is the wrong "
                "account, or a replica is gone that should not be; nothing may be deleted"
            )
        facts.rank(cases)
        return facts, cases


def _in_plain_words(error: ValidationError) -> list[str]:
    problems = []
    for detail in error.errors(include_url=False):
        where = ".".join(str(step) for step in detail["loc"])
        said = detail.get("ctx", {}).get("error")
        if said is None:
            said = "is missing" if detail["type"] == "missing" else f"{show(detail['input'])} cannot be used"
        problems.append(f"{where}: {said}" if where else str(said))
    return problems


# --- facts: what the rungs need, gathered once per decision -------------------------------------------


@dataclass(frozen=True, slots=True)
class Use:
    """The personas, conversations and videos of the account."""

    personas: Sequence[Persona]
    conversations: Sequence[Activity]
    videos: Sequence[Activity]


@dataclass(frozen=True, slots=True)
class Known:
    """
    What is known from elsewhere than Tavus.

    :param held: ids under a legal hold
    :param scheduled: since when each id has been scheduled without a break, under this policy
    :param soft_deleted: when this package deleted each id softly, as its ledger tells
    """

    held: frozenset[str] = frozenset()
    scheduled: Mapping[str, datetime] = field(default_factory=dict)
    soft_deleted: Mapping[str, datetime] = field(default_factory=dict)


class _Case(NamedTuple):
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


class _Facts:
    def __init__(self, policy: RetentionPolicy, use: Use, now: datetime, *, hard: bool, known: Known) -> None:
        self.now = now
        self.hard = hard
        self.known = known
        self.hard_delete_after = policy.hard_delete_after if hard else None
        self.narrow = policy.narrow
        self.sentinels = frozenset(policy.account.expect_present if policy.account is not None else ())
        self.rules_for = {
            status: tuple(rule for rule in policy.expire if status in rule.status) for status in STATUSES
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
        return _Case(replica, age, idle, used, perhaps, _outside(replica, self), doubt, rule)

    def rank(self, cases: Iterable[_Case]) -> None:
        """Find the newest of each group, expired or not; what is in doubt takes nobody's place."""
        limit = self.keep.keep_last
        if limit is None:
            return
        pattern = None if self.keep.group_by is None else re.compile(self.keep.group_by)
        groups: defaultdict[tuple[str, str | None], list[Replica]] = defaultdict(list)
        for case in cases:
            replica = case.replica
            if _not_user(case, self) or case.outside or case.doubt:
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


def _filters(where: str, scope: Names) -> Iterator[_Filter]:
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
    return case.outside


def _outside(replica: Replica, facts: _Facts) -> str | None:
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


def _younger_than_asked(case: _Case, facts: _Facts) -> str | None:
    limit = facts.narrow.older_than
    if limit is None or case.replica.created_at is None or case.age >= limit.delta:
        return None
    return f"{limit.of(case.age)} old, narrow.older_than is {limit}"


def _held(case: _Case, facts: _Facts) -> str | None:
    return "is under legal hold" if case.replica.replica_id in facts.known.held else None


def _undetermined(case: _Case, facts: _Facts) -> str | None:
    return case.doubt


def _doubt(replica: Replica, use_doubt: str | None, facts: _Facts) -> str | None:
    created, doubts = replica.created_at, replica.doubts
    if doubts:
        for key in ("created_at", "replica_name", "status"):
            if key in doubts:
                return one_line(doubts[key])
    if created is None:
        return "created_at is not given"
    if created > facts.now:
        return f"created_at {created:%Y-%m-%dT%H:%M:%SZ} is in the future"
    if replica.status not in STATUSES:
        return f"status is {_said(replica.status)}, not one of {', '.join(STATUSES)}"
    if replica.status == "error":
        doubt = doubts.get("updated_at", _NOT_GIVEN)
        if doubt != _NOT_GIVEN:  # where there is no date at all, created_at takes its place
            return one_line(doubt)
        if replica.updated_at is not None and replica.updated_at > facts.now:
            return f"updated_at {replica.updated_at:%Y-%m-%dT%H:%M:%SZ} is in the future"
    if use_doubt is not None and replica.status in facts.use_counts:
        return f"last use is unknown: {use_doubt}"
    return None


def _protected(case: _Case, facts: _Facts) -> str | None:
    if case.replica.replica_id in facts.protected:
        return "is in keep.protected_ids"
    return "is in account.expect_present" if case.replica.replica_id in facts.sentinels else None


def _soft_deleted(case: _Case, facts: _Facts) -> str | None:
    since = facts.known.soft_deleted.get(case.replica.replica_id)
    if since is None or (facts.hard and facts.hard_delete_after is None):
        return None
    if facts.hard_delete_after is None:
        return f"soft-deleted on {since:%Y-%m-%d}, still listed"
    if facts.now - since >= facts.hard_delete_after.delta:
        return None
    return f"{_since(since, facts)}, hard_delete_after is {facts.hard_delete_after}"


def _due_for_good(case: _Case, facts: _Facts) -> str | None:
    since, limit = facts.known.soft_deleted.get(case.replica.replica_id), facts.hard_delete_after
    if since is None or limit is None or facts.now - since < limit.delta:
        return None
    if _protected(case, facts) is not None or _in_use(case, facts) is not None:
        return None
    return f"{_since(since, facts)}, hard_delete_after is {limit}"


def _since(since: datetime, facts: _Facts) -> str:
    days = (facts.now - since).days
    return f"soft-deleted by this package {days} day{'s' * (days != 1)} ago"


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


def _scheduled(case: _Case, facts: _Facts) -> str | None:
    rule = case.rule
    if rule is None or rule.grace is None or facts.now >= (due := _due_at(case, rule, facts)):
        return None
    return f"{_expired(case, facts)}; grace of {rule.grace} ends on {due:%Y-%m-%d at %H:%M} UTC"


def _due_at(case: _Case, rule: Rule, facts: _Facts) -> datetime:
    since = facts.known.scheduled.get(case.replica.replica_id, facts.now)
    return min(since, facts.now) + (rule.grace or NO_TIME).delta


def _expired(case: _Case, facts: _Facts) -> str | None:
    if case.rule is None:
        return None
    return "; ".join([f"{so}, limit is {limit}" for so, limit, _ in _conditions(case.rule, case)])


def _not_expired(case: _Case, facts: _Facts) -> str | None:
    rules = facts.rules_for.get(case.replica.status or "")
    if not rules:
        return f"no rule matches status '{case.replica.status}'"
    nearest = rules[0] if len(rules) == 1 else min(rules, key=lambda rule: _wait(rule, case))
    asks = facts.asks[nearest.rule]
    conditions = _conditions(nearest, case)
    return "; ".join([f"{so}, {asks} {limit}" for so, limit, reached in conditions if not reached])


class _Step(NamedTuple):
    rung: str
    word: str
    asks: Callable[[_Case, _Facts], str | None]


# From the top; the first rung that answers decides, the last one always does.
_LADDER: Final = (
    _Step("out_of_scope", "not_user", _not_user),
    _Step("out_of_scope", "out_of_scope", _out_of_scope),
    _Step("held", "held", _held),
    # What must go, as opposed to what may, stands here: below a hold, above doubt and preference.
    _Step("kept", "soft_deleted", _soft_deleted),
    _Step("expired", "hard_delete_after", _due_for_good),
    _Step("undetermined", "undetermined", _undetermined),
    _Step("kept", "protected", _protected),
    _Step("kept", "in_use", _in_use),
    _Step("kept", "training", _training),
    _Step("kept", "failed_recently", _failed_recently),
    _Step("kept", "keep_within", _keep_within),
    _Step("kept", "keep_last", _keep_last),
    _Step("kept", "too_young", _younger_than_asked),
    _Step("scheduled", "scheduled", _scheduled),
    _Step("expired", "expired", _expired),
    _Step("not_expired", "not_expired", _not_expired),
)
_HOURS: Final = Duration("72h", REFUND_WINDOW)
_NOT_GIVEN: Final = "updated_at is not given"


def _answers(case: _Case, facts: _Facts) -> Iterator[tuple[str, str, str]]:
    """Rung, word and reason of each rung that answers, from the top."""
    for rung, word, asks in _LADDER:
        reason = asks(case, facts)
        if reason is not None:
            yield rung, word, reason


def _verdict(case: _Case, facts: _Facts) -> Verdict:
    answers = _answers(case, facts)
    rung, word, reason = next(answers)
    rule = case.rule if word in ("expired", "scheduled") else None
    # Below doubt a rung would answer from what is in doubt.
    against = next(answers, None) if rung in ("held", "kept") else None
    created = case.replica.created_at
    return Verdict(
        replica=case.replica,
        rung=rung,
        word=word,
        reason=reason,
        otherwise=None if against is None else f"{against[1]}: {against[2]}",
        rule=word if word == "hard_delete_after" else None if rule is None else rule.rule,
        age_days=None if created is None or created > facts.now else case.age.days,
        last_used_at=case.last_used_at,
        due_at=None if rule is None or rule.grace is None else _due_at(case, rule, facts),
    )


def _no_longer_listed(facts: _Facts, listed: Set[str]) -> Iterator[Verdict]:
    """What was soft-deleted and is due for good, whether or not Tavus still lists it."""
    if facts.narrow != Narrow():
        return  # without a name or a date it cannot be told if the form means it
    for replica_id in sorted(facts.known.soft_deleted.keys() - listed):
        case = facts.case(Replica(replica_id))
        if (for_good := _due_for_good(case, facts)) is None:
            continue
        held = _held(case, facts)
        yield Verdict(
            replica=case.replica,
            rung="expired" if held is None else "held",
            word="hard_delete_after" if held is None else "held",
            reason=f"{for_good}; no longer listed" if held is None else held,
            otherwise=None if held is None else f"hard_delete_after: {for_good}",
            rule="hard_delete_after" if held is None else None,
            listed=False,
        )


def _holds(rule: Rule, age: timedelta, idle: timedelta) -> bool:
    """Whether all conditions of a rule do."""
    older_than, unused_for = rule.older_than, rule.unused_for
    return (older_than is None or age >= older_than.delta) and (
        unused_for is None or idle >= unused_for.delta
    )


def _wait(rule: Rule, case: _Case) -> timedelta:
    """How long it takes until all conditions of a rule hold; none if they do."""
    age = rule.older_than.delta - case.age if rule.older_than is not None else ZERO
    idle = rule.unused_for.delta - case.idle if rule.unused_for is not None else ZERO
    return max(age, idle, ZERO)


def _conditions(rule: Rule, case: _Case) -> Iterator[tuple[str, Duration, bool]]:
    """What is so, the limit to hold it against, and if the limit is reached."""
    if (limit := rule.older_than) is not None:
        yield f"{limit.of(case.age)} old", limit, case.age >= limit.delta
    if (limit := rule.unused_for) is not None:
        idle = limit.of(case.idle)
        if case.perhaps is not None:
            said = f"perhaps used {idle} ago, {case.perhaps}"
        elif case.last_used_at is None:
            said = f"never used since it was created {idle} ago"
        else:
            said = f"unused for {idle}"
        yield said, limit, case.idle >= limit.delta


def _said(value: str | None) -> str:
    return "not given" if value is None else f"'{one_line(value, 40)}'"


# --- what comes of it ---------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What one rung of the ladder says of a replica; ``reason`` is ``None`` if it says nothing."""

    rung: str
    word: str
    reason: str | None


class Verdict(NamedTuple):
    """
    What was decided about one replica, and why.

    :param rung: out_of_scope, held, undetermined, kept, scheduled, expired or not_expired; what is
        ``expired`` may be deleted, nothing else
    :param word: what reports count by
    :param reason: one sentence that a person can check
    :param otherwise: what would have decided had this reason not been; ``None`` if nothing would
    :param age_days: whole days since it was created; ``None`` if that is in doubt
    :param last_used_at: ``None`` if it was never used, and where use was not read or is in doubt
    :param due_at: when its grace ends or ended; ``None`` if its rule has none
    :param listed: whether Tavus listed it; if not, it comes from the ledger
    """

    replica: Replica
    rung: str
    word: str
    reason: str
    otherwise: str | None = None
    rule: str | None = None
    age_days: int | None = None
    last_used_at: datetime | None = None
    due_at: datetime | None = None
    listed: bool = True


def _reading_order(verdict: Verdict) -> tuple[Any, ...]:
    replica_id = verdict.replica.replica_id
    if verdict.rung == "expired":
        return 0, verdict.replica.created_at or _LONG_AGO, replica_id
    if verdict.rung == "scheduled":
        return 1, verdict.due_at, replica_id
    return 2 if verdict.rung == "undetermined" else 3, verdict.word, replica_id


@dataclass(frozen=True, slots=True)
class Decision:
    """
    One verdict for every replica that was listed, in an order that does not depend on the listing.

    First what is expired, the oldest first, then what is scheduled, the next one first, then what is
    undetermined, then the others by word.
    """

    verdicts: tuple[Verdict, ...]
    limits: Limits

    @property
    def listed(self) -> int:
        """How many replicas Tavus listed."""
        return sum(verdict.listed for verdict in self.verdicts)

    @property
    def delete(self) -> tuple[Verdict, ...]:
        """What may go now."""
        return self._on("expired")

    @property
    def scheduled(self) -> tuple[Verdict, ...]:
        """What has expired and goes when its grace is over."""
        return self._on("scheduled")

    @property
    def undetermined(self) -> tuple[Verdict, ...]:
        """What stays because it is in doubt."""
        return self._on("undetermined")

    @property
    def keep(self) -> dict[str, int]:
        """How many of the others stay for which word."""
        counts = Counter(v.word for v in self.verdicts if v.rung not in _SHOWN_APART)
        return dict(sorted(counts.items()))

    @property
    def breach(self) -> str | None:
        """The sentence that forbids to carry this out, if a limit is passed."""
        return self.limits.breach(
            delete=len(self.delete), listed=self.listed, undetermined=len(self.undetermined)
        )

    def _on(self, rung: str) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.rung == rung)


_SHOWN_APART: Final = frozenset({"expired", "scheduled", "undetermined"})
