from __future__ import annotations

from enum import StrEnum

import pytest

from tavus_provider.sanitize import escape_line, quote, redact_url, shorten


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
