from __future__ import annotations

import re

import pytest

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import Kind, check_id, fold, item_key, parse_key

KEYS = [
    pytest.param(Kind.REPLICA, "rf4e9d9790f0", "rf4e9d9790f0", id="replica"),
    pytest.param(Kind.REPLICA, "video", "video", id="replica named as a kind"),
    pytest.param(Kind.VIDEO, "1e30440cf9", "video/1e30440cf9", id="video"),
    pytest.param(Kind.CONVERSATION, "c0eaa60a267274af", "conversation/c0eaa60a267274af", id="conversation"),
]


@pytest.mark.parametrize(("kind", "item_id", "key"), KEYS)
def test_key_and_object_belong_to_each_other(kind, item_id, key):
    assert item_key(kind, item_id) == key
    assert parse_key(key) == (kind, item_id)
    assert isinstance(parse_key(key)[0], Kind)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("item_id", ["", "r", "..", "a/b", "r1\n", "None", "null", "r" * 65, None, 7, "r1?x"])
def test_invalid_id_makes_no_key(kind, item_id):
    with pytest.raises(
        TavusValidationError, match=rf"^{kind}_id: .* is not a {kind} id; .*; nothing was sent$"
    ):
        item_key(kind, item_id)
    with pytest.raises(TavusValidationError):
        check_id(kind, item_id)


@pytest.mark.parametrize(
    "key",
    [
        *("replica/r1a", "persona/p1a", "videos/v1a", "Video/v1a", "/v1a", " video/v1a"),
        *("video/", "video/v", "video/../x", "video/v1a/", "video//v1a", "conversation/none", "video/v1a\n"),
        *("", None, 7, b"r1a", ["r1a"]),
    ],
)
def test_invalid_key_is_rejected(key):
    with pytest.raises(TavusValidationError) as caught:
        parse_key(key)
    assert re.fullmatch(r"(key|\w+_id): .* is not .*; expected .*; nothing was sent", str(caught.value))


@pytest.mark.parametrize("kind", Kind)
def test_example_of_a_kind_is_an_id_of_it_alone(kind):
    assert check_id(kind, kind.example) == kind.example
    for other in Kind:
        if other.shape is not None:
            assert bool(other.shape.fullmatch(kind.example)) == (other is kind)


def test_kinds_are_in_the_order_in_which_an_erasure_deletes_them():
    assert list(Kind) == ["replica", "video", "conversation"]


def test_id_in_lower_case_is_compared_without_a_copy():
    replica_id = "r5e27d9a6c40"
    assert fold(replica_id) is replica_id
    assert fold("R5E27D9A6C40") == replica_id
