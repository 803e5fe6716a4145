from __future__ import annotations

from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavus_provider.sanitize import MAX_TEXT, escape_line, make_safe, quote, redact_url, shorten


class Impostor(str):
    """Equal to a valid string, formatted as something else."""

    def __format__(self, _: str) -> str:
        return "r1/../../personas/p1"


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        pytest.param("", 3, "", id="empty"),
        pytest.param("x" * 10, 10, "x" * 10, id="at the limit"),
        pytest.param("x" * 11, 10, "x" * 7 + "...", id="above the limit"),
        pytest.param("xxxx", 3, "...", id="smallest limit"),
    ],
)
def test_shorten(text, limit, expected):
    assert shorten(text, limit) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("ok\n[2026-01-01] INFO - deleted 0", r"ok\n[2026-01-01] INFO - deleted 0", id="newline"),
        pytest.param("a\r\nb", r"a\r\nb", id="carriage return"),
        pytest.param("\x1b[2J", r"\x1b[2J", id="terminal sequence"),
        pytest.param("\x00", r"\x00", id="nul"),
        pytest.param("\u202egpj.exe", r"\u202egpj.exe", id="right-to-left override"),
        pytest.param("\u2028\u2029\x85", r"\u2028\u2029\x85", id="Unicode line ends"),
        pytest.param("\ud800", r"\ud800", id="lone surrogate"),
        pytest.param("::group::hidden", ": :group: :hidden", id="log group of Airflow"),
        pytest.param(":::group:::", ": ::group: ::", id="three colons"),
        pytest.param("<script>", "<script>", id="HTML is left to HTML pages"),
        pytest.param("{{ 7*7 }}", "{{ 7*7 }}", id="template"),
        pytest.param("Zo\u00eb \u732b", "Zo\u00eb \u732b", id="letters of any language"),
    ],
)
def test_escape_line(text, expected):
    assert escape_line(text) == expected
    assert "::group::" not in escape_line(text)


def test_escape_line_shortens_to_the_limit():
    assert len(escape_line("x" * 1_000_000)) == 256
    assert escape_line("x" * 257).endswith("x...")
    assert escape_line("x" * 256) == "x" * 256
    assert escape_line("x" * 41, 40) == "x" * 37 + "..."


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("r1", "'r1'", id="string"),
        pytest.param("", "''", id="empty string"),
        pytest.param("it's", '"it\'s"', id="apostrophe"),
        pytest.param("r\u0435plica", r"'r\u0435plica'", id="Cyrillic letter"),
        pytest.param("a\nb", r"'a\nb'", id="newline"),
        pytest.param("::group::", "': :group: :'", id="log group of Airflow"),
        pytest.param("x" * 38, f"'{'x' * 38}'", id="at the limit"),
        pytest.param("x" * 39, f"'{'x' * 36}...", id="above the limit"),
        pytest.param(
            "\u202e" * 1_000_000, r"'\u202e\u202e\u202e\u202e\u202e\u202e...", id="long and escaped"
        ),
        pytest.param(None, "None", id="none"),
        pytest.param(True, "True", id="bool"),
        pytest.param(7, "7", id="int"),
        pytest.param(2**128 - 1, str(2**128 - 1), id="largest int"),
        pytest.param(2**128, "a huge number", id="huge int"),
        pytest.param(10**5000, "a huge number", id="int that Python refuses to print"),
        pytest.param(1e5, "100000.0", id="float"),
        pytest.param(float("nan"), "nan", id="nan"),
        pytest.param(["key-secret"], "a list", id="list"),
        pytest.param({"key": "secret"}, "a dict", id="dict"),
        pytest.param(b"r1", "a bytes", id="bytes"),
        pytest.param(object(), "an object", id="object"),
        pytest.param(..., "an ellipsis", id="ellipsis"),
        pytest.param(Impostor("r1"), "an Impostor", id="subclass of str"),
        pytest.param(Colour.RED, "a Colour", id="enum"),
    ],
)
def test_quote(value, expected):
    assert quote(value) == expected


def test_quote_takes_a_limit_and_a_text_for_none():
    assert quote("x" * 100, limit=200) == f"'{'x' * 100}'"
    assert quote(None, none="not given") == "not given"
    assert quote("None", none="not given") == "'None'"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("/var/ledger", "/var/ledger", id="path"),
        pytest.param("s3://bucket/key", "s3://bucket/key", id="bucket"),
        pytest.param("s3://aws_default@bucket/key", "s3://aws_default@bucket/key", id="Airflow connection"),
        pytest.param("s3://AKIA:secret@bucket/key", "s3://***@bucket/key", id="user and password"),
        pytest.param("s3://AKIA:sec/ret@bucket/key", "s3://***@bucket/key", id="slash in the password"),
        pytest.param("s3://AKIA:sec@ret@bucket/key", "s3://***@bucket/key", id="at sign in the password"),
        pytest.param("s3://:secret@bucket", "s3://***@bucket", id="password only"),
        pytest.param("http://proxy.example:3128", "http://proxy.example:3128", id="port"),
        pytest.param(
            "s3://aws_default@bucket/a:b@c", "s3://aws_default@bucket/a:b@c", id="at sign in the key"
        ),
    ],
)
def test_redact_url(url, expected):
    assert redact_url(url) == expected


# Text that is stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spring-campaign",
        "Zo\u00eb \u732b",
        "\U0001f469\u200d\U0001f4bb",
        "a\u00a0b",
        "\u05d0\u200f",
        "<script>",
        "x" * MAX_TEXT,
    ],
    ids=ascii,
)
def test_safe_text_stays_as_it_is(text):
    assert make_safe(text) == (text, text, False)


@pytest.mark.parametrize(
    ("text", "start", "pattern_text"),
    [
        pytest.param("a\ud83d", r"a\ud83d [sha256:", "a\ufffd", id="half an emoji"),
        pytest.param("\ude00b", r"\ude00b [sha256:", "\ufffdb", id="other half"),
        pytest.param("a\0b", r"a\x00b [sha256:", "a\u2426b", id="NUL"),
        pytest.param("\x1b[2J\n", r"\x1b[2J\n [sha256:", "\u2426[2J\u2426", id="terminal sequence"),
        pytest.param("\x85\u2028", r"\x85\u2028 [sha256:", "\u2426\u2426", id="line ends"),
        pytest.param(
            "\u202egpj.exe", r"\u202egpj.exe [sha256:", "\u2426gpj.exe", id="right-to-left override"
        ),
    ],
)
def test_unsafe_characters_are_escaped_and_marked_by_a_digest(text, start, pattern_text):
    safe = make_safe(text)
    assert safe.text.startswith(start)
    assert len(safe.text) == len(start) + 33
    assert safe.pattern_text == pattern_text
    assert not safe.is_cut


@pytest.mark.parametrize(
    "text", ["x" * (MAX_TEXT + 1), "\u0301" * 200_000, "\0" * 80_000, "\U0001f600" * 20_000], ids=len
)
def test_long_text_is_cut(text):
    safe = make_safe(text)
    assert safe.is_cut
    assert len(safe.pattern_text) == MAX_TEXT
    assert len(safe.text) <= MAX_TEXT
    assert safe.text.endswith("]")


any_text = st.text(st.characters(), max_size=300) | st.text("a\0\ud83d\n ]\u202e", max_size=12)


@given(any_text)
def test_safe_text_can_be_encoded_and_stored(text):
    safe = make_safe(text)
    for kept in (safe.text, safe.pattern_text):
        assert "\0" not in kept
        assert len(kept.encode()) <= 4 * MAX_TEXT
        assert len(kept.splitlines()) <= 1


@given(any_text, any_text)
def test_different_texts_stay_different(text, other):
    assert (make_safe(text).text == make_safe(other).text) == (text == other)


@given(any_text)
def test_the_safe_form_of_one_text_is_not_that_of_another(text):
    """Otherwise a name could be chosen to look like the safe form of another name."""
    safe = make_safe(text).text
    assert safe == text or make_safe(safe).text != safe
