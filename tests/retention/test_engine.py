"""The policy in tables: what is refused, and what becomes of one replica for which reason."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tavus_provider.digest import canonical_digest
from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.models import Conversation, Persona, Replica, Video
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.policy import Limits, Policy
from tavus_provider.retention.verdict import Verdict

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
UNUSED = Inventory(())
SECOND = timedelta(seconds=1)
STALE = {"rule": "stale", "older_than": "90d"}


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def replica(replica_id: str = "r1", *, age: timedelta = timedelta(days=200), **facts: Any) -> Replica:
    known = {
        "replica_name": "demo_1",
        "status": "completed",
        "replica_type": "user",
        "model_name": "phoenix-4",
        "created_at": NOW - age,
    }
    return Replica(replica_id, **{**known, **facts})


def conversation(
    replica_id: str | None = "r1",
    *,
    status: str | None = "ended",
    at: datetime | None = NOW,
    activity_id: str = "c1",
    persona_id: str | None = None,
) -> Conversation:
    return Conversation(activity_id, replica_id, persona_id, status, at)


def video(
    replica_id: str | None = "r1", *, status: str | None, at: datetime | None = NOW, activity_id: str = "v1"
) -> Video:
    return Video(activity_id, replica_id, None, status, at)


def policy(*rules: dict[str, Any], **parts: Any) -> Policy:
    return Policy.parse({"expire": list(rules or [STALE]), **parts})


def decide(*replicas: Replica, by: Policy | None = None, use: Inventory = UNUSED) -> Decision:
    return evaluate(by or policy(), replace(use, replicas=replicas), now=NOW)


def verdict(one: Replica, *, by: Policy | None = None, use: Inventory = UNUSED) -> Verdict:
    (only,) = decide(one, by=by, use=use).verdicts
    return only


# --- reading ------------------------------------------------------------------------------------------

FULL = {
    "name": "stale",
    "expire": [
        {"rule": "failed-training", "status": ["error"], "older_than": "14d"},
        {"rule": "stale", "older_than": "180d", "unused_for": "90d"},
    ],
    "scope": {"include": ["*"], "exclude": ["vip_*"], "model_names": []},
    "keep": {
        "protected_ids": [],
        "keep_within": "7d",
        "keep_last": 2,
        "group_by": "^(?P<group>[^_]+)_",
        "in_use": ["persona", "conversation", "video"],
    },
    "limits": {"max_deletions": 10, "max_deletion_percent": 25},
}


def test_the_policy_carries_its_defaults_and_its_durations_as_they_were_written() -> None:
    assert policy({"older_than": "090d"}).to_json() == {
        "name": "retention",
        "expire": [{"rule": "rule 1", "older_than": "090d", "status": ["completed", "error"]}],
        "scope": {"include": [], "exclude": [], "model_names": []},
        "narrow": {"include": [], "exclude": []},
        "keep": {"protected_ids": [], "in_use": ["persona", "conversation", "video"]},
        "limits": {"max_deletions": 10, "max_deletion_percent": 25},
    }


@pytest.mark.parametrize(
    "mapping", [pytest.param(FULL, id="full"), pytest.param({"expire": [STALE]}, id="least")]
)
def test_a_policy_read_from_its_own_json_is_the_same_policy(mapping: dict[str, Any]) -> None:
    first = Policy.parse(mapping)
    again = Policy.parse(json.loads(json.dumps(first.to_json())))
    assert again == first
    assert again.digest == first.digest
    assert Policy.parse(first) is first


def test_the_digest_changes_with_every_guard() -> None:
    digests = {
        policy().digest,
        policy(narrow={"exclude": ["x"]}).digest,
        policy(scope={"exclude": ["x"]}).digest,
        policy(keep={"in_use": []}).digest,
        policy(keep={"protected_ids": ["r1"]}).digest,
        policy(limits={"max_deletions": 11}).digest,
        policy({"rule": "stale", "older_than": "12w"}).digest,
    }
    assert len(digests) == 7


def test_the_canonical_digest_is_that_of_sorted_json_in_utf8() -> None:
    # printf '{"a":"é","b":[1,null]}' | sha256sum
    expected = "3d92f6368f93f3cb36a4e7a721098054dfbfd705e31fa50409f2d99e0727a08c"
    assert canonical_digest({"b": [1, None], "a": "é"}) == expected


def test_none_stands_for_the_default_only_where_no_guard_is_lost() -> None:
    assert Policy.parse({"name": None, "expire": [STALE], "limits": None}) == policy()


def test_a_policy_cannot_be_changed_after_it_was_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy().limits.max_deletions = 10_000


DURATION = "is not a duration, write one number and one unit such as 90d (units: w, d, h, m)"
LIMIT = "is not above zero and at most 36500d"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param("90", "'90' has no unit, write 90d (units: w, d, h, m)", id="text without a unit"),
        pytest.param(90, "90 has no unit, write 90d (units: w, d, h, m)", id="number"),
        pytest.param("", f"'' {DURATION}", id="empty"),
        pytest.param("  ", f"'  ' {DURATION}", id="blank"),
        pytest.param(None, f"None {DURATION}", id="none"),
        pytest.param("None", f"'None' {DURATION}", id="rendered none"),
        pytest.param(
            "{{ params.older_than }}", f"'{{{{ params.older_than }}}}' {DURATION}", id="not rendered"
        ),
        pytest.param("0d", f"'0d' {LIMIT}", id="zero days"),
        pytest.param("0", f"'0' {DURATION}", id="zero"),
        pytest.param(0, f"0 {DURATION}", id="zero as a number"),
        pytest.param("-1d", f"'-1d' {DURATION}", id="negative"),
        pytest.param(-1, f"-1 {DURATION}", id="negative number"),
        pytest.param("1.5d", f"'1.5d' {DURATION}", id="fraction"),
        pytest.param(1.5, f"1.5 {DURATION}", id="float"),
        pytest.param(float("nan"), f"nan {DURATION}", id="nan"),
        pytest.param(True, f"True {DURATION}", id="bool"),
        pytest.param("90D", f"'90D' {DURATION}", id="upper case"),
        pytest.param("90 d", f"'90 d' {DURATION}", id="space inside"),
        pytest.param("90d\n", f"'90d\\n' {DURATION}", id="newline"),
        pytest.param("1d12h", f"'1d12h' {DURATION}", id="two units"),
        pytest.param("3y", f"'3y' {DURATION}", id="years"),
        pytest.param("\u0669\u0660d", f"'\\u0669\\u0660d' {DURATION}", id="arabic digits"),
        pytest.param("36501d", f"'36501d' {LIMIT}", id="a day more than a century"),
        pytest.param("999999999w", f"'999999999w' {LIMIT}", id="more than Python can count"),
        pytest.param("9" * 99 + "d", f"'{'9' * 36}... {DURATION}", id="far more"),
        pytest.param(10**60, f"a huge number {DURATION}", id="huge number"),
        pytest.param(["90d"], f"a list {DURATION}", id="list"),
        pytest.param(timedelta(days=90), f"a timedelta {DURATION}", id="timedelta"),
    ],
)
@pytest.mark.parametrize("key", ["older_than", "unused_for"])
def test_a_duration_that_is_not_one_is_refused(key: str, value: object, said: str) -> None:
    with pytest.raises(TavusValidationError) as error:
        Policy.parse({"expire": [{"rule": "stale", key: value}]})
    assert str(error.value) == f"policy: expire.0.{key}: {said}"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        pytest.param("1m", timedelta(minutes=1), id="one minute"),
        pytest.param("12h", timedelta(hours=12), id="hours"),
        pytest.param("90d", timedelta(days=90), id="days"),
        pytest.param("2w", timedelta(days=14), id="weeks"),
        pytest.param("36500d", timedelta(days=36500), id="the longest"),
    ],
)
def test_a_duration_is_one_number_and_one_unit(text: str, meant: timedelta) -> None:
    limit = policy({"older_than": text}).expire[0].older_than
    assert limit is not None
    assert (str(limit), limit.delta) == (text, meant)


KEYS = "name, expire, scope, narrow, keep, legal_holds, account, hard_delete_after, limits"
NO_ID = "is not a replica id such as 'rf4e9d9790f0'"
BLANK = "is blank, or what a template makes of a missing value"
UNSEEN = "begins or ends with a space or holds an invisible character"


def refusal(value: object) -> str:
    with pytest.raises(TavusValidationError) as error:
        Policy.parse(value)
    assert str(error.value).isprintable()
    assert error.value.__cause__ is None
    assert error.value.__context__ is None, "the words of pydantic would be logged with ours"
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(None, f"None is not a mapping with keys of: {KEYS}", id="none"),
        pytest.param("stale", f"'stale' is not a mapping with keys of: {KEYS}", id="text"),
        pytest.param([STALE], f"a list is not a mapping with keys of: {KEYS}", id="list"),
        pytest.param({}, "expire: is missing", id="empty"),
        pytest.param({"expire": []}, "expire: is empty, name at least one rule", id="no rule"),
        pytest.param({"expire": None}, "expire: None is not a list", id="expire none"),
        pytest.param({"expire": STALE}, "expire: a dict is not a list", id="expire not a list"),
        pytest.param(
            {"expire": ["90d"]},
            "expire.0: '90d' is not a mapping with keys of: rule, older_than, unused_for, status, grace",
            id="rule not a mapping",
        ),
        pytest.param(
            {"expire": [{"rule": "failed", "status": ["error"]}]},
            "expire.0: has neither older_than nor unused_for, a rule needs one of them",
            id="status alone",
        ),
        pytest.param(
            {"expire": [{"rule": "all"}]},
            "expire.0: has neither older_than nor unused_for, a rule needs one of them",
            id="rule without condition",
        ),
        pytest.param(
            {"expire": [STALE, STALE]},
            "expire: 2 rules are named 'stale', give each a name of its own",
            id="same name",
        ),
        pytest.param(
            {"expire": [{"older_than": "90"}], "keep": {"keep_last": 0}},
            "expire.0.older_than: '90' has no unit, write 90d (units: w, d, h, m); "
            "keep.keep_last: 0 is below 1: to keep none by number leave it out",
            id="two problems",
        ),
        pytest.param(
            {"expire": [STALE], "keep": {"protected_ids": ["/"] * 9}},
            "; ".join(f"keep.protected_ids.{n}: '/' {NO_ID}" for n in range(5)) + "; and 4 more",
            id="nine problems",
        ),
    ],
)
def test_what_is_not_a_policy_is_refused_in_one_line_of_plain_words(value: object, said: str) -> None:
    assert refusal(value) == f"policy: {said}"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        pytest.param("rule", " ", f".rule: ' ' {BLANK}", id="blank name"),
        pytest.param("rule", None, ".rule: None is not text", id="name none"),
        pytest.param("status", [], ": status is empty, name at least one or leave it out", id="no status"),
        pytest.param("status", None, ".status: None is not a list", id="status none"),
        pytest.param("status", "error", ".status: 'error' is not a list", id="status text"),
        pytest.param(
            "status",
            ["ready"],
            ".status: 'ready' is not one of started, completed, error",
            id="unknown status",
        ),
        pytest.param(
            "status", [["error"]], ".status: a list is not one of started, completed, error", id="nested"
        ),
        pytest.param("status", ["error", "error"], ".status: 'error' is named twice", id="status twice"),
        pytest.param(
            "older_then",
            "90d",
            ": unknown key 'older_then'; known: rule, older_than, unused_for, status, grace",
            id="mistyped",
        ),
    ],
)
def test_a_rule_that_is_not_one_is_refused(key: str, value: object, said: str) -> None:
    assert refusal({"expire": [{**STALE, key: value}]}) == f"policy: expire.0{said}"


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        pytest.param("name", " ", f": ' ' {BLANK}", id="blank name"),
        pytest.param(
            "scope", None, ": None is not a mapping with keys of: include, exclude, model_names", id="none"
        ),
        pytest.param("scope", {"include": "a_*"}, ".include: 'a_*' is not a list", id="glob not in a list"),
        pytest.param("scope", {"exclude": None}, ".exclude: None is not a list", id="exclude none"),
        pytest.param(
            "narrow",
            {"model_names": []},
            ": unknown key 'model_names'; known: include, exclude, older_than",
            id="a form names no models",
        ),
        pytest.param("narrow", {"include": [""]}, f".include.0: '' {BLANK}", id="blank glob"),
        pytest.param("narrow", {"include": ["None"]}, f".include.0: 'None' {BLANK}", id="rendered none"),
        pytest.param("narrow", {"include": ["a", 7]}, ".include.1: 7 is not text", id="glob a number"),
        pytest.param(
            "narrow", {"exclude": ["vip_* "]}, f".exclude.0: 'vip_* ' {UNSEEN}", id="glob with space"
        ),
        pytest.param(
            "narrow",
            {"exclude": ["a\r\nINFO deleted 0\x1b[2J\u202e"]},
            f".exclude.0: 'a\\r\\nINFO deleted 0\\x1b[2J\\u202e' {UNSEEN}",
            id="glob that breaks the line",
        ),
        pytest.param(
            "scope", {"model_names": ["\ud800"]}, f".model_names.0: '\\ud800' {UNSEEN}", id="half a character"
        ),
        pytest.param(
            "keep",
            {"protected": ["r1"]},
            ": unknown key 'protected'; known: protected_ids, keep_within, keep_last, group_by, in_use",
            id="mistyped guard",
        ),
        pytest.param("keep", {"protected_ids": None}, ".protected_ids: None is not a list", id="ids none"),
        pytest.param("keep", {"protected_ids": "r1"}, ".protected_ids: 'r1' is not a list", id="ids text"),
        pytest.param(
            "keep", {"protected_ids": ["r1", "None"]}, f".protected_ids.1: 'None' {NO_ID}", id="id none"
        ),
        pytest.param(
            "keep", {"protected_ids": ["../x"]}, f".protected_ids.0: '../x' {NO_ID}", id="id a path"
        ),
        pytest.param(
            "keep",
            {"keep_within": "7"},
            ".keep_within: '7' has no unit, write 7d (units: w, d, h, m)",
            id="keep_within without a unit",
        ),
        pytest.param("keep", {"keep_within": None}, f".keep_within: None {DURATION}", id="keep_within none"),
        pytest.param(
            "keep",
            {"keep_last": 0},
            ".keep_last: 0 is below 1: to keep none by number leave it out",
            id="keep_last 0",
        ),
        pytest.param(
            "keep", {"keep_last": True}, ".keep_last: True is not a whole number", id="keep_last bool"
        ),
        pytest.param(
            "keep", {"keep_last": "2"}, ".keep_last: '2' is not a whole number", id="keep_last text"
        ),
        pytest.param(
            "keep", {"keep_last": None}, ".keep_last: None is not a whole number", id="keep_last none"
        ),
        pytest.param(
            "keep",
            {"group_by": "(?P<group>.)"},
            ": group_by without keep_last groups nothing, add keep_last or leave group_by out",
            id="group_by alone",
        ),
        pytest.param(
            "keep",
            {"keep_last": 1, "group_by": "(.)_"},
            ".group_by: '(.)_' has no group named 'group', write (?P<group>...)",
            id="group_by without the group",
        ),
        pytest.param(
            "keep",
            {"keep_last": 1, "group_by": "(?P<group>"},
            ".group_by: '(?P<group>' is not a regular expression: "
            "missing ), unterminated subpattern at position 0",
            id="group_by broken",
        ),
        pytest.param(
            "keep",
            {"in_use": ["personas"]},
            ".in_use: 'personas' is not one of persona, conversation, video",
            id="unknown use",
        ),
        pytest.param("keep", {"in_use": ["video"] * 2}, ".in_use: 'video' is named twice", id="use twice"),
        pytest.param("keep", {"in_use": None}, ".in_use: None is not a list", id="use none"),
        pytest.param("hard", True, f"unknown key 'hard'; known: {KEYS}", id="unknown key"),
        pytest.param(1, True, f"unknown key 1; known: {KEYS}", id="key is a number"),
    ],
)
def test_a_part_of_the_policy_that_is_not_one_is_refused(part: Any, value: object, said: str) -> None:
    where = "" if said.startswith("unknown") else part
    assert refusal({"expire": [STALE], part: value}) == f"policy: {where}{said}"


@pytest.mark.parametrize("key", ["max_deletions", "max_deletion_percent"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(-1, "-1 is below 0", id="negative"),
        pytest.param(True, "True is not a whole number", id="bool"),
        pytest.param("10", "'10' is not a whole number", id="text"),
        pytest.param("{{ params.max }}", "'{{ params.max }}' is not a whole number", id="template"),
        pytest.param(10.0, "10.0 is not a whole number", id="float"),
        pytest.param(1e9, "1000000000.0 is not a whole number", id="1e9"),
        pytest.param(float("nan"), "nan is not a whole number", id="nan"),
        pytest.param(float("inf"), "inf is not a whole number", id="inf"),
        pytest.param(None, "None is not a whole number", id="none"),
    ],
)
def test_a_limit_is_a_whole_number(key: str, value: object, said: str) -> None:
    with pytest.raises(TavusValidationError) as error:
        policy(limits={key: value})
    assert str(error.value).startswith(f"policy: limits.{key}: {said}")


def test_no_percentage_is_above_a_hundred() -> None:
    assert policy(limits={"max_deletion_percent": 100}).limits.max_deletion_percent == 100
    with pytest.raises(
        TavusValidationError, match=r"^policy: limits.max_deletion_percent: 101 is below 0 or above 100$"
    ):
        policy(limits={"max_deletion_percent": 101})


@pytest.mark.parametrize(
    ("in_use", "rule", "needs"),
    [
        pytest.param(None, STALE, {"personas", "conversations", "videos"}, id="all by default"),
        pytest.param([], STALE, set(), id="age alone needs nothing"),
        pytest.param(["persona"], STALE, {"personas"}, id="persona"),
        pytest.param(
            ["conversation"], STALE, {"personas", "conversations"}, id="a conversation's persona counts"
        ),
        pytest.param(["video"], STALE, {"videos"}, id="video"),
        pytest.param([], {"unused_for": "1d"}, {"personas", "conversations", "videos"}, id="unused_for"),
    ],
)
def test_a_policy_needs_the_lists_its_rules_and_guards_look_at(
    in_use: list[str] | None, rule: dict[str, Any], needs: set[str]
) -> None:
    assert policy(rule, keep={} if in_use is None else {"in_use": in_use}).needs == needs


# --- the ladder ---------------------------------------------------------------------------------------

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
            id="type in doubt",
        ),
        pytest.param(
            replica(unreadable={"replica_type": "replica_type is in doubt"}),
            {},
            "not_user",
            "replica_type is in doubt",
            id="type given and yet in doubt",
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
            id="date in doubt",
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
            id="status in doubt",
        ),
        pytest.param(
            {
                "replica_name": None,
                "unreadable": {"replica_name": "replica_name is not text but of type list"},
            },
            "replica_name is not text but of type list",
            id="name in doubt",
        ),
        pytest.param(
            {
                "status": "error",
                "unreadable": {"updated_at": "updated_at '1706080443' is not an ISO 8601 or RFC 1123 date"},
            },
            "updated_at '1706080443' is not an ISO 8601 or RFC 1123 date",
            id="failed, update in doubt",
        ),
        pytest.param(
            {"status": "error", "updated_at": NOW + SECOND},
            "updated_at 2026-09-01T12:00:01Z is in the future",
            id="failed, updated a second ahead",
        ),
    ],
)
def test_a_replica_in_doubt_is_undetermined_even_if_protected(facts: dict[str, Any], reason: str) -> None:
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
            id="not failed, update in doubt",
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
            id="model in doubt, none asked for",
        ),
    ],
)
def test_a_doubt_about_what_no_rule_looks_at_does_not_matter(facts: dict[str, Any], reason: str) -> None:
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
def test_a_date_that_tavus_sends_deletes_only_if_it_is_beyond_doubt(
    created_at: object, reason_code: str
) -> None:
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


def test_a_failed_replica_without_updated_at_counts_from_its_creation() -> None:
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
def test_what_is_in_use_stays_and_the_reason_names_the_user(replica_id: str, reason: str | None) -> None:
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
def test_only_the_kinds_of_use_that_are_named_keep(kinds: list[str], kept: set[str]) -> None:
    ids = ["r_default", "r_talking", "r_strange", "r_silent", "r_filming", "r_queued", "r_blank"]
    found = decide(*map(replica, ids), by=policy(keep={"in_use": kinds}), use=IN_USE)
    assert {v.replica.replica_id for v in found.verdicts if v.reason_code == "in_use"} == kept
    assert {v.replica.replica_id for v in found.delete} == set(ids) - kept


def test_an_active_conversation_without_replica_uses_the_default_one_of_its_persona() -> None:
    use = Inventory((), [Persona("p1", "r1")], [conversation(None, status="active", persona_id="p1")], [])
    found = verdict(replica(), by=policy(keep={"in_use": ["conversation"]}), use=use)
    assert found.reason == "is in active conversation c1"


@pytest.mark.parametrize("turn", [1, -1])
def test_of_several_uses_the_same_one_is_named_in_whatever_order_they_were_listed(turn: int) -> None:
    personas = [Persona("p2", "r1"), Persona("p1", "r1")][::turn]
    talks = [conversation("r2", status="active", activity_id=i, at=None) for i in ("c2", "c1")][::turn]
    found = decide(replica("r1"), replica("r2"), use=Inventory((), personas, talks, []))
    assert [v.reason for v in found.verdicts] == [
        "is the default of persona p1",
        "is in active conversation c1",
    ]
    by_use = policy({"unused_for": "1d"})
    (doubt,) = evaluate(by_use, Inventory([replica("r2")], [], talks, []), now=NOW).undetermined
    assert doubt.reason == "last use is unknown: conversation c1 has no readable date"


@pytest.mark.parametrize("persona_id", [None, "p_unlisted", "p_bare"])
def test_nothing_is_decided_while_an_active_conversation_hides_its_replica(persona_id: str | None) -> None:
    hidden = conversation(None, status="active", persona_id=persona_id, activity_id="c7\n")
    use = Inventory((), [Persona("p_bare", None)], [hidden], [])
    with pytest.raises(TavusInvalidResponseError) as error:
        decide(replica(), use=use)
    assert str(error.value) == (
        "conversation c7\\n is active and does not say which replica it uses; nothing may be deleted"
    )
    assert decide(replica(), by=policy(keep={"in_use": ["persona", "video"]}), use=use).delete


def test_nothing_is_decided_while_an_unfinished_video_hides_its_replica() -> None:
    use = Inventory((), [], [], [video(None, status="generating", activity_id="v9")])
    with pytest.raises(
        TavusInvalidResponseError, match="video v9 is generating and does not say which replica it uses"
    ):
        decide(replica(), use=use)


def test_a_finished_conversation_or_video_that_hides_its_replica_stops_no_rule_on_age() -> None:
    use = Inventory((), [], [conversation(None, status="ended")], [video(None, status="ready")])
    assert decide(replica(), use=use).delete


def test_what_hides_its_replica_counts_as_use_of_every_replica() -> None:
    by_use = policy({"unused_for": "30d"})
    hidden = video(None, status="ready", activity_id="v9", at=NOW - timedelta(days=20))
    older = conversation(None, status="ended", activity_id="c8", at=NOW - timedelta(days=25))
    (verdict,) = evaluate(by_use, Inventory([replica()], [], [older], [hidden]), now=NOW).verdicts
    assert (verdict.reason_code, verdict.reason) == (
        "not_expired",
        "perhaps used 20 days ago, video v9 does not say by which replica it was made, "
        "rule 'rule 1' asks for 30d",
    )
    assert evaluate(by_use, Inventory([replica()], [], [], [hidden]), now=NOW + timedelta(days=10)).delete
    undated = video(None, status="ready", at=None)
    assert not evaluate(by_use, Inventory([replica()], [], [], [undated]), now=NOW).delete


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
def test_a_reason_to_keep_outweighs_a_rule_that_matches(
    one: Replica, keep: dict[str, Any], rules: list[dict[str, Any]], reason_code: str, reason: str
) -> None:
    found = verdict(one, by=policy(*rules, keep=keep))
    assert (found.reason_code, found.reason) == (reason_code, reason)
    assert found.status == (reason_code if reason_code in {"expired", "not_expired"} else "kept")


def test_the_first_reason_to_keep_is_the_one_that_is_told() -> None:
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


def words(found: Decision) -> dict[str, str]:
    return {v.replica.replica_id: v.reason_code for v in found.verdicts}


def test_keep_last_counts_over_all_of_a_group_not_only_the_expired() -> None:
    ages = {"r1": 10, "r2": 20, "r3": 100, "r4": 200}
    found = decide(
        *(replica(i, age=timedelta(days=d)) for i, d in ages.items()), by=policy(keep={"keep_last": 2})
    )
    assert words(found) == {"r1": "keep_last", "r2": "keep_last", "r3": "expired", "r4": "expired"}
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
        pytest.param({"created_at": NOW, "status": "started"}, True, id="in training"),
        pytest.param({"created_at": NOW, "status": "error"}, True, id="failed"),
    ],
)
def test_what_is_in_doubt_takes_no_place_of_keep_last(facts: dict[str, Any], takes_a_place: bool) -> None:
    by = policy(scope={"exclude": ["vip_*"]}, keep={"keep_last": 1})
    found = words(decide(replica("r1"), replica("r2", **facts), by=by))
    assert found["r1"] == ("expired" if takes_a_place else "keep_last")
    assert found["r2"] != "expired"


def test_protected_replicas_take_a_place_of_keep_last() -> None:
    by = policy(keep={"keep_last": 1, "protected_ids": ["r2"]})
    found = decide(replica("r1"), replica("r2", age=timedelta(days=100)), by=by)
    assert words(found) == {"r1": "expired", "r2": "protected"}


def test_keep_last_counts_within_each_group_and_a_name_without_group_is_its_own() -> None:
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


def test_an_optional_group_that_does_not_match_is_a_group_of_its_own() -> None:
    by = policy(keep={"keep_last": 1, "group_by": "x|(?P<group>y)"})
    found = decide(replica("r1", replica_name="x"), replica("r2", replica_name="x"), by=by)
    assert found.keep == {"keep_last": 2}


def test_of_two_created_at_once_the_smaller_id_counts_as_the_newer() -> None:
    found = decide(replica("r2"), replica("r1"), by=policy(keep={"keep_last": 1}))
    assert words(found) == {"r1": "keep_last", "r2": "expired"}


LATELY = {"rule": "idle", "older_than": "180d", "unused_for": "90d"}


@pytest.mark.parametrize(
    ("one", "rules", "reason_code", "reason", "rule"),
    [
        pytest.param(
            replica(age=timedelta(days=90)),
            [STALE],
            "expired",
            "90 days old, limit is 90d",
            "stale",
            id="at the limit",
        ),
        pytest.param(
            replica(age=timedelta(days=90) - SECOND),
            [STALE],
            "not_expired",
            "89 days old, rule 'stale' asks for 90d",
            None,
            id="a second before",
        ),
        pytest.param(
            replica(age=timedelta(days=90) + SECOND),
            [STALE],
            "expired",
            "90 days old, limit is 90d",
            "stale",
            id="a second after",
        ),
        pytest.param(
            replica(age=timedelta(days=2)),
            [{"older_than": "36h"}],
            "expired",
            "48 hours old, limit is 36h",
            "rule 1",
            id="in the unit of the limit",
        ),
        pytest.param(
            replica(age=timedelta(minutes=1)),
            [{"older_than": "1m"}],
            "expired",
            "1 minute old, limit is 1m",
            "rule 1",
            id="one minute",
        ),
        pytest.param(
            replica(age=timedelta()),
            [STALE],
            "not_expired",
            "0 days old, rule 'stale' asks for 90d",
            None,
            id="created now",
        ),
        pytest.param(
            replica(status="error"),
            [{"rule": "failed", "status": ["error"], "older_than": "14d"}, STALE],
            "expired",
            "200 days old, limit is 14d",
            "failed",
            id="the first rule that holds",
        ),
        pytest.param(
            replica(),
            [{"rule": "failed", "status": ["error"], "older_than": "14d"}],
            "not_expired",
            "no rule matches status 'completed'",
            None,
            id="no rule for this status",
        ),
        pytest.param(
            replica(age=timedelta(days=80)),
            [{"rule": "later", "older_than": "365d"}, STALE],
            "not_expired",
            "80 days old, rule 'stale' asks for 90d",
            None,
            id="the nearest rule is told",
        ),
        pytest.param(
            replica(),
            [{"rule": "never", "unused_for": "90d"}],
            "expired",
            "never used since it was created 200 days ago, limit is 90d",
            "never",
            id="never used",
        ),
        pytest.param(
            replica(),
            [LATELY],
            "expired",
            "200 days old, limit is 180d; never used since it was created 200 days ago, limit is 90d",
            "idle",
            id="both conditions",
        ),
        pytest.param(
            replica(age=timedelta(days=80)),
            [LATELY],
            "not_expired",
            "80 days old, rule 'idle' asks for 180d; "
            "never used since it was created 80 days ago, rule 'idle' asks for 90d",
            None,
            id="neither condition",
        ),
        pytest.param(
            replica(age=timedelta(days=100)),
            [LATELY],
            "not_expired",
            "100 days old, rule 'idle' asks for 180d",
            None,
            id="one condition",
        ),
    ],
)
def test_a_replica_expires_by_the_first_rule_all_of_whose_conditions_hold(
    one: Replica, rules: list[dict[str, Any]], reason_code: str, reason: str, rule: str | None
) -> None:
    found = verdict(one, by=policy(*rules))
    assert (found.reason_code, found.reason, found.rule) == (reason_code, reason, rule)


@pytest.mark.parametrize(
    ("use", "reason_code", "reason"),
    [
        pytest.param(
            Inventory((), [], [conversation(at=ago(days=90))], []),
            "expired",
            "unused for 90 days, limit is 90d",
            id="at the limit",
        ),
        pytest.param(
            Inventory((), [], [conversation(at=ago(days=90) + SECOND)], []),
            "not_expired",
            "unused for 89 days, rule 'idle' asks for 90d",
            id="a second before",
        ),
        pytest.param(
            Inventory((), [], [conversation(at=ago(days=150))], [video(at=ago(days=120), status="ready")]),
            "expired",
            "unused for 120 days, limit is 90d",
            id="the newest use counts, of whatever kind",
        ),
        pytest.param(
            Inventory((), [Persona("p1", "r1")], [conversation(None, at=ago(days=3), persona_id="p1")], []),
            "not_expired",
            "unused for 3 days, rule 'idle' asks for 90d",
            id="used through its persona",
        ),
        pytest.param(
            Inventory((), [Persona("p1", "r1")], [conversation("r2", at=ago(days=3), persona_id="p1")], []),
            "expired",
            "never used since it was created 200 days ago, limit is 90d",
            id="the conversation's own replica counts",
        ),
        pytest.param(
            Inventory((), [], [conversation(at=None), conversation(at=ago(days=150), activity_id="c2")], []),
            "undetermined",
            "last use is unknown: conversation c1 has no readable date",
            id="a use without date",
        ),
        pytest.param(
            Inventory((), [], [], [video(at=NOW + SECOND, status="ready", activity_id="v1")]),
            "undetermined",
            "last use is unknown: video v1 is dated in the future",
            id="a use a second ahead",
        ),
        pytest.param(
            Inventory((), [], [conversation(at=NOW)], []),
            "not_expired",
            "unused for 0 days, rule 'idle' asks for 90d",
            id="used now",
        ),
    ],
)
def test_unused_for_counts_from_the_last_use(use: Inventory, reason_code: str, reason: str) -> None:
    by = policy({"rule": "idle", "unused_for": "90d"}, keep={"in_use": []})
    found = verdict(replica(), by=by, use=use)
    assert (found.reason_code, found.reason) == (reason_code, reason)


def test_a_use_of_unknown_date_matters_only_where_a_rule_asks_for_use() -> None:
    use = Inventory((), [], [conversation(at=None)], [])
    assert verdict(replica(), use=use).reason_code == "expired"
    by = policy({"rule": "a", "unused_for": "1d", "status": ["error"]}, {"rule": "b", "older_than": "1d"})
    assert verdict(replica(), by=by, use=use).reason_code == "expired"
    assert verdict(replica(status="error"), by=by, use=use).reason_code == "undetermined"


def test_a_verdict_tells_age_and_last_use_only_where_they_are_known() -> None:
    used = Inventory((), [], [conversation(at=ago(days=4))], [])
    found = verdict(replica(), use=used)
    assert (found.age_days, found.last_used_at) == (200, ago(days=4))
    assert verdict(replica()).last_used_at is None
    assert verdict(replica(created_at=NOW + SECOND)).age_days is None
    assert verdict(replica(), use=Inventory((), [], [conversation(at=None)], [])).last_used_at is None
    # Where videos were not read the last use is not known, whatever the conversations say.
    assert verdict(replica(), by=policy(keep={"in_use": ["conversation"]}), use=used).last_used_at is None


def test_what_servers_and_policies_call_things_cannot_break_the_line() -> None:
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


# --- the decision -------------------------------------------------------------------------------------


def test_a_decision_lists_what_goes_first_and_does_not_depend_on_the_listing() -> None:
    replicas = [
        replica("r_b"),
        replica("r_a"),
        replica("r_old", age=timedelta(days=400)),
        replica("r_doubt", created_at=None),
        replica("r_young", age=timedelta(days=1)),
        replica("r_system", replica_type="system"),
        replica("r_safe"),
    ]
    by = policy(keep={"protected_ids": ["r_safe"]})
    expected = ["r_old", "r_a", "r_b", "r_doubt", "r_young", "r_system", "r_safe"]
    for _ in range(5):
        random.shuffle(replicas)
        found = decide(*replicas, by=by)
        assert [v.replica.replica_id for v in found.verdicts] == expected
    assert found.listed == 7
    assert [v.replica.replica_id for v in found.delete] == expected[:3]
    assert [v.reason for v in found.undetermined] == ["created_at is not given"]
    assert list(found.keep.items()) == [("not_expired", 1), ("not_user", 1), ("protected", 1)]


def test_nothing_listed_is_nothing_to_delete() -> None:
    found = decide(by=policy(limits={"max_deletions": 0, "max_deletion_percent": 0}))
    assert (found.listed, found.delete, found.keep, found.limit_exceeded) == (0, (), {}, None)


def test_an_id_listed_twice_is_no_listing() -> None:
    with pytest.raises(
        TavusInvalidResponseError, match=r"^replica r1 was listed twice; nothing may be deleted$"
    ):
        decide(replica("r1"), replica("r2"), replica("r1", status="error"))


@pytest.mark.parametrize("now", [None, "2026-09-01T12:00:00Z", datetime(2026, 9, 1), 0, NOW.date()])  # noqa: DTZ001
def test_a_time_without_a_zone_is_refused(now: Any) -> None:
    with pytest.raises(TavusValidationError, match=r"^now must be a datetime with a time zone, not '"):
        evaluate(policy(), Inventory([]), now=now)


def test_the_zone_of_now_does_not_matter() -> None:
    kiritimati = NOW.astimezone(timezone(timedelta(hours=14)))
    found = evaluate(policy(), Inventory([replica(age=timedelta(days=90))]), now=kiritimati)
    assert found == decide(replica(age=timedelta(days=90)))


class Pendulum(datetime):
    """Like pendulum's: what its difference is only a library knows."""

    def __sub__(self, other: object) -> Any:
        raise NotImplementedError

    __rsub__ = __sub__


def test_a_now_that_does_sums_in_its_own_way_decides_the_same() -> None:
    now = Pendulum(2026, 9, 1, 12, tzinfo=UTC)
    used = Inventory((), [], [conversation(at=ago(days=3))], [])
    assert evaluate(policy(), replace(used, replicas=[replica()]), now=now) == decide(replica(), use=used)


LOOSE = {"max_deletions": 1000, "max_deletion_percent": 100}


@pytest.mark.parametrize(
    ("expired", "kept", "limits", "breach"),
    [
        pytest.param(10, 90, {}, None, id="10 by default"),
        pytest.param(
            11, 89, {}, "11 of 100 replicas would be deleted, max_deletions is 10", id="11 by default"
        ),
        pytest.param(5, 15, {}, None, id="exactly 25 percent by default"),
        pytest.param(
            6, 15, {}, "6 of 21 replicas would be deleted, max_deletion_percent is 25", id="28 percent"
        ),
        pytest.param(
            11,
            0,
            {},
            "11 of 11 replicas would be deleted, max_deletions is 10 and max_deletion_percent is 25",
            id="both",
        ),
        pytest.param(0, 5, {"max_deletions": 0, "max_deletion_percent": 0}, None, id="nothing within zero"),
        pytest.param(
            1,
            5,
            {**LOOSE, "max_deletions": 0},
            "1 of 6 replicas would be deleted, max_deletions is 0",
            id="0 allows none",
        ),
        pytest.param(
            1,
            500,
            {**LOOSE, "max_deletion_percent": 0},
            "1 of 501 replicas would be deleted, max_deletion_percent is 0",
            id="0 percent allows none",
        ),
        pytest.param(29, 71, {**LOOSE, "max_deletion_percent": 29}, None, id="29 percent without rounding"),
        pytest.param(7, 0, LOOSE, None, id="100 percent allows all"),
    ],
)
def test_a_limit_that_is_passed_forbids_the_whole_decision(
    expired: int, kept: int, limits: dict[str, int], breach: str | None
) -> None:
    replicas = [
        replica(f"r_{n}", age=timedelta(days=100 if n < expired else 1)) for n in range(expired + kept)
    ]
    found = decide(*replicas, by=policy(limits=limits))
    assert len(found.delete) == expired
    tail = ": narrow the policy or raise the limit in the DAG file; nothing was deleted"
    assert found.limit_exceeded == (None if breach is None else breach + tail)


def test_limits_can_be_asked_without_a_decision() -> None:
    assert Limits().exceeded(delete=10, listed=40) is None
    assert Limits().exceeded(delete=10, listed=39) is not None
