"""Checks of JSON documents against their TypedDict."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

import pytest

from tavus_provider.planning.documents import find_mismatch


class Inner(TypedDict):
    name: str | None


class Derived(Inner):
    size: int


class Document(TypedDict):
    version: Literal[1]
    on: bool
    inner: Inner
    derived: list[Derived]
    counts: dict[str, int]
    anything: Any
    kind: Literal["a", "b"]
    extra: NotRequired[int]


GOOD = {
    "version": 1,
    "on": False,
    "inner": {"name": None},
    "derived": [{"name": "x", "size": 1}],
    "counts": {"a": 0},
    "anything": object(),
    "kind": "b",
}


def mismatch(**changes):
    return find_mismatch(GOOD | changes, Document, name="document")


def test_document_that_matches_has_no_mismatch():
    assert mismatch() is None


def test_keys_that_are_not_declared_are_ignored():
    assert mismatch(more=1) is None


@pytest.mark.parametrize("key", GOOD)
def test_each_required_key_must_be_present(key):
    document = {name: value for name, value in GOOD.items() if name != key}
    assert find_mismatch(document, Document, name="document") == f"document.{key} is missing"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"version": 2}, "version must be 1, not 2", id="literal"),
        pytest.param({"version": True}, "version must be 1, not True", id="literal of another type"),
        pytest.param({"kind": "c"}, "kind must be 'a' or 'b', not 'c'", id="literals"),
        pytest.param({"on": 1}, "on must be true or false, not an integer", id="bool"),
        pytest.param({"extra": "1"}, "extra must be an integer, not a string", id="optional key"),
        pytest.param({"extra": None}, "extra must be an integer, not null", id="optional key is null"),
        pytest.param({"inner": []}, "inner must be an object, not a list", id="object"),
        pytest.param({"inner": {}}, "inner.name is missing", id="key of an object"),
        pytest.param(
            {"inner": {"name": 1}}, "inner.name must be a string or null, not an integer", id="union"
        ),
        pytest.param({"derived": {}}, "derived must be a list, not an object", id="list"),
        pytest.param(
            {"derived": [GOOD["derived"][0], {"size": 1}]}, "derived[1].name is missing", id="inherited"
        ),
        pytest.param({"counts": {"a": 1.5}}, "counts.a must be an integer, not a fraction", id="value"),
        pytest.param({"counts": {1: 1}}, "counts must have string keys, not an integer", id="key"),
        pytest.param({"counts": {1}}, "counts must be an object, not a value of type set", id="not JSON"),
    ],
)
def test_mismatch_names_the_place_and_what_would_be_right(changes, expected):
    assert mismatch(**changes) == f"document.{expected}"
