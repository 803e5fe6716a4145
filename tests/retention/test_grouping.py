"""``keep.group_by`` finds the group of a name in linear time (case D2)."""

from __future__ import annotations

import time

import pytest
from retention.samples import decide, policy, replica

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.policy import Policy
from tavus_provider.sanitize import quote

BACKTRACKS = "^(?P<group>([a-z]+_?)+)-v[0-9]$"


def keep(group_by: str) -> dict[str, object]:
    return {"keep_last": 1, "group_by": group_by}


@pytest.mark.parametrize(
    ("group_by", "name"),
    [
        pytest.param(BACKTRACKS, "a" * 28 + "!", id="nested repeats"),
        pytest.param(BACKTRACKS, "a" * 255 + "!", id="nested repeats on a long name"),
        pytest.param("^(?P<group>(a|aa)+)$", "a" * 255 + "!", id="overlapping alternatives"),
        pytest.param("^(?P<group>(a?){200}a{50})$", "a" * 199 + "!", id="optional repeats"),
        pytest.param("^(?P<group>.*.*.*.*.*)!$", "a" * 250, id="many wildcards"),
    ],
)
def test_expression_that_backtracks_takes_no_time(group_by: str, name: str) -> None:
    by = policy(keep=keep(group_by))
    started = time.process_time()
    found = decide(replica(replica_name=name), replica("r2", replica_name=name + "x"), by=by)
    assert time.process_time() - started < 5
    assert {verdict.reason for verdict in found.verdicts} == {
        "number 1 of 1 in a group of its own, newest first, keep_last is 1"
    }


def test_group_of_such_an_expression_is_found() -> None:
    names = ("acme_sales-v1", "acme_sales-v2", "acme-v1")
    some = [replica(f"r{n}", replica_name=name) for n, name in enumerate(names)]
    found = decide(*some, by=policy(keep=keep(BACKTRACKS)))
    assert [verdict.replica.replica_id for verdict in found.delete] == ["r1"]
    assert found.context is not None
    assert str(found.context.places["r1"]) == "number 2 of 2 in group 'acme_sales', newest first"


@pytest.mark.parametrize(
    "group_by",
    [
        pytest.param(r"^(?P<group>[a-z]+)(?=_)", id="look-ahead"),
        pytest.param(r"(?<!x)(?P<group>[a-z]+)", id="look-behind"),
        pytest.param(r"^(?P<group>[a-z]+)_(?P=group)$", id="back-reference by name"),
        pytest.param(r"^(?P<group>[a-z]+)_\1$", id="back-reference by number"),
        pytest.param(r"^(?P<group>(?>a+))$", id="atomic group"),
    ],
)
def test_expression_that_cannot_be_matched_in_linear_time_is_rejected(group_by: str) -> None:
    (problem,) = Policy.find_problems({"expire": [{"older_than": "90d"}], "keep": keep(group_by)})
    assert problem.startswith(
        "keep.group_by: must be a regular expression without look-arounds such as (?=...)"
    )
    assert f"write for example ^(?P<group>[^_]+)_, not {quote(group_by)}: " in problem
    with pytest.raises(TavusValidationError):
        policy(keep=keep(group_by))


def test_letters_outside_ascii_are_matched_by_their_negation() -> None:
    some = [replica("r1", replica_name="m\u00fcller_1"), replica("r2", replica_name="m\u00fcller_2")]
    found = decide(*some, by=policy(keep=keep("^(?P<group>[^_]+)_")))
    assert [verdict.replica.replica_id for verdict in found.delete] == ["r2"]
