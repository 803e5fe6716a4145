"""The JSON Schema accepts the same policies as the package, as far as JSON Schema can express it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.schema import policy_schema

SCHEMA = policy_schema()
PUBLISHED = Path(__file__).parents[2] / "docs" / "retention-policy.schema.json"


def _pattern(validator, pattern, value, schema):
    """Match as ECMAScript does, where ``$`` is the end of the text and not before a line break."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not match")


def _integer(checker, value) -> bool:
    """Accept integers as YAML does, where 1.0 is not one."""
    return type(value) is int


EDITOR = jsonschema.validators.extend(
    jsonschema.Draft7Validator,
    {"pattern": _pattern},
    type_checker=jsonschema.Draft7Validator.TYPE_CHECKER.redefine("integer", _integer),
)(SCHEMA)


def is_accepted(value: Any) -> bool:
    try:
        Policy.parse(value)
    except TavusValidationError:
        return False
    return True


def parts(**given_parts: Any) -> dict[str, Any]:
    return {"expire": [{"older_than": "90d"}], **given_parts}


def rule(**keys: Any) -> dict[str, Any]:
    return {"expire": [{"older_than": "90d", **keys}]}


GOOD = {
    "minimal": {"expire": [{"older_than": "90d"}]},
    "other condition": {"expire": [{"unused_for": "2w"}]},
    "all keys": {
        "name": "stale",
        "expire": [
            {
                "rule": "a b",
                "older_than": "090d",
                "unused_for": "36500d",
                "status": ["error"],
                "grace": "1min",
            },
            {"older_than": "100y", "status": ["started", "completed", "error"]},
            {"older_than": "1d", "names": {"include": ["a*"], "exclude": ["b"]}, "model_names": ["m"]},
            {"older_than": "1d", "names": {"exclude": ["b"]}},
        ],
        "scope": {"include": ["*"], "exclude": ["vip_*"], "model_names": ["phoenix-3"]},
        "narrow": {"include": ["a*"], "exclude": [], "older_than": "52560000min"},
        "keep": {
            "protected_ids": ["rf4e9d9790f0", "r_1-"],
            "keep_within": "5214w",
            "keep_last": 2,
            "group_by": "^(?P<group>[^_]+)_",
            "in_use": [],
        },
        "legal_holds": {"file": "s3://aws_default@bucket/holds.yaml", "max_age": "1d"},
        "account": {"expect_present": ["rf4e9d9790f0"]},
        "hard_delete_after": "30d",
        "overdue_after": "3y",
        "limits": {"max_deletions": 0, "max_deletion_percent": 100, "max_undetermined_percent": 0},
    },
    "empty parts": parts(scope={}, narrow={}, keep={}, account={}, limits={}),
    "null where it means the default": parts(
        name=None, legal_holds=None, account=None, limits=None, narrow={"older_than": None}
    ),
    "quota": parts(quota={"above": 45, "down_to": 40, "older_than": "30d"}),
    "quota alone": {"quota": {"above": 1, "down_to": 1, "older_than": "30d"}},
    "quota that is null": parts(quota=None),
    "quota with grace": {"name": "x", "quota": {"above": 2, "down_to": 1, "older_than": "1d", "grace": "1d"}},
    "grace and a name": {"name": "x", **rule(grace="14d")},
}
BAD = {
    "empty": {},
    "list": [],
    "null": None,
    "no rule": {"expire": []},
    "rule without a condition": {"expire": [{"rule": "a"}]},
    "an unknown key": parts(keeps={}),
    "an unknown key of a rule": rule(older_then="1d"),
    "an unknown key of a part": parts(limits={"max": 1}),
    "grace without a name": rule(grace="14d"),
    "grace and a null name": {"name": None, **rule(grace="14d")},
    **{
        f"the duration {text!r}": {"expire": [{"older_than": text}]}
        for text in (
            "90",
            "0d",
            "",
            "d",
            "90 d",
            "90D",
            "-1d",
            "1.5d",
            "36501d",
            "5215w",
            "876001h",
            "101y",
            "6m",
            "6M",
            "6mo",
            "6months",
        )
    },
    **{
        f"the duration {value!r} of another type": {"expire": [{"older_than": value}]}
        for value in (90, None, True, ["90d"])
    },
    "minutes above 36500d": {"expire": [{"older_than": "52560001min"}]},
    "duration with a line break": {"expire": [{"older_than": "90d\n"}]},
    **{f"the name {text!r}": parts(name=text) for text in ("", " ", "None", " a", "a ", "a\nb", "a\tb", 1)},
    "a blank rule": rule(rule=""),
    "overdue_after that is null": parts(overdue_after=None),
    "overdue_after in months": parts(overdue_after="6m"),
    "neither rule nor quota": {"name": "x"},
    "quota null and no rule": {"quota": None},
    "quota and an empty list of rules": {
        "expire": [],
        "quota": {"above": 2, "down_to": 1, "older_than": "1d"},
    },
    "quota of zero": parts(quota={"above": 0, "down_to": 0, "older_than": "1d"}),
    "quota without an age": parts(quota={"above": 2, "down_to": 1}),
    "quota with grace without a name": {
        "quota": {"above": 2, "down_to": 1, "older_than": "1d", "grace": "1d"}
    },
    "names alone": {"expire": [{"names": {"include": ["a"]}}]},
    "models alone": {"expire": [{"model_names": ["a"]}]},
    "names without globs": rule(names={}),
    "names that are a list": rule(names=["a"]),
    "names without include": rule(names={"include": []}),
    "names that are null": rule(names=None),
    "a blank name": rule(names={"include": [""]}),
    "no model": rule(model_names=[]),
    "a model twice": rule(model_names=["a", "a"]),
    "no status": rule(status=[]),
    "an unknown status": rule(status=["ready"]),
    "a status twice": rule(status=["error", "error"]),
    "status that is not a list": rule(status="error"),
    "a scope that is null": parts(scope=None),
    "globs that are not a list": parts(scope={"include": "a*"}),
    "a blank glob": parts(scope={"include": [""]}),
    "keep that is null": parts(keep=None),
    **{f"the id {text!r}": parts(keep={"protected_ids": [text]}) for text in ("r", "Null", "a/b", "r" * 65)},
    "an id that is a number": parts(keep={"protected_ids": [12]}),
    "keep_within that is null": parts(keep={"keep_within": None}),
    **{
        f"keep_last {number!r}": parts(keep={"keep_last": number}) for number in (0, -1, 1.0, True, "1", None)
    },
    "group_by alone": parts(keep={"group_by": "(?P<group>a)"}),
    "group_by without its group": parts(keep={"keep_last": 1, "group_by": "a"}),
    "an unknown kind of use": parts(keep={"in_use": ["pal"]}),
    "a kind of use twice": parts(keep={"in_use": ["video", "video"]}),
    "legal_holds without max_age": parts(legal_holds={"file": "a"}),
    "legal_holds without file": parts(legal_holds={"max_age": "1d"}),
    "legal_holds with null max_age": parts(legal_holds={"file": "a", "max_age": None}),
    "expect_present that is not a list": parts(account={"expect_present": "r12"}),
    "hard_delete_after that is null": parts(hard_delete_after=None),
    **{
        f"{key} {value!r}": parts(limits={key: value})
        for key in ("max_deletions", "max_deletion_percent", "max_undetermined_percent")
        for value in (-1, 0.5, True, "1", None)
    },
    "a percentage above 100": parts(limits={"max_deletion_percent": 101}),
}
NOT_EXPRESSIBLE = {
    "invalid regular expression": parts(keep={"keep_last": 1, "group_by": "(?P<group>["}),
    "two rules with one name": {
        "expire": [{"rule": "a", "older_than": "1d"}, {"rule": "a", "unused_for": "1d"}]
    },
    "invisible character": parts(name="a\u200bb"),
}


@pytest.mark.parametrize("value", GOOD.values(), ids=GOOD)
def test_schema_accepts_valid_policy(value):
    assert is_accepted(value)
    assert not [error.message for error in EDITOR.iter_errors(value)]


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_schema_rejects_invalid_policy(value):
    assert not is_accepted(value)
    assert not EDITOR.is_valid(value)


@pytest.mark.parametrize("value", NOT_EXPRESSIBLE.values(), ids=NOT_EXPRESSIBLE)
def test_schema_accepts_what_json_schema_cannot_express(value):
    assert not is_accepted(value)
    assert EDITOR.is_valid(value)


texts = st.sampled_from(["a", "a b", "", " a", "None", "*", "é", "error", "90d", "x\n"])
numbers = st.sampled_from([0, 1, 100, 101, -1, 0.5, True])
durations = st.one_of(
    st.builds("{}{}".format, st.integers(0, 60_000_000), st.sampled_from([*"ywdhms", "min", "mo"])),
    texts,
    numbers,
)
lists = st.one_of(st.lists(texts, max_size=2), texts)
ids = st.one_of(st.lists(st.sampled_from(["r12", "null", "x", "a.b"]), max_size=2), texts)


def some(names: list[str]) -> st.SearchStrategy:
    return st.one_of(st.lists(st.sampled_from([*names, "other"]), max_size=3), st.none(), texts)


def mapping(**keys: st.SearchStrategy) -> st.SearchStrategy:
    full = st.fixed_dictionaries({}, optional={**keys})
    return st.one_of(full, full, full, st.none(), texts, st.just({"unknown": 1}))


policies = st.fixed_dictionaries(
    {
        "expire": st.lists(
            mapping(
                older_than=durations,
                unused_for=st.just("7d"),
                status=some(["started", "completed", "error"]),
                grace=st.sampled_from(["1d", "x"]),
            ),
            max_size=2,
        )
    },
    optional={
        "name": st.one_of(texts, st.none()),
        "scope": mapping(include=lists, exclude=lists, model_names=lists),
        "narrow": mapping(include=lists, older_than=st.one_of(durations, st.none())),
        "keep": mapping(
            protected_ids=ids,
            keep_within=durations,
            keep_last=st.one_of(numbers, st.none()),
            group_by=st.sampled_from(["(?P<group>a)", "a", ""]),
            in_use=some(["persona", "conversation", "video"]),
        ),
        "legal_holds": mapping(file=texts, max_age=durations),
        "account": mapping(expect_present=ids),
        "hard_delete_after": durations,
        "limits": mapping(max_deletions=numbers, max_deletion_percent=numbers),
    },
)


@settings(deadline=None, max_examples=400, derandomize=True, database=None)
@given(policies)
def test_schema_and_package_agree_on_generated_policies(value):
    assert EDITOR.is_valid(value) == is_accepted(value)


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(st.integers(0, 10**9), st.sampled_from(["y", "w", "d", "h", "min", "m"]))
def test_schema_and_package_agree_on_every_duration(number, unit):
    value = {"expire": [{"older_than": f"{number}{unit}"}]}
    assert EDITOR.is_valid(value) == is_accepted(value)


def test_schema_is_draft_7():
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_every_key_is_described_and_other_keys_are_not_allowed():
    def undescribed(node: Any, path: str = "") -> list[str]:
        if isinstance(node, list):
            return [found for inner in node for found in undescribed(inner, path)]
        if not isinstance(node, dict):
            return []
        found = []
        for name, key in node.get("properties", {}).items() if "type" in node else ():
            places = [key, *key.get("anyOf", ())]
            found += [] if any("description" in one for one in places) else [f"{path}.{name}"]
        if "properties" in node and "type" in node and node.get("additionalProperties") is not False:
            found.append(f"{path} allows other keys")
        return found + [f for key, inner in node.items() for f in undescribed(inner, f"{path}.{key}")]

    assert undescribed(SCHEMA) == []


def test_every_example_is_valid():
    def examples(node: Any) -> list[tuple[Any, dict[str, Any]]]:
        if isinstance(node, list):
            return [found for inner in node for found in examples(inner)]
        if not isinstance(node, dict):
            return []
        own = [(example, node) for example in node.get("examples", ())]
        return own + [found for inner in node.values() for found in examples(inner)]

    found = examples(SCHEMA)
    assert len(found) > 5
    for example, node in found:
        assert EDITOR.evolve(schema=node).is_valid(example)


def test_published_schema_is_up_to_date():
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == SCHEMA
