"""Properties of every policy and every inventory, checked by hypothesis."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tavus_provider.client.listing import Page
from tavus_provider.exceptions import (
    PlanRejectedError,
    ReplicaNotFoundError,
    TavusInvalidResponseError,
    TavusValidationError,
)
from tavus_provider.execution.executor import PlanExecutor
from tavus_provider.execution.inventory import read_inventory
from tavus_provider.models import Activity, Conversation, Persona, Replica, UnreadableRow, Video, parse_row
from tavus_provider.outcomes import Outcome
from tavus_provider.planning.plan import make_plan
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import Decision, evaluate, explain
from tavus_provider.retention.policy import Policy

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
IDS = [f"r{n}" for n in range(7)]
REASON_CODES = {
    "out_of_scope": {"not_user", "out_of_scope"},
    "held": {"held"},
    "undetermined": {"undetermined"},
    "kept": {
        *("protected", "in_use", "training", "failed_recently", "keep_within", "keep_last"),
        *("soft_deleted", "no_hard_delete_after", "too_young"),
    },
    "scheduled": {"scheduled"},
    "expired": {"expired", "hard_delete_after", "quota"},
    "not_expired": {"not_expired"},
}

law = settings(deadline=None, max_examples=120, derandomize=True, database=None)
wide_law = settings(law, max_examples=60)  # each example is large

# Replicas, uses and rules are drawn whole, from tables with few names and dates, so that they concern each
# other. Dates are at a limit, one second before or after it, or in the future.
SPANS = [timedelta(days=d, seconds=s) for d in (200, 90, 30, 3, 1, 0) for s in (0, 1, -1)]
MOMENTS = [NOW - span for span in SPANS]
DURATIONS = ["1d", "72h", "30d", "90d"]

SOUND = [
    {
        "replica_name": name,
        "status": status,
        "replica_type": "user",
        "model_name": model,
        "created_at": created_at,
        "updated_at": updated_at,
    }
    for name, status, model, created_at, updated_at in product(
        ["a_1", "a_2", "b_1", "vip_1", "plain"],
        ["completed", "error", "started"],
        ["phoenix-3", "phoenix-4"],
        [NOW - timedelta(days=400), *MOMENTS],
        [None, NOW - timedelta(days=100), NOW - timedelta(hours=72), NOW - timedelta(hours=71)],
    )
]
ODD = [
    {**SOUND[0], **facts}
    for facts in (
        *({"replica_type": word} for word in ("system", "user'", None)),
        *({"status": word} for word in ("ready", "x\n::y::\u202e", None)),
        *({"replica_name": word} for word in ("x\n::y::\u202e", "", None)),
        {"created_at": None},
        {"created_at": NOW + timedelta(seconds=1)},
        {"status": "error", "updated_at": NOW + timedelta(days=1)},
        *(
            {"unreadable": {key: f"{key} is\nodd"}, "status": "error"}
            for key in ("created_at", "updated_at", "status", "replica_name", "replica_type", "model_name")
        ),
    )
]
# One in four is unusual in some way; the others are deleted unless the policy keeps them.
sound, odd = st.sampled_from(SOUND), st.sampled_from(ODD)
rows_of_facts = st.sampled_from([sound, sound, sound, odd]).flatmap(lambda table: table)
listings = st.lists(rows_of_facts, max_size=7).map(
    lambda rows: [Replica(replica_id, **facts) for replica_id, facts in zip(IDS, rows, strict=False)]
)


def activities(kind: type[Activity], states: list[str | None]) -> st.SearchStrategy[list[Activity]]:
    moments = [NOW - timedelta(days=100), NOW - timedelta(days=90), NOW, NOW + timedelta(seconds=1), None]
    table = [kind(*row) for row in product(["k1", "k\n2"], IDS, ["p1", None], states, moments)]
    return st.lists(st.sampled_from(table), max_size=2)


uses = st.builds(
    Inventory,
    st.just(()),
    personas=st.sampled_from(
        [[], [Persona("p1", None)], [Persona("p1", "r1")], [Persona("p2", "r2"), Persona("p1", "r2")]]
    ),
    conversations=activities(Conversation, ["ended", "ended", "active", None]),
    videos=activities(Video, ["ready", "deleted", "error", "generating", "new word"]),
)
unreadables = st.lists(
    st.sampled_from(
        [
            parse_row(Replica, None),
            parse_row(Replica, {"replica_id": "r1", "face_id": "r2"}),
            parse_row(Replica, {"replica_id": "r1", "replica_name": "a_1", "face_name": "b_1"}),
            parse_row(Persona, {"pal_id": 7, "default_replica_id": "r2"}),
            parse_row(Persona, {"persona_id": "p1", "default_face_id": 7}),
            parse_row(Conversation, {"replica_id": "r1", "status": "active"}),
            parse_row(Conversation, {"persona_id": "p1", "status": "active"}),
            parse_row(Conversation, {"status": "ended"}),
            parse_row(Video, {"replica_id": ["r1"], "status": "ready"}),
            parse_row(Video, "v1"),
        ]
    ),
    max_size=3,
)
RULE_NAMES = [
    {"names": {"include": ["a_*"]}},
    {"names": {"exclude": ["a_1", "vip_*"]}},
    {"names": {"include": ["?_*"], "exclude": ["*_2"]}, "model_names": ["phoenix-3"]},
    {"model_names": ["phoenix-3", "phoenix-4"]},
]
RULES = [
    {key: value for key, value in zip(("older_than", "unused_for", "status"), row, strict=True) if value}
    for row in product(
        [*DURATIONS, None], [None, None, *DURATIONS], [None, None, ["error"], ["started", "completed"]]
    )
    if row[0] or row[1]
]
RULES += [{**rule, **names} for rule in RULES[::4] for names in RULE_NAMES]
SCOPES = [
    {},
    {},
    {"include": ["*"]},
    {"include": ["a_*", "b_*"]},
    {"exclude": ["vip_*"]},
    {"include": ["?_1"], "exclude": ["a_*"]},
]
KEEPS = [
    {**guards, **last}
    for guards in (
        {},
        {"in_use": []},
        {"in_use": ["conversation"]},
        {"protected_ids": ["r0", "r2"]},
        {"keep_within": "72h"},
    )
    for last in ({}, {}, {"keep_last": 1}, {"keep_last": 2, "group_by": "^(?P<group>[^_]+)_"})
]
QUOTAS = [
    {"above": above, "down_to": down_to, "older_than": age}
    for above, down_to in ((1, 1), (3, 2), (4, 1), (5, 4))
    for age in ("1d", "30d")
]
policies = st.fixed_dictionaries(
    {
        "expire": st.lists(st.sampled_from(RULES), min_size=1, max_size=2),
        "scope": st.sampled_from(SCOPES),
        "narrow": st.sampled_from(SCOPES),
        "keep": st.sampled_from(KEEPS),
        "limits": st.builds(
            lambda most, percent: {"max_deletions": most, "max_deletion_percent": percent},
            st.sampled_from([0, 1, 2, 10]),
            st.sampled_from([0, 25, 50, 100]),
        ),
    },
    optional={"quota": st.sampled_from(QUOTAS)},
)


def decide(policy: dict[str, Any], listing: list[Replica], use: Inventory, now: datetime = NOW) -> Decision:
    return evaluate(Policy.parse(policy), replace(use, replicas=listing), now=now)


def deleted(decision: Decision) -> set[str]:
    return {verdict.replica.replica_id for verdict in decision.delete}


def excluding(rule: dict[str, Any], glob: str) -> dict[str, Any]:
    names = rule.get("names", {})
    return {**rule, "names": {**names, "exclude": [*names.get("exclude", []), glob]}}


def changed(policy: dict[str, Any], part: str, **keys: Any) -> dict[str, Any]:
    return {**policy, part: {**policy[part], **keys}}


@law
@given(policies, listings, uses)
def test_every_replica_has_one_verdict_with_a_reason_on_one_line(
    policy: dict[str, Any], listing: list[Replica], use: Inventory
) -> None:
    decision = decide(policy, listing, use)
    assert sorted(v.replica.replica_id for v in decision.verdicts) == sorted(r.replica_id for r in listing)
    for verdict in decision.verdicts:
        assert verdict.reason_code in REASON_CODES[verdict.status]
        assert verdict.reason.strip()
        assert verdict.reason.isprintable()
        assert (verdict.rule is not None) == (verdict.reason_code == "expired")
    counted = len(decision.delete) + len(decision.undetermined) + sum(decision.keep.values())
    assert counted == decision.listed == len(listing)


@law
@given(policies, listings, uses)
def test_guarded_or_undetermined_replicas_are_not_deleted(
    policy: dict[str, Any], listing: list[Replica], use: Inventory
) -> None:
    read = Policy.parse(policy)
    guards = read.keep.in_use
    used = {p.replica_id for p in use.personas if "persona" in guards}
    used |= {
        c.replica_id
        for c in use.conversations
        if "conversation" in guards
        and c.status != "ended"
        and not (c.status == "active" and c.used_at is not None and NOW - c.used_at >= timedelta(hours=24))
    }
    used |= {
        v.replica_id
        for v in use.videos
        if "video" in guards and v.status not in {"ready", "deleted", "error"}
    }
    trainable = any("started" in rule.status for rule in read.expire)
    for verdict in evaluate(read, replace(use, replicas=listing), now=NOW).delete:
        replica = verdict.replica
        assert replica.replica_id not in {*used, *read.keep.protected_ids}
        assert replica.replica_type == "user"
        assert replica.created_at is not None
        assert replica.created_at <= NOW
        assert replica.status in {"completed", "error"} or (trainable and replica.status == "started")
        assert not {"replica_type", "created_at", "status", "replica_name"} & set(replica.unreadable)
        if replica.status == "error":
            assert NOW - max(replica.created_at, replica.updated_at or replica.created_at) >= timedelta(
                hours=72
            )


@law
@given(policies, listings, uses, unreadables)
def test_unreadable_rows_only_keep(
    policy: dict[str, Any], listing: list[Replica], use: Inventory, unreadable: list[UnreadableRow]
) -> None:
    """Each is listed and undetermined, and every replica that it may be or use is kept."""
    with_all = {"keep": {**policy["keep"], "in_use": ["persona", "conversation", "video"]}}
    before = decide(policy, listing, use)
    try:
        decision = decide({**policy, **with_all}, listing, replace(use, unreadable=unreadable))
    except TavusInvalidResponseError:
        assert any(not row.replica_ids for row in unreadable if row.kind != "replica")
        return
    named = {replica_id for row in unreadable for replica_id in row.replica_ids}
    assert deleted(decision) <= deleted(before) - named
    own = [row for row in unreadable if row.kind == "replica"]
    assert decision.listed == len(listing) + len(own)
    assert sum(verdict.reason_code == "unreadable_row" for verdict in decision.undetermined) == len(own)


@law
@given(policies, listings, uses)
def test_limit_is_exceeded_if_the_numbers_exceed_it(
    policy: dict[str, Any], listing: list[Replica], use: Inventory
) -> None:
    decision = decide(policy, listing, use)
    limits = Policy.parse(policy).limits
    few = len(decision.delete) <= limits.max_deletions
    share = 100 * len(decision.delete) <= limits.max_deletion_percent * len(listing)
    one = len(decision.delete) == 1 and limits.max_deletion_percent > 0
    assert (decision.limit_exceeded is None) == (few and (share or one))


@law
@given(policies, listings, uses, st.randoms(use_true_random=False))
def test_order_of_the_listing_does_not_matter(
    policy: dict[str, Any], listing: list[Replica], use: Inventory, random: Any
) -> None:
    def mixed(items: Any) -> list[Any]:
        return random.sample(list(items), len(items))

    again = Inventory((), mixed(use.personas), mixed(use.conversations), mixed(use.videos))
    assert decide(policy, mixed(listing), again) == decide(policy, listing, use)


@law
@given(policies, listings, uses)
def test_second_decision_about_the_remaining_replicas_deletes_nothing(
    policy: dict[str, Any], listing: list[Replica], use: Inventory
) -> None:
    gone = deleted(decide(policy, listing, use))
    assert not deleted(decide(policy, [r for r in listing if r.replica_id not in gone], use))


@law
@given(
    policies.filter(lambda policy: "keep_last" not in policy["keep"] and "quota" not in policy),
    listings,
    uses,
    st.sampled_from(SPANS),
)
def test_expired_replica_stays_expired_as_time_passes(
    policy: dict[str, Any], listing: list[Replica], use: Inventory, span: timedelta
) -> None:
    assert deleted(decide(policy, listing, use)) <= deleted(decide(policy, listing, use, NOW + abs(span)))


@law
@given(policies, listings, uses, st.data())
def test_stricter_policy_never_deletes_more(
    policy: dict[str, Any], listing: list[Replica], use: Inventory, data: st.DataObject
) -> None:
    keep, scope, narrow = policy["keep"], policy["scope"], policy["narrow"]
    stricter = [
        changed(policy, "keep", protected_ids=[*keep.get("protected_ids", []), "r3", "r4"]),
        changed(policy, "keep", in_use=["persona", "conversation", "video"]),
        changed(policy, "keep", keep_within="90d"),
        changed(policy, "keep", keep_last=keep.get("keep_last", 1) + 1),
        changed(policy, "scope", model_names=["phoenix-3"]),
        changed(policy, "scope", exclude=[*scope.get("exclude", []), "b_*"]),
        changed(policy, "narrow", exclude=[*narrow.get("exclude", []), "a_1"]),
        changed(policy, "narrow", older_than="120d"),
        changed(policy, "narrow", include=["a_*"]) if not narrow.get("include") else policy,
    ]
    if "quota" in policy:
        quota = policy["quota"]
        stricter += [
            {key: value for key, value in policy.items() if key != "quota"},
            changed(policy, "quota", above=9),
            changed(policy, "quota", down_to=quota["above"]),
            changed(policy, "quota", older_than="120d"),
        ]
    else:  # with a quota, the least recently used replicas go instead of what a stricter rule leaves
        first, *others = policy["expire"]
        stricter += [
            {
                **policy,
                "expire": [{**r, "older_than": "120d"} if "older_than" in r else r for r in policy["expire"]],
            },
            {**policy, "expire": [{**first, "older_than": "90d"}, *others]},
            {**policy, "expire": [{**first, "model_names": ["phoenix-3"]}, *others]},
            {**policy, "expire": [excluding(first, "a_*"), *others]},
        ]
    assert deleted(decide(data.draw(st.sampled_from(stricter)), listing, use)) <= deleted(
        decide(policy, listing, use)
    )


@law
@given(policies.filter(lambda policy: "quota" in policy), listings, uses)
def test_quota_never_leaves_fewer_than_its_lower_limit_unless_rules_do(
    policy: dict[str, Any], listing: list[Replica], use: Inventory
) -> None:
    gone = deleted(decide(policy, listing, use))
    by_rules = deleted(decide({k: v for k, v in policy.items() if k != "quota"}, listing, use))
    own = sum(replica.replica_type == "user" for replica in listing)
    assert by_rules <= gone
    assert gone == by_rules or own - len(gone) >= policy["quota"]["down_to"]


@law
@given(policies.filter(lambda policy: "quota" in policy), listings, uses, st.data())
def test_rest_of_a_plan_is_still_to_be_deleted_after_a_part_of_it_was(
    policy: dict[str, Any], listing: list[Replica], use: Inventory, data: st.DataObject
) -> None:
    gone = deleted(decide(policy, listing, use))
    done = data.draw(st.sets(st.sampled_from(sorted(gone)))) if gone else set()
    rest = replace(use, replicas=[one for one in listing if one.replica_id not in done])
    again = evaluate(Policy.parse(policy).as_planned, rest, now=NOW)
    assert gone - done <= deleted(again)


@law
@given(policies)
def test_policy_parsed_from_its_own_json_is_equal(policy: dict[str, Any]) -> None:
    read = Policy.parse(policy)
    assert Policy.parse(read.to_json()) == read


@law
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.sampled_from(["90d", "None"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["expire", "older_than", "scope", "include", "keep", "group_by", "limits", "rule"]
                )
                | st.text(max_size=5),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_value_is_a_policy_or_rejected_in_one_line(value: Any) -> None:
    if isinstance(value, dict):
        value = {"expire": [{"older_than": "90d"}], **value}
    refused = None
    try:
        Policy.parse(value)
    except TavusValidationError as error:
        refused = str(error)
    assert refused is None or (refused.startswith("policy: ") and refused.isprintable())


# -- grace, legal holds, expected replicas and soft-deleted replicas


@dataclass(frozen=True)
class World:
    """A policy and an inventory."""

    policy: dict[str, Any]
    inventory: Inventory
    hard: bool

    def decide(self, now: datetime = NOW) -> Decision:
        return evaluate(Policy.parse(self.policy), self.inventory, now=now, hard=self.hard)

    def having(self, **parts: Any) -> World:
        """Return the same policy with another inventory."""
        return replace(self, inventory=replace(self.inventory, **parts))


SINCE = [NOW - timedelta(days=days, seconds=s) for days in (0, 14, 30, 100) for s in (0, 1, -1)]


@st.composite
def worlds(draw: Any) -> World:
    listing, hard = draw(listings), draw(st.booleans())
    policy = dict(draw(policies))
    graces = [None, None, "1d", "14d", "30d"]
    policy["name"] = "law"
    policy["expire"] = [
        {**rule, **({"grace": grace} if (grace := draw(st.sampled_from(graces))) else {})}
        for rule in policy["expire"]
    ]
    if draw(st.booleans()):
        policy["hard_delete_after"] = draw(st.sampled_from(["1d", "30d"]))
    if draw(st.booleans()):
        policy["narrow"] = {**policy["narrow"], "older_than": draw(st.sampled_from(DURATIONS))}
    if listing and draw(st.booleans()):
        some = st.lists(st.sampled_from([r.replica_id for r in listing]), max_size=2, unique=True)
        policy["account"] = {"expect_present": draw(some)}
    dates = st.dictionaries(st.sampled_from([*IDS, "gone1", "gone2"]), st.sampled_from(SINCE), max_size=4)
    held = draw(st.sets(st.sampled_from([*IDS, "gone1"]), max_size=2))
    due = st.dictionaries(
        st.sampled_from(IDS), st.sampled_from([NOW, NOW + timedelta(1), NOW - timedelta(1)]), max_size=2
    )
    history = History(draw(dates), draw(dates), draw(due))
    inventory = replace(draw(uses), replicas=listing, held=frozenset(held), history=history)
    return World(policy, inventory, hard)


@wide_law
@given(worlds())
def test_every_replica_has_one_status_and_explain_agrees_with_evaluate(world: World) -> None:
    decision = world.decide()
    by_id = {verdict.replica.replica_id: verdict for verdict in decision.verdicts}
    assert len(by_id) == len(decision.verdicts)
    assert {i for i, verdict in by_id.items() if verdict.listed} == {
        r.replica_id for r in world.inventory.replicas
    }
    policy = Policy.parse(world.policy)
    for replica_id, verdict in by_id.items():
        assert verdict.reason_code in REASON_CODES[verdict.status]
        assert verdict.reason.isprintable()
        due = verdict.status in ("expired", "scheduled")
        assert (verdict.rule is not None) == (due and verdict.source == "rule")
        assert (verdict.source == "soft_deleted") == (verdict.reason_code == "hard_delete_after")
        assert (verdict.source == "quota") <= (verdict.reason_code in ("quota", "scheduled"))
        results = explain(policy, world.inventory, replica_id, now=NOW, hard=world.hard)
        (first,) = (result for result in results if result.decides)
        assert all(result.seen.isprintable() and result.seen for result in results)
        checks = decision.checks_of(verdict)
        assert checks == [(one.reason_code, one.seen) for one in results][: len(checks)]
        assert checks[-1] == (verdict.reason_code, verdict.reason)
        assert (first.status, first.reason_code, first.reason) == (
            verdict.status,
            verdict.reason_code,
            verdict.reason,
        )
    apart = len(decision.delete) + len(decision.scheduled) + len(decision.undetermined)
    assert apart + sum(decision.keep.values()) == len(by_id)


@wide_law
@given(worlds())
def test_no_held_protected_expected_or_used_replica_is_deleted_nor_one_within_its_grace(world: World) -> None:
    policy = Policy.parse(world.policy)
    history, guards = world.inventory.history, policy.keep.in_use
    used = {p.replica_id for p in world.inventory.personas if "persona" in guards}
    used |= {
        c.replica_id
        for c in world.inventory.conversations
        if "conversation" in guards and c.status != "ended"
    }
    rules = {rule.rule: rule for rule in policy.expire}
    expected = policy.account.expect_present if policy.account else ()
    for verdict in world.decide().delete:
        replica_id = verdict.replica.replica_id
        assert replica_id not in {*world.inventory.held, *policy.keep.protected_ids, *expected, *used}
        if verdict.reason_code == "hard_delete_after":
            assert world.hard
            assert policy.hard_delete_after is not None
            assert NOW - history.soft_deleted[replica_id] >= policy.hard_delete_after.delta
            assert not verdict.listed or verdict.replica.replica_type == "user"
            continue
        assert verdict.listed
        assert verdict.replica.replica_type == "user"
        assert verdict.replica.created_at is not None
        assert verdict.replica.created_at <= NOW
        assert replica_id not in history.soft_deleted
        assert history.due.get(replica_id, NOW) <= NOW
        if (grace := rules[verdict.rule or ""].grace) is not None:
            assert NOW - history.scheduled[replica_id] >= grace.delta


@wide_law
@given(worlds(), st.randoms(use_true_random=False))
def test_order_of_the_listing_does_not_matter_for_grace_and_holds(world: World, random: Any) -> None:
    def mixed(items: Any) -> list[Any]:
        return random.sample(list(items), len(items))

    kinds = ("replicas", "personas", "conversations", "videos")
    parts = {kind: mixed(getattr(world.inventory, kind)) for kind in kinds}
    assert world.having(**parts).decide() == world.decide()


@wide_law
@given(
    worlds().filter(lambda world: not {"keep_last", "quota"} & {*world.policy, *world.policy["keep"]}),
    st.sampled_from(SPANS),
)
def test_time_alone_never_keeps_a_replica(world: World, span: timedelta) -> None:
    assert deleted(world.decide()) <= deleted(world.decide(NOW + abs(span)))


@wide_law
@given(worlds(), st.data())
def test_more_grace_holds_or_expected_replicas_or_a_shorter_history_never_delete_more(
    world: World, data: st.DataObject
) -> None:
    policy, history, held = world.policy, world.inventory.history, world.inventory.held
    longer = [{**rule, "grace": "60d"} for rule in policy["expire"]]
    first = [{**policy["expire"][0], "grace": "60d"}, *policy["expire"][1:]]
    listed = [r.replica_id for r in world.inventory.replicas]
    stricter = [
        replace(world, policy={**policy, "expire": longer}),
        world.having(held=held | {"r0", "r1", "gone1"}),
        world.having(history=replace(history, scheduled={})),
        replace(world, policy={**policy, "account": {"expect_present": listed}}),
        replace(world, policy={k: v for k, v in policy.items() if k != "hard_delete_after"}),
        replace(world, policy={**policy, "narrow": {**policy["narrow"], "older_than": "200d"}}),
        replace(world, policy={**policy, "keep": {**policy["keep"], "protected_ids": IDS}}),
    ]
    if len(policy["expire"]) == 1:
        stricter.append(replace(world, policy={**policy, "expire": first}))
    assert deleted(data.draw(st.sampled_from(stricter)).decide()) <= deleted(world.decide())


class Memory:
    """A client for an account in memory, with the methods that an executor uses."""

    clock_skew = None
    clock_evidence = None

    def __init__(self, world: World) -> None:
        self.world = world
        self.there = {replica.replica_id: replica for replica in world.inventory.replicas}
        self.asked: list[str] = []

    def list_replicas(self, *, while_deleting: bool = False) -> list[Replica]:
        return list(self.there.values())

    def list_personas(self) -> list[Persona]:
        return list(self.world.inventory.personas)

    def list_conversations(
        self, *, latest_only: bool = False, status: str | None = None, observe: Any = None
    ) -> list[Conversation]:
        return [one for one in self.world.inventory.conversations if status in (None, one.status)]

    def get_conversations_page(
        self, *, status: str | None = None, number: int = 1, limit: int = 1
    ) -> Page[Conversation]:
        rows = self.list_conversations(status=status)
        return Page(rows[(number - 1) * limit : number * limit], len(rows))

    def list_videos(self, *, latest_only: bool = False) -> list[Video]:
        return list(self.world.inventory.videos)

    def stop(self) -> None:
        raise AssertionError

    def wait(self, seconds: float) -> bool:
        return False

    def get_replica(self, replica_id: str) -> Replica:
        if replica_id not in self.there:
            raise ReplicaNotFoundError("GET: not found")
        return self.there[replica_id]

    def delete_replica(self, replica_id: str, *, hard: bool = False, before_send: Any = None) -> Any:
        self.asked.append(replica_id)
        if self.there.pop(replica_id, None) is None:
            raise ReplicaNotFoundError("DELETE: not found")
        return SimpleNamespace(outcome=Outcome.DELETED, detail="DELETE: done")


class Unwritten:
    """A ledger record that is not kept."""

    name = "nowhere"
    last_digest = None

    def write(self, kind: str, **fields: Any) -> None:
        pass

    def close(self, **fields: Any) -> None:
        pass


def carried_out(world: World, tavus: Memory, plan: dict[str, Any], known: Inventory) -> dict[str, str]:
    executor = PlanExecutor(
        plan,
        tavus,
        concurrency=1,
        now=lambda: NOW,
        log=lambda line: None,
        begin=lambda **fields: Unwritten(),
        history=lambda now: known.history,
        held=lambda now: known.held,
    )
    with contextlib.suppress(PlanRejectedError):
        executor.run()
    return {item["replica_id"]: item["outcome"] for item in executor.report()["items"]}


@wide_law
@given(worlds(), st.data())
def test_apply_deletes_a_part_of_the_plan_and_a_second_plan_is_empty(
    world: World, data: st.DataObject
) -> None:
    tavus, policy = Memory(world), Policy.parse(world.policy)

    def planned(known: Inventory) -> dict[str, Any]:
        inventory = read_inventory(
            tavus, policy, now=lambda: NOW, history=lambda now: known.history, held=lambda now: known.held
        )
        return make_plan(
            evaluate(policy, inventory, now=NOW, hard=world.hard),
            policy,
            now=NOW,
            hard=world.hard,
            tavus_conn_id="c",
            origin="https://tavusapi.com",
        )

    plan = planned(world.inventory)
    named = {row["replica_id"] for row in plan["delete"]}
    for replica_id in data.draw(st.sets(st.sampled_from(sorted(named)), max_size=2)) if named else ():
        gone_or_other = tavus.there.pop(replica_id, None)
        if gone_or_other is not None and data.draw(st.booleans()):
            tavus.there[replica_id] = replace(gone_or_other, replica_name="another")
    more = world.inventory.held | data.draw(st.sets(st.sampled_from(IDS), max_size=1))
    known = replace(world.inventory, held=more)
    there = set(tavus.there)
    expected = set(Policy.parse(world.policy).account.expect_present if policy.account else ())
    if expected - there:
        return  # the wrong account, which other tests cover
    outcomes = carried_out(world, tavus, plan, known)
    asked = set(tavus.asked)
    assert set(outcomes) == named
    assert asked <= named
    assert not asked & more
    assert len(tavus.asked) == len(asked)
    limits = policy.limits
    assert len(asked) <= limits.max_deletions
    unlisted = asked - there
    if limits.max_deletion_percent == 0 or len(asked) > 1:
        assert 100 * len(asked) <= limits.max_deletion_percent * len(there | unlisted)
    assert there - set(tavus.there) == {i for i, outcome in outcomes.items() if outcome == "deleted"}
    if not {"not_attempted", "skipped"} & set(outcomes.values()):
        done = {i for i, outcome in outcomes.items() if outcome == "deleted"}
        left = {i: at for i, at in known.history.soft_deleted.items() if i not in done | asked}
        again = planned(replace(known, history=replace(known.history, soft_deleted=left)))
        assert not {row["replica_id"] for row in again["delete"]} & named
