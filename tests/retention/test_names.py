"""Rules with names and models of their own, and the comparison of globs."""

from __future__ import annotations

import fnmatch
import time
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import blocks
from retention.samples import NOW, UNUSED, ago, conversation, decide, policy, replica, verdict

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.models import Replica
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.names import Names, includes_all_of
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.unmatched import find_unmatched

EVERY_NAME = "includes every name; omit names, or write include or exclude"
DEMO = {"rule": "demo", "names": {"include": ["demo_*"]}, "older_than": "30d"}
THREE_RULES = [
    {"rule": "failed-training", "status": ["error"], "older_than": "14d"},
    DEMO,
    {"rule": "stale", "unused_for": "180d"},
]


@pytest.mark.parametrize(
    ("name", "facts", "days", "used_days_ago", "expected"),
    [
        pytest.param("demo_berlin", {}, 31, 1, ("expired", "demo"), id="demo"),
        pytest.param("demo_paris", {}, 29, None, ("not_expired", None), id="young demo"),
        pytest.param("Demo_rome", {}, 31, None, ("not_expired", None), id="case"),
        pytest.param("acme_anna", {}, 400, 12, ("not_expired", None), id="used"),
        pytest.param("acme_ben", {}, 400, None, ("expired", "everything-else"), id="unused"),
        pytest.param("acme_eva", {"status": "error"}, 15, None, ("expired", "failed-training"), id="failed"),
        pytest.param(None, {}, 31, None, ("out_of_scope", None), id="no name"),
        pytest.param("vip_demo", {}, 900, None, ("out_of_scope", None), id="out of scope"),
    ],
)
def test_example_of_the_documentation_does_what_its_table_says(
    name: str | None, facts: dict[str, Any], days: int, used_days_ago: int | None, expected: tuple[str, Any]
) -> None:
    (text,) = (block.text for block in blocks("yaml") if "name: by-name" in block.text)
    use = UNUSED
    if used_days_ago is not None:
        use = replace(UNUSED, conversations=[conversation(at=ago(days=used_days_ago))])
    one = replica(replica_name=name, age=timedelta(days=days), **facts)
    found = verdict(one, by=Policy.parse(yaml.safe_load(text)), use=use)
    assert (found.reason_code, found.rule) == expected


@pytest.mark.parametrize(
    ("facts", "days", "expected"),
    [
        pytest.param({"status": "error", "replica_name": "acme"}, 14, "failed-training", id="failed"),
        pytest.param({"status": "error", "replica_name": "acme"}, 13, None, id="failed lately"),
        pytest.param({"replica_name": "demo_1"}, 30, "demo", id="demo"),
        pytest.param({"replica_name": "demo_1"}, 29, None, id="young demo"),
        pytest.param({"replica_name": "Demo_1"}, 179, None, id="case matters"),
        pytest.param({"replica_name": "acme"}, 179, None, id="used lately"),
        pytest.param({"replica_name": "acme"}, 180, "stale", id="unused"),
        pytest.param({"replica_name": None}, 31, None, id="no name"),
        pytest.param({"replica_name": None}, 180, "stale", id="no name, unused"),
    ],
)
def test_one_policy_has_an_age_for_each_kind_of_name(
    facts: dict[str, Any], days: int, expected: str | None
) -> None:
    by = policy(*THREE_RULES)
    assert by.problems() == []
    assert verdict(replica(age=timedelta(days=days), **facts), by=by).rule == expected


def test_used_demo_goes_and_others_that_are_used_stay() -> None:
    use = replace(
        UNUSED,
        conversations=[
            conversation("r1", at=ago(days=5)),
            conversation("r2", at=ago(days=5), activity_id="c2"),
        ],
    )
    found = decide(replica("r1"), replica("r2", replica_name="acme"), by=policy(*THREE_RULES), use=use)
    assert [v.replica.replica_id for v in found.delete] == ["r1"]


@pytest.mark.parametrize(
    ("rule", "facts", "reason"),
    [
        pytest.param(
            DEMO, {}, "200 days old, limit is 30d; name matches names.include 'demo_*'", id="include"
        ),
        pytest.param(
            {"rule": "x", "names": {"exclude": ["vip_*"]}, "older_than": "30d"},
            {},
            "200 days old, limit is 30d; name matches no pattern of names.exclude",
            id="exclude",
        ),
        pytest.param(
            {"rule": "x", "model_names": ["phoenix-4"], "older_than": "30d"},
            {},
            "200 days old, limit is 30d; model_name is 'phoenix-4'",
            id="model",
        ),
        pytest.param(
            DEMO,
            {"replica_name": "acme"},
            "name does not match names.include 'demo_*' of rule 'demo'",
            id="not included",
        ),
        pytest.param(
            {"rule": "x", "names": {"exclude": ["vip_*", "demo_?"]}, "older_than": "30d"},
            {},
            "name matches names.exclude 'demo_?' of rule 'x'",
            id="excluded",
        ),
        pytest.param(
            DEMO, {"replica_name": " "}, "has no name to check against names of rule 'demo'", id="blank"
        ),
        pytest.param(
            {"rule": "x", "names": {"include": ["*"], "exclude": ["vip_*"]}, "older_than": "30d"},
            {"replica_name": None},
            "has no name to check against names of rule 'x'",
            id="no name, everything included",
        ),
        pytest.param(
            DEMO,
            {"is_name_cut": True},
            "name has more than 256 characters, too many to check it against names of rule 'demo'",
            id="cut",
        ),
        pytest.param(
            {"rule": "x", "model_names": ["phoenix-3", "phoenix-2"], "older_than": "30d"},
            {},
            "model_name is 'phoenix-4', rule 'x' asks for 'phoenix-3' or 'phoenix-2'",
            id="another model",
        ),
        pytest.param(
            {"rule": "x", "model_names": ["phoenix-3"], "older_than": "30d"},
            {"model_name": None},
            "model_name is not given, rule 'x' asks for 'phoenix-3'",
            id="unknown model",
        ),
    ],
)
def test_reason_names_what_matched_or_did_not(
    rule: dict[str, Any], facts: dict[str, Any], reason: str
) -> None:
    assert verdict(replica(**facts), by=policy(rule)).reason == reason


def test_names_of_a_rule_do_not_widen_the_scope() -> None:
    by = policy(DEMO, scope={"exclude": ["demo_1"]})
    assert verdict(replica(), by=by).reason_code == "out_of_scope"


def test_composed_and_decomposed_names_are_the_same() -> None:
    by = policy({"rule": "x", "names": {"include": ["de\u0301mo"]}, "older_than": "30d"})
    assert verdict(replica(replica_name="d\u00e9mo"), by=by).rule == "x"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        pytest.param(
            {"names": {"include": ["a*"]}},
            "expire.0: must have a condition: older_than, unused_for",
            id="alone",
        ),
        pytest.param(
            {"model_names": ["a"]},
            "expire.0: must have a condition: older_than, unused_for",
            id="model alone",
        ),
        pytest.param({"older_than": "1d", "names": {}}, f"expire.0.names: {EVERY_NAME}", id="no globs"),
        pytest.param(
            {"older_than": "1d", "names": {"include": []}},
            "expire.0.names.include: must not be empty; name at least one",
            id="empty include",
        ),
        pytest.param(
            {"older_than": "1d", "names": {"include": ["a", "*"], "exclude": []}},
            f"expire.0.names: {EVERY_NAME}",
            id="every name",
        ),
        pytest.param(
            {"older_than": "1d", "names": ["a*"]},
            "expire.0.names: must be a mapping with keys of include, exclude, not a list",
            id="a list",
        ),
        pytest.param(
            {"older_than": "1d", "names": None},
            "expire.0.names: must be a mapping with keys of include, exclude, not None",
            id="null",
        ),
        pytest.param(
            {"older_than": "1d", "model_names": []},
            "expire.0.model_names: must not be empty; name at least one",
            id="no model",
        ),
        pytest.param(
            {"older_than": "1d", "names": {"include": ["a"], "model_names": ["x"]}},
            "expire.0.names: unknown key 'model_names'; known: include, exclude",
            id="wrong place",
        ),
    ],
)
def test_names_that_say_nothing_are_rejected(rule: dict[str, Any], problem: str) -> None:
    with pytest.raises(TavusValidationError) as caught:
        policy(rule)
    assert str(caught.value) == f"policy: {problem}"


def covered(number: int, rule: str, other: str) -> str:
    return (
        f"expire.{number}: rule '{rule}' has no effect, because rule '{other}' before it matches every "
        "replica that it matches; move it before that rule or remove it"
    )


def repeated(number: int, rule: str, other: str) -> str:
    return (
        f"expire.{number}: rule '{rule}' has no effect, because rule '{other}' after it matches every "
        "replica that it matches, at no higher age; exclude them from that rule or remove this one"
    )


def rule(name: str, days: int, include: Any = (), exclude: Any = (), **parts: Any) -> dict[str, Any]:
    names = {"include": list(include), "exclude": list(exclude)}
    names = {key: globs for key, globs in names.items() if globs}
    return {"rule": name, "older_than": f"{days}d", **({"names": names} if names else {}), **parts}


@pytest.mark.parametrize(
    ("rules", "scope", "problems"),
    [
        pytest.param([rule("a", 30), rule("b", 30, ["x*"])], {}, [covered(1, "b", "a")], id="wider before"),
        pytest.param([rule("a", 30), rule("b", 29, ["x*"])], {}, [], id="wider before, but older"),
        pytest.param([rule("a", 30, ["x*"]), rule("b", 30)], {}, [repeated(0, "a", "b")], id="wider after"),
        pytest.param([rule("a", 31, ["x*"]), rule("b", 30)], {}, [repeated(0, "a", "b")], id="younger after"),
        pytest.param([rule("a", 29, ["x*"]), rule("b", 30)], {}, [], id="earlier for some"),
        pytest.param(
            [rule("a", 30, ["x*"], grace="7d"), rule("b", 30)], {}, [], id="grace for some is an effect"
        ),
        pytest.param([rule("a", 31, status=["error"]), rule("b", 30)], {}, [], id="without names as before"),
        pytest.param(
            [rule("a", 30, ["x*"]), rule("b", 60, ["x_*", "xy"])], {}, [covered(1, "b", "a")], id="inside"
        ),
        pytest.param([rule("a", 30, ["x_*"]), rule("b", 60, ["x*"])], {}, [], id="partly inside"),
        pytest.param(
            [rule("a", 30, ["x*", "y*"]), rule("b", 60, ["[xy]1"])], {}, [covered(1, "b", "a")], id="by two"
        ),
        pytest.param(
            [rule("a", 30, exclude=["vip_*"]), rule("b", 60, ["acme_*"])],
            {},
            [covered(1, "b", "a")],
            id="apart",
        ),
        pytest.param([rule("a", 30, exclude=["vip_*"]), rule("b", 60, ["v*"])], {}, [], id="not apart"),
        pytest.param(
            [rule("a", 30, model_names=["m1", "m2"]), rule("b", 60, model_names=["m2"])],
            {},
            [covered(1, "b", "a")],
            id="models",
        ),
        pytest.param(
            [rule("a", 30, model_names=["m1"]), rule("b", 60, model_names=["m2"])], {}, [], id="other models"
        ),
        pytest.param(
            [rule("a", 30, ["x*", "yy"], ["?*"])],
            {},
            ["expire.0: rule 'a' has no effect: names.exclude covers everything that names.include names"],
            id="exclude covers include",
        ),
        pytest.param(
            [rule("a", 30, ["demo_*"])],
            {"include": ["acme_*"]},
            ["expire.0: rule 'a' has no effect: scope and names have no name in common"],
            id="outside the scope",
        ),
        pytest.param(
            [rule("a", 30, ["vip_x*"])],
            {"exclude": ["vip_*"]},
            ["expire.0: rule 'a' has no effect: scope and names have no name in common"],
            id="excluded by the scope",
        ),
        pytest.param(
            [rule("a", 30, model_names=["m1"])],
            {"model_names": ["m2"]},
            ["expire.0: rule 'a' has no effect: scope.model_names has none of its model_names"],
            id="models outside the scope",
        ),
        pytest.param([rule("a", 30, ["*_demo"])], {"include": ["acme_*"]}, [], id="overlaps the scope"),
    ],
)
def test_rule_that_can_never_decide_is_a_problem(
    rules: list[dict[str, Any]], scope: dict[str, Any], problems: list[str]
) -> None:
    assert Policy.find_problems({"name": "x", "expire": rules, "scope": scope}) == problems


# --- the comparison of globs ----------------------------------------------------------------------------

GLOBS = ["*", "a*", "*a", "a?", "?", "ab", "[ab]*", "[!a]", "*b*", "b[a-c]", "[", "a**b", "??*", "[]a]"]
lists = st.lists(st.sampled_from(GLOBS), max_size=2)
filters = st.builds(lambda include, exclude: Names(include=include, exclude=exclude), lists, lists)
SHORT = ["".join(word) for size in (1, 2, 3) for word in product("abc[]", repeat=size)]


def included(names: Names, name: str) -> bool:
    one = Replica("r1", replica_name=name)
    return names.filter is None or names.filter.find_mismatch(one, where="x", against="x") is None


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(filters, st.lists(filters, min_size=1, max_size=2))
def test_comparison_of_globs_agrees_with_trying_names(wide: Names, narrow: list[Names]) -> None:
    inner = [name for name in SHORT if all(included(one, name) for one in narrow)]
    # Both directions: three characters tell all of these globs apart.
    assert includes_all_of(wide, narrow) == all(included(wide, name) for name in inner)
    assert includes_all_of(None, narrow) == (not inner)


def test_part_of_a_glob_matches_as_the_whole_does() -> None:
    for glob in GLOBS:
        for name in SHORT:
            exact = Names(include=[name.replace("[", "[[]")])
            assert includes_all_of(Names(include=[glob]), [exact]) == fnmatch.fnmatchcase(name, glob), glob


def test_comparison_of_many_long_globs_is_given_up_soon() -> None:
    wide = Names(include=[f"*{n}*{chr(97 + n % 26)}*{n * 7}*" for n in range(60)])
    narrow = Names(include=[f"{n}*x{n * 3}*y*" for n in range(60)])
    started = time.process_time()
    assert includes_all_of(wide, [narrow]) is False
    assert time.process_time() - started < 10


def test_globs_and_models_of_rules_that_match_nothing_are_found() -> None:
    by = policy(rule("a", 30, ["Demo_*", "demo_*"], ["vip-*"], model_names=["phoenix-9", "phoenix-4"]))
    inventory = replace(UNUSED, replicas=[replica()])
    assert find_unmatched(by, inventory) == [
        "expire.0.names.include: pattern 'Demo_*' matches no name; check the spelling",
        "expire.0.names.exclude: pattern 'vip-*' matches no name; check the spelling",
        "expire.0.model_names: model 'phoenix-9' is the model of no replica; check the spelling",
    ]


def test_policy_with_names_travels_as_json() -> None:
    by = policy(*THREE_RULES, rule("x", 9, exclude=["vip"]))
    again = Policy.parse(by.to_json())
    assert (again, again.digest) == (by, by.digest)
    inventory = replace(UNUSED, replicas=[replica()])
    assert evaluate(again, inventory, now=NOW) == evaluate(by, inventory, now=NOW)
