from __future__ import annotations

import pytest

from tavus_provider.json_parser import ConflictingValues, UnusableNumber, parse_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(b'{"a": [1, -2.5, true, null, "x"]}', {"a": [1, -2.5, True, None, "x"]}, id="usual"),
        pytest.param(b"\xef\xbb\xbf{}", {}, id="byte order mark"),
        pytest.param(b'{"a": "\xff"}', {"a": "\udcff"}, id="not UTF-8"),
        pytest.param(b'{"a": "\\ud83d"}', {"a": "\ud83d"}, id="lone surrogate"),
        pytest.param(b'{"a": "\\ud83d\\ude00"}', {"a": "\N{GRINNING FACE}"}, id="surrogate pair"),
        pytest.param(b'{"a": 1, "a": 1}', {"a": 1}, id="same value twice"),
        pytest.param(
            b'{"a": 1, "b": 2, "a": 3}', {"a": ConflictingValues((1, 3)), "b": 2}, id="two values for a key"
        ),
        pytest.param(b'{"a": true, "a": 1}', {"a": ConflictingValues((True, 1))}, id="true and 1"),
        pytest.param(
            b'{"a": null, "a": "r1"}', {"a": ConflictingValues((None, "r1"))}, id="null and a value"
        ),
        pytest.param(b'[{"a": {"b": 1, "b": 2}}]', [{"a": {"b": ConflictingValues((1, 2))}}], id="nested"),
        pytest.param(b'{"a": NaN}', {"a": UnusableNumber("NaN")}, id="NaN"),
        pytest.param(b"[-Infinity]", [UnusableNumber("-Infinity")], id="infinity"),
        pytest.param(b"[1e999]", [UnusableNumber("1e999")], id="float beyond the limit"),
        pytest.param(b"[" + b"9" * 5000 + b"]", [UnusableNumber("a huge number")], id="5,000 digits"),
        pytest.param(b"[" + b"9" * 400 + b"]", [int("9" * 400)], id="400 digits"),
    ],
)
def test_parse_json(text, value):
    assert parse_json(text) == value


def test_a_replaced_value_is_neither_text_nor_number():
    for value in parse_json(b'{"a": "r1", "a": "r2", "b": NaN}').values():
        assert not isinstance(value, str | int | float | list | dict)


@pytest.mark.parametrize("text", [b"", b"{", b"<html>", b"{} {}", b"nan", '{"a": 1}'.encode("utf-16")])
def test_other_text_is_an_error(text):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_json(text)
    assert isinstance(caught.value, ValueError)
