"""The checks, one by one and in their order."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from retention.samples import (
    NOW,
    SECOND,
    STALE,
    UNUSED,
    ago,
    conversation,
    decide,
    policy,
    replica,
    verdict,
    video,
)

from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.models import Persona, Replica
from tavus_provider.retention.checks import CHECKS
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.verdict import ReasonCode

SCOPED = {"include": ["demo_*", "test_*"], "exclude": ["*_keep"]}


@pytest.mark.parametrize(
    ("one", "parts", "reason_code", "reason"),
    [
        pytest.param(
            replica(replica_type="system"),
            {},
            "not_user",
            "replica_type is 'system', not 'user'",
            id="system",
        ),
        pytest.param(
            replica(replica_type=None), {}, "not_user", "replica_type is not given, not 'user'", id="no type"
        ),
        pytest.param(
            replica(replica_type="user'"),
            {},
            "not_user",
            "replica_type is 'user'', not 'user'",
            id="type of the docs' example",
        ),
        pytest.param(
            replica(replica_type="USER"),
            {},
            "not_user",
            "replica_type is 'USER', not 'user'",
            id="other case",
        ),
        pytest.param(
            replica(
                replica_type=None, unreadable={"replica_type": "replica_type is not text but of type int"}
            ),
            {},
            "not_user",
            "replica_type is not text but of type int",
            id="type unreadable",
        ),
        pytest.param(
            replica(unreadable={"replica_type": "replica_type is unreadable"}),
            {},
            "not_user",
            "replica_type is unreadable",
            id="type given and yet unreadable",
        ),
        pytest.param(
            replica(replica_name="prod_1"),
            {"scope": SCOPED},
            "out_of_scope",
            "name does not match scope.include 'demo_*', 'test_*'",
            id="not included",
        ),
        pytest.param(
            replica(replica_name="demo_keep"),
            {"scope": SCOPED},
            "out_of_scope",
            "name matches scope.exclude '*_keep'",
            id="exclude wins",
        ),
        pytest.param(
            replica(replica_name="DEMO_1"),
            {"scope": SCOPED},
            "out_of_scope",
            "name does not match scope.include 'demo_*', 'test_*'",
            id="case counts",
        ),
        pytest.param(
            replica(),
            {"scope": SCOPED, "narrow": {"include": ["test_*"]}},
            "out_of_scope",
            "name does not match narrow.include 'test_*'",
            id="narrowed by include",
        ),
        pytest.param(
            replica(),
            {"scope": SCOPED, "narrow": {"exclude": ["*_1"]}},
            "out_of_scope",
            "name matches narrow.exclude '*_1'",
            id="narrowed by exclude",
        ),
        pytest.param(
            replica(replica_name="prod_1"),
            {"scope": SCOPED, "narrow": {"include": ["prod_*", "*"]}},
            "out_of_scope",
            "name does not match scope.include 'demo_*', 'test_*'",
            id="a form does not widen",
        ),
        pytest.param(
            replica(replica_name="cafe\u0301_1"),
            {"scope": {"exclude": ["caf\u00e9_*"]}},
            "out_of_scope",
            "name matches scope.exclude 'caf\u00e9_*'",
            id="accents composed or not",
        ),
        pytest.param(
            replica(replica_name=None),
            {"scope": {"exclude": ["vip_*"]}},
            "out_of_scope",
            "has no name to check against the scope",
            id="no name, something excluded",
        ),
        pytest.param(
            replica(replica_name=""),
            {"narrow": {"include": ["demo_*"]}},
            "out_of_scope",
            "has no name to check against the scope",
            id="empty name, something included",
        ),
        pytest.param(
            replica(replica_name=None),
            {"scope": {"include": ["*"]}},
            "expired",
            "200 days old, limit is 90d",
            id="no name, no scope",
        ),
        pytest.param(
            replica(model_name="phoenix-2"),
            {"scope": {"model_names": ["phoenix-3"]}},
            "out_of_scope",
            "model_name is 'phoenix-2', not one of scope.model_names",
            id="another model",
        ),
        pytest.param(
            replica(model_name=None),
            {"scope": {"model_names": ["phoenix-3"]}},
            "out_of_scope",
            "model_name is not given, not one of scope.model_names",
            id="no model",
        ),
        pytest.param(replica(), {"scope": SCOPED}, "expired", "200 days old, limit is 90d", id="in scope"),
    ],
)
def test_only_user_replicas_in_every_scope_are_considered(
    one: Replica, parts: dict[str, Any], reason_code: str, reason: str
) -> None:
    found = verdict(one, by=policy(**parts))
    assert (found.reason_code, found.reason) == (reason_code, reason)
    assert found.status == ("expired" if reason_code == "expired" else "out_of_scope")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        pytest.param({"created_at": None}, "created_at is not given", id="no date"),
        pytest.param(
            {"created_at": None, "unreadable": {"created_at": "created_at 'x' has no time zone"}},
            "created_at 'x' has no time zone",
            id="date unreadable",
        ),
        pytest.param(
            {"created_at": NOW + SECOND},
            "created_at 2026-09-01T12:00:01Z is in the future",
            id="a second ahead",
        ),
        pytest.param(
            {"status": None}, "status is not given, not one of started, completed, error", id="no status"
        ),
        pytest.param(
            {"status": "ready"}, "status is 'ready', not one of started, completed, error", id="status"
        ),
        pytest.param(
            {"status": "ok\n\x1b[2J"},
            "status is 'ok\\n\\x1b[2J', not one of started, completed, error",
            id="status that breaks the line",
        ),
        pytest.param(
            {"status": None, "unreadable": {"status": "status is not text but of type int"}},
            "status is not text but of type int",
            id="status unreadable",
        ),
        pytest.param(
            {
                "replica_name": None,
                "unreadable": {"replica_name": "replica_name is not text but of type list"},
            },
            "replica_name is not text but of type list",
            id="name unreadable",
        ),
        pytest.param(
            {
                "status": "error",
                "unreadable": {"updated_at": "updated_at '1706080443' is not an ISO 8601 or RFC 1123 date"},
            },
            "updated_at '1706080443' is not an ISO 8601 or RFC 1123 date",
            id="failed, update unreadable",
        ),
        pytest.param(
            {"status": "error", "updated_at": NOW + SECOND},
            "updated_at 2026-09-01T12:00:01Z is in the future",
            id="failed, updated a second ahead",
        ),
    ],
)
def test_replica_with_unknown_facts_is_undetermined_even_if_protected(
    facts: dict[str, Any], reason: str
) -> None:
    guarded = policy(keep={"protected_ids": ["r1"]})
    for by in (policy(), guarded):
        found = verdict(replica(**facts), by=by)
        assert (found.status, found.reason_code, found.reason) == ("undetermined", "undetermined", reason)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        pytest.param(
            {"unreadable": {"updated_at": "updated_at 'x' is not a readable date"}},
            "200 days old, limit is 90d",
            id="not failed, update unreadable",
        ),
        pytest.param(
            {"updated_at": NOW + SECOND}, "200 days old, limit is 90d", id="not failed, updated ahead"
        ),
        pytest.param(
            {"status": "error", "updated_at": None},
            "200 days old, limit is 90d",
            id="failed, no update given",
        ),
        pytest.param(
            {"unreadable": {"model_name": "model_name is not text but of type int"}},
            "200 days old, limit is 90d",
            id="model unreadable, no model in scope",
        ),
    ],
)
def test_unknown_fact_that_no_check_uses_does_not_matter(facts: dict[str, Any], reason: str) -> None:
    found = verdict(replica(**facts))
    assert (found.reason_code, found.reason) == ("expired", reason)


@pytest.mark.parametrize(
    ("created_at", "reason_code"),
    [
        pytest.param("2024-01-24T07:14:03.327Z", "expired", id="Z"),
        pytest.param("2024-01-24T07:14:03.327123456Z", "expired", id="nanoseconds"),
        pytest.param("2024-01-24T07:14:03+14:00", "expired", id="offset"),
        pytest.param("Wed, 24 Jan 2024 07:14:03 GMT", "expired", id="RFC 1123"),
        pytest.param("2024-01-24T07:14:03", "undetermined", id="no zone"),
        pytest.param("2024-01-24", "undetermined", id="day"),
        pytest.param("20240124", "undetermined", id="basic format"),
        pytest.param("2024-W04-3", "undetermined", id="week date"),
        pytest.param("2024-024", "undetermined", id="ordinal date"),
        pytest.param("1706080443", "undetermined", id="seconds as text"),
        pytest.param("1706080443327", "undetermined", id="milliseconds as text"),
        pytest.param(1706080443, "undetermined", id="number"),
        pytest.param("2024-01-24T07:14:60Z", "undetermined", id="leap second"),
        pytest.param("2024-02-30T07:14:03Z", "undetermined", id="30 February"),
        pytest.param("0000-01-24T07:14:03Z", "undetermined", id="year 0"),
        pytest.param("9999-12-31T23:59:59Z", "undetermined", id="year 9999"),
        pytest.param("10000-01-24T07:14:03Z", "undetermined", id="year 10000"),
        pytest.param("2014-12-31T23:59:59Z", "undetermined", id="before 2015"),
        pytest.param("2024-01-24t07:14:03z", "undetermined", id="lower case"),
        pytest.param("24/01/2024", "undetermined", id="slashes"),
        pytest.param("<string>", "undetermined", id="placeholder of the docs"),
        pytest.param("\u0662\u0660\u0662\u0664-01-24T07:14:03Z", "undetermined", id="arabic digits"),
        pytest.param("2024-01-24T24:00:00Z", "undetermined", id="hour 24"),
        pytest.param("", "undetermined", id="empty"),
        pytest.param(None, "undetermined", id="null"),
        pytest.param("2026-09-01T12:00:00Z", "not_expired", id="now"),
        pytest.param("2026-09-01T12:00:01Z", "undetermined", id="a second ahead"),
    ],
)
def test_unreadable_or_ambiguous_created_at_is_undetermined(created_at: object, reason_code: str) -> None:
    row = {
        "replica_id": "r1",
        "replica_name": "demo_1",
        "status": "completed",
        "replica_type": "user",
        "created_at": created_at,
    }
    found = verdict(Replica.from_api(row))
    assert found.reason_code == reason_code
    if reason_code == "undetermined":
        assert found.reason.startswith("created_at ")
        assert found.age_days is None


def test_failed_replica_without_updated_at_counts_from_created_at() -> None:
    row = {"replica_id": "r1", "replica_name": "a", "status": "error", "replica_type": "user"}
    by = policy({"older_than": "1d"})
    old = Replica.from_api({**row, "created_at": "2026-08-29T11:59:59Z"})
    assert verdict(old, by=by).reason == "3 days old, limit is 1d"
    fresh = Replica.from_api({**row, "created_at": "2026-08-29T12:00:01Z"})
    assert verdict(fresh, by=by).reason_code == "failed_recently"
    vague = Replica.from_api({**row, "created_at": "2026-08-01T12:00:00Z", "updated_at": "2026-08-02"})
    assert verdict(vague, by=by).reason == "updated_at '2026-08-02' has no time zone"


IN_USE = Inventory(
    (),
    personas=[Persona("p9", "r_default"), Persona("p123", "r_default"), Persona("p0", None)],
    conversations=[
        conversation("r_talking", status="active", activity_id="c12"),
        conversation("r_ended", status="ended", activity_id="c13"),
        conversation("r_strange", status="paused", activity_id="c14"),
        conversation("r_silent", status=None, activity_id="c15"),
        conversation(None, status="active", activity_id="c16", persona_id="p123"),
    ],
    videos=[
        video("r_filming", status="generating", activity_id="v1"),
        video("r_queued", status="queued", activity_id="v2"),
        video("r_blank", status=None, activity_id="v3"),
        *(video("r_filmed", status=s, activity_id=f"v_{s}") for s in ("ready", "deleted", "error")),
    ],
)


@pytest.mark.parametrize(
    ("replica_id", "reason"),
    [
        pytest.param("r_default", "is the default of persona p123", id="default of two personas"),
        pytest.param("r_talking", "is in active conversation c12", id="active conversation"),
        pytest.param("r_strange", "is in conversation c14, which is paused", id="unknown status"),
        pytest.param("r_silent", "is in conversation c15, which is of unknown status", id="no status"),
        pytest.param("r_filming", "is in video v1, which is generating", id="video being made"),
        pytest.param("r_queued", "is in video v2, which is queued", id="video waiting"),
        pytest.param("r_blank", "is in video v3, which is of unknown status", id="video without status"),
        pytest.param("r_ended", None, id="ended conversation"),
        pytest.param("r_filmed", None, id="finished videos"),
    ],
)
def test_replica_in_use_is_kept_and_the_reason_names_the_use(replica_id: str, reason: str | None) -> None:
    found = verdict(replica(replica_id), use=IN_USE)
    if reason is None:
        assert (found.reason_code, found.reason) == ("expired", "200 days old, limit is 90d")
    else:
        assert (found.status, found.reason_code, found.reason) == ("kept", "in_use", reason)


@pytest.mark.parametrize(
    ("kinds", "kept"),
    [
        pytest.param(["persona"], {"r_default"}, id="persona"),
        pytest.param(
            ["conversation"], {"r_default", "r_talking", "r_strange", "r_silent"}, id="conversation"
        ),
        pytest.param(["video"], {"r_filming", "r_queued", "r_blank"}, id="video"),
        pytest.param([], set(), id="none"),
    ],
)
def test_only_kinds_named_in_in_use_keep(kinds: list[str], kept: set[str]) -> None:
    ids = ["r_default", "r_talking", "r_strange", "r_silent", "r_filming", "r_queued", "r_blank"]
    found = decide(*map(replica, ids), by=policy(keep={"in_use": kinds}), use=IN_USE)
    assert {v.replica.replica_id for v in found.verdicts if v.reason_code == "in_use"} == kept
    assert {v.replica.replica_id for v in found.delete} == set(ids) - kept


def test_active_conversation_without_replica_uses_the_default_of_its_persona() -> None:
    use = Inventory((), [Persona("p1", "r1")], [conversation(None, status="active", persona_id="p1")], [])
    found = verdict(replica(), by=policy(keep={"in_use": ["conversation"]}), use=use)
    assert found.reason == "is in active conversation c1"


@pytest.mark.parametrize("turn", [1, -1])
def test_named_use_does_not_depend_on_the_order_of_the_listing(turn: int) -> None:
    personas = [Persona("p2", "r1"), Persona("p1", "r1")][::turn]
    talks = [conversation("r2", status="active", activity_id=i, at=None) for i in ("c2", "c1")][::turn]
    found = decide(replica("r1"), replica("r2"), use=Inventory((), personas, talks, []))
    assert [v.reason for v in found.verdicts] == [
        "is the default of persona p1",
        "is in active conversation c1",
    ]
    by_use = policy({"unused_for": "1d"})
    (verdict,) = evaluate(by_use, Inventory([replica("r2")], [], talks, []), now=NOW).undetermined
    assert verdict.reason == "last use is unknown: conversation c1 has no readable date"


@pytest.mark.parametrize(
    ("persona_id", "problem"),
    [
        (None, "names neither a replica nor a persona"),
        ("p_unlisted", "names no replica, and its persona p_unlisted is not listed"),
        ("p_bare", "names no replica, and its persona p_bare has no default replica"),
    ],
)
def test_active_conversation_without_replica_stops_the_decision(persona_id: str | None, problem: str) -> None:
    hidden = conversation(None, status="active", persona_id=persona_id, activity_id="c7\n")
    use = Inventory((), [Persona("p_bare", None)], [hidden], [])
    with pytest.raises(TavusInvalidResponseError) as error:
        decide(replica(), use=use)
    assert str(error.value) == (
        f"conversation c7\\n is active and {problem}; it may use any replica, so nothing may be deleted. To "
        "continue, end that conversation in Tavus, wait until it ends, or take 'conversation' out of "
        "keep.in_use"
    )
    assert decide(replica(), by=policy(keep={"in_use": ["persona", "video"]}), use=use).delete


def test_unfinished_video_without_replica_stops_the_decision() -> None:
    use = Inventory((), [], [], [video(None, status="generating", activity_id="v9")])
    with pytest.raises(TavusInvalidResponseError) as error:
        decide(replica(), use=use)
    assert str(error.value) == (
        "video v9 is generating and names neither a replica nor a persona; it may use any replica, so "
        "nothing "
        "may be deleted. To continue, wait until that video is finished, delete it in Tavus, or take "
        "'video' out "
        "of keep.in_use"
    )


def test_finished_use_without_replica_does_not_affect_rules_on_age() -> None:
    use = Inventory((), [], [conversation(None, status="ended")], [video(None, status="ready")])
    assert decide(replica(), use=use).delete


@pytest.mark.parametrize(
    ("one", "keep", "rules", "reason_code", "reason"),
    [
        pytest.param(
            replica(),
            {"protected_ids": ["r2", "r1"]},
            [STALE],
            "protected",
            "is in keep.protected_ids",
            id="protected",
        ),
        pytest.param(
            replica(status="started"),
            {},
            [STALE],
            "training",
            "is still in training, and no rule names status 'started'",
            id="training",
        ),
        pytest.param(
            replica(status="started"),
            {},
            [{**STALE, "status": ["started"]}],
            "expired",
            "200 days old, limit is 90d",
            id="training, and a rule names it",
        ),
        pytest.param(
            replica(status="started", age=timedelta(days=1)),
            {},
            [{**STALE, "status": ["started"]}],
            "not_expired",
            "1 day old, rule 'stale' asks for 90d",
            id="training, the rule not yet",
        ),
        pytest.param(
            replica(status="error", updated_at=ago(hours=72) + SECOND),
            {},
            [STALE],
            "failed_recently",
            "failed 71 hours ago, a delete within 72h can lose the refund of the training",
            id="failed a second less than 72 hours ago",
        ),
        pytest.param(
            replica(status="error", updated_at=ago(hours=72)),
            {},
            [STALE],
            "expired",
            "200 days old, limit is 90d",
            id="failed 72 hours ago",
        ),
        pytest.param(
            replica(status="error", updated_at=ago(days=300), age=timedelta(hours=50)),
            {},
            [{"older_than": "1h"}],
            "failed_recently",
            "failed 50 hours ago, a delete within 72h can lose the refund of the training",
            id="updated before it was created",
        ),
        pytest.param(
            replica(age=timedelta(days=300) - SECOND),
            {"keep_within": "300d"},
            [STALE],
            "keep_within",
            "299 days old, keep_within is 300d",
            id="a second within",
        ),
        pytest.param(
            replica(age=timedelta(days=300)),
            {"keep_within": "300d"},
            [STALE],
            "expired",
            "300 days old, limit is 90d",
            id="no longer within",
        ),
        pytest.param(
            replica(),
            {"keep_last": 1},
            [STALE],
            "keep_last",
            "number 1 of 1, newest first, keep_last is 1",
            id="the last one",
        ),
    ],
)
def test_reason_to_keep_overrides_a_matching_rule(
    one: Replica, keep: dict[str, Any], rules: list[dict[str, Any]], reason_code: str, reason: str
) -> None:
    found = verdict(one, by=policy(*rules, keep=keep))
    assert (found.reason_code, found.reason) == (reason_code, reason)
    assert found.status == (reason_code if reason_code in {"expired", "not_expired"} else "kept")


def test_first_reason_to_keep_is_reported() -> None:
    failed = {"status": "error", "updated_at": ago(hours=1)}
    use = Inventory((), [Persona("p1", "r1")], [], [])
    everything = {"protected_ids": ["r1"], "keep_within": "300d", "keep_last": 1}
    told = []
    for left_out in ("", "protected_ids", "use", "status", "keep_within", "keep_last"):
        everything.pop(left_out, None)
        use = UNUSED if left_out == "use" else use
        failed = {} if left_out == "status" else failed
        told.append(verdict(replica(**failed), by=policy(keep=everything), use=use).reason_code)
    assert told == ["protected", "in_use", "failed_recently", "keep_within", "keep_last", "expired"]


GROUPED = {"keep_last": 2, "group_by": "^(?P<group>[^_]+)_"}


def reason_codes(found: Decision) -> dict[str, str]:
    return {v.replica.replica_id: v.reason_code for v in found.verdicts}


def test_keep_last_counts_all_replicas_of_a_group_not_only_expired_ones() -> None:
    ages = {"r1": 10, "r2": 20, "r3": 100, "r4": 200}
    found = decide(
        *(replica(i, age=timedelta(days=d)) for i, d in ages.items()), by=policy(keep={"keep_last": 2})
    )
    assert reason_codes(found) == {"r1": "keep_last", "r2": "keep_last", "r3": "expired", "r4": "expired"}
    assert [v.reason for v in found.verdicts if v.reason_code == "keep_last"] == [
        "number 1 of 4, newest first, keep_last is 2",
        "number 2 of 4, newest first, keep_last is 2",
    ]


@pytest.mark.parametrize(
    ("facts", "takes_a_place"),
    [
        pytest.param({"created_at": NOW + SECOND}, False, id="future date"),
        pytest.param({"created_at": None}, False, id="no date"),
        pytest.param({"created_at": NOW, "status": "ready"}, False, id="unknown status"),
        pytest.param({"created_at": NOW, "replica_type": "system"}, False, id="system"),
        pytest.param({"created_at": NOW, "replica_name": "vip_1"}, False, id="out of scope"),
        pytest.param({"created_at": NOW}, True, id="created now"),
        pytest.param({"created_at": NOW, "status": "started"}, False, id="in training"),
        pytest.param({"created_at": NOW, "status": "error"}, False, id="failed"),
    ],
)
def test_undetermined_out_of_scope_and_unfinished_replicas_take_no_place_of_keep_last(
    facts: dict[str, Any], takes_a_place: bool
) -> None:
    by = policy(scope={"exclude": ["vip_*"]}, keep={"keep_last": 1})
    found = reason_codes(decide(replica("r1"), replica("r2", **facts), by=by))
    assert found["r1"] == ("expired" if takes_a_place else "keep_last")
    assert found["r2"] != "expired"


@pytest.mark.parametrize("status", ["error", "started"])
def test_only_completed_replicas_take_a_place_of_keep_last(status: str) -> None:
    by = policy(
        {"rule": "stale", "older_than": "30d", "status": ["completed"]},
        {"rule": "failed", "older_than": "38d", "status": ["error"]},
        keep={"keep_last": 2, "group_by": "^(?P<group>[^_]+)_"},
    )
    found = decide(
        replica("r1", replica_name="acme_1", age=timedelta(days=200)),
        replica("r2", replica_name="acme_2", age=timedelta(days=100)),
        replica("r3", replica_name="acme_3", age=timedelta(days=40), status=status),
        replica("r4", replica_name="acme_4", age=timedelta(days=35), status=status),
        by=by,
    )
    others = {"error": ("expired", "not_expired"), "started": ("training", "training")}[status]
    assert reason_codes(found) == {"r1": "keep_last", "r2": "keep_last", "r3": others[0], "r4": others[1]}


def test_protected_replicas_take_a_place_of_keep_last() -> None:
    by = policy(keep={"keep_last": 1, "protected_ids": ["r2"]})
    found = decide(replica("r1"), replica("r2", age=timedelta(days=100)), by=by)
    assert reason_codes(found) == {"r1": "expired", "r2": "protected"}


def test_keep_last_counts_per_group_and_a_name_without_group_is_a_group_of_its_own() -> None:
    names = {"r1": "a_1", "r2": "a_2", "r3": "a_3", "r4": "b_1", "r5": "plain", "r6": None, "r7": "plain"}
    replicas = [
        replica(i, replica_name=name, age=timedelta(days=100 + at))
        for at, (i, name) in enumerate(names.items())
    ]
    found = decide(*replicas, by=policy(keep=GROUPED))
    assert [v.replica.replica_id for v in found.delete] == ["r3"]
    reasons = {v.replica.replica_id: v.reason for v in found.verdicts}
    assert reasons["r2"] == "number 2 of 3 in group 'a', newest first, keep_last is 2"
    assert reasons["r5"] == "number 1 of 1 in a group of its own, newest first, keep_last is 2"


def test_name_for_which_the_optional_group_does_not_match_is_a_group_of_its_own() -> None:
    by = policy(keep={"keep_last": 1, "group_by": "x|(?P<group>y)"})
    found = decide(replica("r1", replica_name="x"), replica("r2", replica_name="x"), by=by)
    assert found.keep == {"keep_last": 2}


def test_of_two_replicas_created_at_the_same_time_the_smaller_id_is_newer() -> None:
    found = decide(replica("r2"), replica("r1"), by=policy(keep={"keep_last": 1}))
    assert reason_codes(found) == {"r1": "keep_last", "r2": "expired"}


def test_names_from_tavus_and_policies_cannot_break_the_line() -> None:
    bad = "x\n::group::\u202e"
    use = Inventory((), [Persona(bad, "r1")], [conversation("r2", status=bad, activity_id=bad)], [])
    by = policy(
        {"rule": "::group::", "older_than": "900d"}, keep={"keep_last": 1, "group_by": "(?s)(?P<group>.*)"}
    )
    ids = [replica("r1"), replica("r2"), replica("r3", replica_name=bad), replica("r4", replica_name=bad)]
    for found in decide(
        *ids, replica("r5", replica_type=bad), replica("r6", status=bad), by=by, use=use
    ).verdicts:
        assert found.reason.isprintable()
        assert "::" not in found.reason


# --- grace -----------------------------------------------------------------------------------------------

GRACE = {"rule": "stale", "older_than": "90d", "grace": "14d"}


@pytest.mark.parametrize(
    ("since", "status", "due_at"),
    [
        pytest.param(None, "scheduled", NOW + timedelta(days=14), id="not yet announced"),
        pytest.param(ago(days=3), "scheduled", NOW + timedelta(days=11), id="within grace"),
        pytest.param(ago(days=14) + SECOND, "scheduled", NOW + SECOND, id="a second before its end"),
        pytest.param(ago(days=14), "expired", NOW, id="at its end"),
        pytest.param(ago(days=20), "expired", ago(days=6), id="after its end"),
        pytest.param(
            NOW + timedelta(days=9), "scheduled", NOW + timedelta(days=14), id="announced by a clock ahead"
        ),
    ],
)
def test_replica_is_deleted_when_its_grace_period_is_over(
    since: datetime | None, status: str, due_at: datetime
) -> None:
    history = History(scheduled={} if since is None else {"r1": since})
    found = verdict(replica(), by=policy(GRACE, name="x"), use=Inventory((), history=history))
    assert (found.status, found.due_at, found.rule) == (status, due_at, "stale")
    if status == "scheduled":
        ends = f"grace of 14d ends on {due_at:%Y-%m-%d at %H:%M} UTC"
        assert found.reason == f"200 days old, limit is 90d; {ends}"


def test_first_rule_that_matches_decides_about_grace() -> None:
    by = policy(GRACE, {"rule": "later", "older_than": "180d"}, name="x")
    assert verdict(replica(), by=by).status == "scheduled"
    by = policy({"rule": "old", "older_than": "180d"}, GRACE, name="x")
    found = verdict(replica(), by=by)
    assert (found.status, found.due_at) == ("expired", None)


# --- reason codes


def test_every_reason_code_but_two_is_that_of_one_check() -> None:
    codes = [check.reason_code for check in CHECKS]
    assert [*codes, ReasonCode.UNREADABLE_ROW, ReasonCode.MANUAL] == list(ReasonCode)
