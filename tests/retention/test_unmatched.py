"""Ids and patterns of a policy that match no replica."""

from __future__ import annotations

from typing import Any

import pytest
from retention.samples import policy, replica

from tavus_provider.models import UnreadableRow
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.unmatched import find_lost_holds, find_unmatched

HOLDS = {"file": "holds.json", "max_age": "7d"}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param(
            {"keep": {"protected_ids": ["r1", "r1O"]}},
            ["keep.protected_ids: id 'r1O' is not listed; check the spelling"],
            id="protected id",
        ),
        pytest.param(
            {"scope": {"include": ["Demo_*", "demo_?"], "exclude": ["vip-*"]}},
            [
                "scope.include: pattern 'Demo_*' matches no name; check the spelling",
                "scope.exclude: pattern 'vip-*' matches no name; check the spelling",
            ],
            id="scope",
        ),
        pytest.param(
            {"narrow": {"include": ["x*"], "exclude": ["y*"]}},
            [
                "narrow.include: pattern 'x*' matches no name; check the spelling",
                "narrow.exclude: pattern 'y*' matches no name; check the spelling",
            ],
            id="form",
        ),
        pytest.param(
            {"scope": {"model_names": ["phoenix-4", "phoenix4"]}},
            ["scope.model_names: model 'phoenix4' is the model of no replica; check the spelling"],
            id="model",
        ),
        pytest.param(
            {"legal_holds": HOLDS}, ["legal_holds: the list is empty, so no replica is held"], id="no hold"
        ),
        pytest.param({"scope": {"include": ["*", "cafe\u0301*"]}}, [], id="composed as the name is"),
        pytest.param({}, [], id="nothing named"),
    ],
)
def test_what_matches_no_replica_is_named(parts: dict[str, Any], expected: list[str]) -> None:
    inventory = Inventory([replica("r1"), replica("r2", replica_name="caf\u00e9_1")])
    assert find_unmatched(policy(**parts), inventory) == expected


def test_held_ids_that_are_not_listed_are_named_up_to_ten() -> None:
    held = frozenset(f"r{number:02}" for number in range(12)) | {"r1"}
    (warning,) = find_unmatched(policy(legal_holds=HOLDS), Inventory([replica("r1")], held=held))
    assert warning.startswith("legal_holds: id 'r00', 'r01', ")
    assert warning.endswith(", 'r09' and 2 more is not listed; check the spelling")


def test_ids_are_listed_in_any_letter_case() -> None:
    row = UnreadableRow(kind="replica", reason="created_at twice", fingerprint="f", own_ids=("R9",))
    inventory = Inventory([replica("r1")], unreadable=[row], held=frozenset({"R1", "r9"}))
    by = policy(legal_holds=HOLDS, keep={"protected_ids": ["R1", "r9"]})
    assert find_unmatched(by, inventory) == []


def test_hold_in_another_letter_case_is_not_lost() -> None:
    assert find_lost_holds(frozenset({"R1"}), before=frozenset({"r1"})) == []


def test_id_of_an_unreadable_row_is_listed() -> None:
    row = UnreadableRow(kind="replica", reason="created_at twice", fingerprint="f", own_ids=("r9",))
    by = policy(keep={"protected_ids": ["r9"]})
    assert find_unmatched(by, Inventory([replica("r1")], unreadable=[row])) == []
