"""Which policies are valid, and the messages for invalid ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from retention.samples import (
    STALE,
    policy,
)

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.conditions import CONDITIONS
from tavus_provider.retention.policy import Limits, Policy

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
        "active_for": "2d",
    },
    "limits": {"max_deletions": 10, "max_deletion_percent": 25},
}


def test_json_has_all_defaults_and_durations_as_written() -> None:
    assert policy({"older_than": "090d"}).to_json() == {
        "name": "retention",
        "expire": [{"rule": "rule 1", "older_than": "090d", "status": ["completed", "error"]}],
        "scope": {"include": [], "exclude": [], "model_names": []},
        "narrow": {"include": [], "exclude": []},
        "keep": {
            "protected_ids": [],
            "in_use": ["persona", "conversation", "video"],
            "active_for": "24h",
        },
        "limits": {"max_deletions": 10, "max_deletion_percent": 25},
    }


@pytest.mark.parametrize(
    "mapping", [pytest.param(FULL, id="full"), pytest.param({"expire": [STALE]}, id="least")]
)
def test_policy_parsed_from_its_own_json_is_equal(mapping: dict[str, Any]) -> None:
    first = Policy.parse(mapping)
    again = Policy.parse(json.loads(json.dumps(first.to_json())))
    assert again == first
    assert again.digest == first.digest
    assert Policy.parse(first) is first


def test_digest_depends_on_every_guard() -> None:
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


def test_null_means_the_default_of_name_and_limits() -> None:
    assert Policy.parse({"name": None, "expire": [STALE], "limits": None}) == policy()


def test_policy_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy().limits.max_deletions = 10_000


KEYS = (
    "name, expire, quota, scope, narrow, keep, legal_holds, account, hard_delete_after, overdue_after, limits"
)


CONDITION_KEYS = ", ".join(kind.key for kind in CONDITIONS if kind.suffices)
RULE_KEYS = ", ".join(["rule", "status", "grace", *(kind.key for kind in CONDITIONS)])
ID = "must be a replica id such as 'rf4e9d9790f0', not"
BLANK = "must be text that is not blank, not"
PRINTABLE = "must be text without invisible characters or spaces at its ends, not"


def rejection(value: object) -> str:
    with pytest.raises(TavusValidationError) as error:
        Policy.parse(value)
    assert str(error.value).isprintable()
    assert error.value.__cause__ is None
    assert error.value.__context__ is None, "the words of pydantic would be logged with ours"
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param(None, f"must be a mapping with keys of {KEYS}, not None", id="none"),
        pytest.param("stale", f"must be a mapping with keys of {KEYS}, not 'stale'", id="text"),
        pytest.param([STALE], f"must be a mapping with keys of {KEYS}, not a list", id="list"),
        pytest.param({}, "expire: is missing", id="empty"),
        pytest.param({"expire": []}, "expire: must not be empty; name at least one", id="no rule"),
        pytest.param({"expire": None}, "expire: must be a list, not None", id="expire none"),
        pytest.param({"expire": STALE}, "expire: must be a list, not a dict", id="expire not a list"),
        pytest.param(
            {"expire": ["90d"]},
            "expire.0: must be a mapping with keys of " + RULE_KEYS + ", not '90d'",
            id="rule not a mapping",
        ),
        pytest.param(
            {"expire": [{"rule": "failed", "status": ["error"]}]},
            f"expire.0: must have a condition: {CONDITION_KEYS}",
            id="status alone",
        ),
        pytest.param(
            {"expire": [{"rule": "all"}]},
            f"expire.0: must have a condition: {CONDITION_KEYS}",
            id="rule without condition",
        ),
        pytest.param(
            {"expire": [STALE, STALE]},
            "expire: 2 rules are named 'stale'; give each rule its own name",
            id="same name",
        ),
        pytest.param(
            {"expire": [{"older_than": "90"}], "keep": {"keep_last": 0}},
            "expire.0.older_than: '90' has no unit; write 90d (units: y, w, d, h, min); "
            "keep.keep_last: must be >= 1, not 0; omit it to disable",
            id="two problems",
        ),
        pytest.param(
            {"expire": [STALE], "keep": {"protected_ids": ["/"] * 9}},
            "; ".join(f"keep.protected_ids.{n}: {ID} '/'" for n in range(5)) + "; and 4 more",
            id="nine problems",
        ),
    ],
)
def test_invalid_policy_is_rejected_in_one_line(value: object, problem: str) -> None:
    assert rejection(value) == f"policy: {problem}"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        pytest.param("rule", " ", f".rule: {BLANK} ' '", id="blank name"),
        pytest.param("rule", None, ".rule: must be text, not None", id="name none"),
        pytest.param("status", [], ".status: must not be empty; name at least one", id="no status"),
        pytest.param("status", None, ".status: must be a list, not None", id="status none"),
        pytest.param("status", "error", ".status: must be a list, not 'error'", id="status text"),
        pytest.param(
            "status",
            ["ready"],
            ".status.0: must be 'started', 'completed' or 'error', not 'ready'",
            id="unknown status",
        ),
        pytest.param(
            "status",
            [["error"]],
            ".status.0: must be 'started', 'completed' or 'error', not a list",
            id="nested",
        ),
        pytest.param(
            "status", ["error", "error"], ".status: must contain 'error' only once", id="status twice"
        ),
        pytest.param(
            "older_then",
            "90d",
            f": unknown key 'older_then'; known: {RULE_KEYS}",
            id="mistyped",
        ),
    ],
)
def test_invalid_rule_is_rejected(key: str, value: object, problem: str) -> None:
    assert rejection({"expire": [{**STALE, key: value}]}) == f"policy: expire.0{problem}"


@pytest.mark.parametrize(
    ("part", "value", "problem"),
    [
        pytest.param("name", " ", f": {BLANK} ' '", id="blank name"),
        pytest.param(
            "scope",
            None,
            ": must be a mapping with keys of include, exclude, model_names, not None",
            id="none",
        ),
        pytest.param(
            "scope", {"include": "a_*"}, ".include: must be a list, not 'a_*'", id="glob not in a list"
        ),
        pytest.param("scope", {"exclude": None}, ".exclude: must be a list, not None", id="exclude none"),
        pytest.param(
            "narrow",
            {"model_names": []},
            ": unknown key 'model_names'; known: include, exclude, older_than",
            id="a form names no models",
        ),
        pytest.param("narrow", {"include": [""]}, f".include.0: {BLANK} ''", id="blank glob"),
        pytest.param(
            "narrow",
            {"include": ["None"]},
            f".include.0: {BLANK} 'None' (a template with a missing value)",
            id="rendered none",
        ),
        pytest.param("narrow", {"include": ["a", 7]}, ".include.1: must be text, not 7", id="glob a number"),
        pytest.param(
            "narrow", {"exclude": ["vip_* "]}, f".exclude.0: {PRINTABLE} 'vip_* '", id="glob with space"
        ),
        pytest.param(
            "narrow",
            {"exclude": ["a\r\nINFO deleted 0\x1b[2J\u202e"]},
            f".exclude.0: {PRINTABLE} 'a\\r\\nINFO deleted 0\\x1b[2J\\u202e'",
            id="glob that breaks the line",
        ),
        pytest.param(
            "scope",
            {"model_names": ["\ud800"]},
            f".model_names.0: {PRINTABLE} '\\ud800'",
            id="half a character",
        ),
        pytest.param(
            "keep",
            {"protected": ["r1"]},
            ": unknown key 'protected'; known: protected_ids, keep_within, keep_last, group_by, "
            "in_use, active_for",
            id="mistyped guard",
        ),
        pytest.param(
            "keep", {"protected_ids": None}, ".protected_ids: must be a list, not None", id="ids none"
        ),
        pytest.param(
            "keep", {"protected_ids": "r1"}, ".protected_ids: must be a list, not 'r1'", id="ids text"
        ),
        pytest.param(
            "keep", {"protected_ids": ["r1", "None"]}, f".protected_ids.1: {ID} 'None'", id="id none"
        ),
        pytest.param("keep", {"protected_ids": ["../x"]}, f".protected_ids.0: {ID} '../x'", id="id a path"),
        pytest.param(
            "keep",
            {"keep_within": "7"},
            ".keep_within: '7' has no unit; write 7d (units: y, w, d, h, min)",
            id="keep_within without a unit",
        ),
        pytest.param(
            "keep",
            {"keep_within": None},
            ".keep_within: must be one number and one unit such as 90d (units: y, w, d, h, min), not None",
            id="keep_within none",
        ),
        pytest.param(
            "keep",
            {"keep_last": 0},
            ".keep_last: must be >= 1, not 0; omit it to disable",
            id="keep_last 0",
        ),
        pytest.param(
            "keep", {"keep_last": True}, ".keep_last: must be a whole number, not True", id="keep_last bool"
        ),
        pytest.param(
            "keep", {"keep_last": "2"}, ".keep_last: must be a whole number, not '2'", id="keep_last text"
        ),
        pytest.param(
            "keep", {"keep_last": None}, ".keep_last: must be a whole number, not None", id="keep_last none"
        ),
        pytest.param(
            "keep",
            {"group_by": "(?P<group>.)"},
            ": group_by has no effect without keep_last; add keep_last or omit group_by",
            id="group_by alone",
        ),
        pytest.param(
            "keep",
            {"keep_last": 1, "group_by": "(.)_"},
            ".group_by: must have a group named 'group': write (?P<group>...), not '(.)_'",
            id="group_by without the group",
        ),
        pytest.param(
            "keep",
            {"keep_last": 1, "group_by": "(?P<group>"},
            ".group_by: must be a regular expression, not '(?P<group>': "
            "missing ), unterminated subpattern at position 0",
            id="group_by broken",
        ),
        pytest.param(
            "keep",
            {"in_use": ["personas"]},
            ".in_use.0: must be 'persona', 'conversation' or 'video', not 'personas'",
            id="unknown use",
        ),
        pytest.param(
            "keep",
            {"active_for": "59min"},
            ".active_for: must be at least 1h, as long as a call can last, not '59min'",
            id="shorter than a call",
        ),
        pytest.param(
            "keep",
            {"active_for": None},
            ".active_for: must be one number and one unit such as 90d (units: y, w, d, h, min), not None",
            id="null for active_for",
        ),
        pytest.param(
            "keep", {"in_use": ["video"] * 2}, ".in_use: must contain 'video' only once", id="use twice"
        ),
        pytest.param("keep", {"in_use": None}, ".in_use: must be a list, not None", id="use none"),
        pytest.param("hard", True, f"unknown key 'hard'; known: {KEYS}", id="unknown key"),
        pytest.param(1, True, f"unknown key 1; known: {KEYS}", id="key is a number"),
    ],
)
def test_invalid_part_is_rejected(part: Any, value: object, problem: str) -> None:
    where = "" if problem.startswith("unknown") else part
    assert rejection({"expire": [STALE], part: value}) == f"policy: {where}{problem}"


@pytest.mark.parametrize("key", ["max_deletions", "max_deletion_percent"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param(-1, "must be >= 0, not -1", id="negative"),
        pytest.param(True, "must be a whole number, not True", id="bool"),
        pytest.param("10", "must be a whole number, not '10'", id="text"),
        pytest.param("{{ params.max }}", "must be a whole number, not '{{ params.max }}'", id="template"),
        pytest.param(10.0, "must be a whole number, not 10.0", id="float"),
        pytest.param(1e9, "must be a whole number, not 1000000000.0", id="1e9"),
        pytest.param(float("nan"), "must be a whole number, not nan", id="nan"),
        pytest.param(float("inf"), "must be a whole number, not inf", id="inf"),
        pytest.param(None, "must be a whole number, not None", id="none"),
    ],
)
def test_limit_must_be_a_whole_number(key: str, value: object, problem: str) -> None:
    with pytest.raises(TavusValidationError) as error:
        policy(limits={key: value})
    assert str(error.value).startswith(f"policy: limits.{key}: {problem}")


def test_percentage_must_be_at_most_100() -> None:
    assert policy(limits={"max_deletion_percent": 100}).limits.max_deletion_percent == 100
    with pytest.raises(
        TavusValidationError, match=r"^policy: limits.max_deletion_percent: must be <= 100, not 101$"
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
def test_policy_needs_the_lists_that_its_rules_and_guards_use(
    in_use: list[str] | None, rule: dict[str, Any], needs: set[str]
) -> None:
    assert policy(rule, keep={} if in_use is None else {"in_use": in_use}).needs == needs


def test_limits_can_be_checked_without_a_decision() -> None:
    assert Limits().exceeded(delete=10, listed=40) is None
    assert Limits().exceeded(delete=10, listed=39) is not None


GRACE = {"expire": [{"older_than": "90d", "grace": "14d"}]}


@pytest.mark.parametrize(
    "value",
    [pytest.param(GRACE, id="no name"), pytest.param({**GRACE, "name": None}, id="null")],
)
def test_policy_with_grace_needs_a_name_because_schedules_are_stored_by_name(value: dict[str, Any]) -> None:
    assert rejection(value) == (
        "policy: name: is missing; with grace it is required: the schedule is stored under it"
    )
    assert Policy.parse({**GRACE, "name": "retention"}).name == "retention"


def test_null_name_is_the_same_policy_as_no_name() -> None:
    assert Policy.parse({"name": None, "expire": [STALE]}).digest == policy().digest


@pytest.mark.parametrize(
    ("rules", "covered"),
    [
        pytest.param([{"older_than": "30d"}, {"older_than": "90d"}], True, id="looser age"),
        pytest.param([{"older_than": "90d"}, {"older_than": "30d"}], False, id="stricter age"),
        pytest.param([{"older_than": "90d"}, {"older_than": "90d"}], True, id="same age"),
        pytest.param([{"older_than": "30d"}, {"unused_for": "30d"}], True, id="unused implies as old"),
        pytest.param([{"older_than": "30d"}, {"unused_for": "29d"}], False, id="unused for less"),
        pytest.param([{"unused_for": "30d"}, {"older_than": "90d"}], False, id="old does not imply unused"),
        pytest.param(
            [{"older_than": "60d", "unused_for": "30d"}, {"older_than": "60d", "unused_for": "31d"}],
            True,
            id="both looser",
        ),
        pytest.param(
            [{"older_than": "60d", "unused_for": "30d"}, {"older_than": "60d"}],
            False,
            id="one more condition",
        ),
        pytest.param(
            [{"older_than": "60d", "unused_for": "30d"}, {"unused_for": "60d"}], True, id="one implies both"
        ),
        pytest.param(
            [{"older_than": "30d", "status": ["error"]}, {"older_than": "90d"}], False, id="fewer statuses"
        ),
        pytest.param(
            [{"older_than": "30d"}, {"older_than": "90d", "status": ["error"]}], True, id="more statuses"
        ),
        pytest.param(
            [{"older_than": "30d", "grace": "9d"}, {"older_than": "90d"}], True, id="grace does not matter"
        ),
    ],
)
def test_rule_that_an_earlier_rule_covers_is_a_problem(rules: list[dict[str, Any]], covered: bool) -> None:
    problems = Policy.find_problems({"name": "x", "expire": rules})
    assert problems == (
        [
            "expire.1: rule 'rule 2' has no effect, because rule 'rule 1' before it matches every replica "
            "that it matches; move it before that rule or remove it"
        ]
        if covered
        else []
    )


@pytest.mark.parametrize(
    ("scope", "empty"),
    [
        pytest.param({"exclude": ["*"]}, True, id="everything excluded"),
        pytest.param({"include": ["a", "b"], "exclude": ["b", "a", "c"]}, True, id="all that is included"),
        pytest.param({"include": ["a", "b"], "exclude": ["b"]}, False, id="some that is included"),
        pytest.param({"exclude": ["a"]}, False, id="one name"),
    ],
)
def test_scope_that_excludes_everything_is_a_problem(scope: dict[str, Any], empty: bool) -> None:
    problem = "scope: exclude covers everything that include names, so no rule can match"
    assert Policy.find_problems({"expire": [STALE], "scope": scope}) == ([problem] if empty else [])


def test_problems_of_an_invalid_policy_are_its_errors() -> None:
    assert Policy.find_problems({"expire": [{"older_than": "90"}], "limits": {"max_deletions": -1}}) == [
        "expire.0.older_than: '90' has no unit; write 90d (units: y, w, d, h, min)",
        "limits.max_deletions: must be >= 0, not -1",
    ]


def test_set_is_no_list_because_its_order_would_change_the_digest() -> None:
    assert rejection({"expire": [STALE], "scope": {"include": {"a", "b"}}}) == (
        "policy: scope.include: must be a list, not a set"
    )


@pytest.mark.parametrize(
    ("rules", "age", "floor"),
    [
        pytest.param([{"older_than": "90d"}], "89d", "90d", id="a day too low"),
        pytest.param([{"older_than": "90d"}], "2160h", None, id="equal in another unit"),
        pytest.param([{"older_than": "90d"}], "91d", None, id="raised"),
        pytest.param([{"unused_for": "30d"}], "29d", "30d", id="a replica is at least as old as unused"),
        pytest.param([{"older_than": "10d", "unused_for": "4w"}], "27d", "4w", id="the longest of a rule"),
        pytest.param([{"older_than": "1y"}, {"unused_for": "2w"}], "13d", "2w", id="the lowest of all rules"),
        pytest.param([{"older_than": "1y"}, {"unused_for": "2w"}], "20d", None, id="narrows one rule"),
        pytest.param([{"older_than": "90d"}], None, None, id="no age"),
    ],
)
def test_age_of_a_form_below_that_of_the_policy_is_a_problem(rules, age, floor):
    narrowed = Policy.parse({"expire": rules, "narrow": {"older_than": age}})
    expected = [] if floor is None else [
        f"narrow.older_than: {age} is lower than {floor}, the age that the policy asks for; a trigger "
        f"form can "
        f"only raise it: write {floor} or more"
    ]  # fmt: skip
    assert narrowed.problems() == expected
