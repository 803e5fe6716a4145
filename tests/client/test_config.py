from __future__ import annotations

import json
import pickle

import pytest

from tavus_provider.client.config import (
    DEFAULT_ORIGIN,
    ClientConfig,
    ClientOptions,
    InvalidOptionError,
    check_option,
    parse_key,
    parse_origin,
)
from tavus_provider.exceptions import TavusValidationError

SANDBOX = "http://127.0.0.1:8600"
KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


# --- origin


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "tavusapi.com",
        "TAVUSAPI.COM",
        "https://tavusapi.com",
        "HTTPS://TavusAPI.com",
        "https://tavusapi.com/",
        "https://tavusapi.com/v2",
        "https://tavusapi.com/v2/",
        "tavusapi.com/v2",
        "tavusapi.com:443",
        "tavusapi.com\n",
        " https://tavusapi.com/v2\r\n",
        "\t",
    ],
)
def test_spellings_of_the_default_origin(host):
    assert parse_origin(host) == DEFAULT_ORIGIN == "https://tavusapi.com"


@pytest.mark.parametrize(
    "host",
    [
        "http://tavusapi.com",
        "tavusapi.com.evil.test",
        "https://tavusapi.com@evil.test",
        "https://tavusapi.com:443@evil.test/",
        "https://user:hidden-password@tavusapi.com",
        "https://evil.test\\@tavusapi.com",
        "https://tavusapi.com\\@evil.test",
        "https://evil.test#@tavusapi.com",
        "https://evil.test?@tavusapi.com",
        "https://tavusapi.com%2eevil.test",
        "https://tavus\u0430pi.com",
        "https://tavusapi\u3002com",
        "tavusapi.com.",
        "tavusapi.com:8443",
        "tavusapi.com:0",
        "tavusapi.com:99999",
        "tavusapi.com:",
        "tavusapi.com/v2/../../x",
        "tavusapi.com/v1",
        "tavusapi.com//v2",
        "tavusapi.com/?a=",
        "tavusapi.com/#",
        "//evil.test",
        "//tavusapi.com",
        "https:///evil.test",
        "https:tavusapi.com",
        "tavus\tapi.com",
        "tavusapi.com\nevil.test",
        "https:// tavusapi.com",
        "tavusapi.com \x00",
        "https://tavusapi.com/v2\r\nX-Evil: 1",
        "https://[::1]",
        "https://127.1",
        "https://127.0.0.1",
        "https://127.0.0.01",
        "https://0x7f000001",
        "https://2130706433",
        "https://169.254.169.254/latest",
        "https://localhost",
        "file:///etc/passwd",
        "ftp://tavusapi.com",
        "javascript:alert(1)",
        "-tavusapi.com",
        pytest.param("a" * 100_000, id="100,000 letters"),
        b"tavusapi.com",
        443,
        ["tavusapi.com"],
    ],
)
def test_other_base_urls_are_rejected(host):
    with pytest.raises(
        TavusValidationError, match=r"base URL.*(is not a valid origin|is not among the allowed origins)"
    ) as caught:
        parse_origin(host)
    assert "hidden-password" not in str(caught.value)


@pytest.mark.parametrize(
    ("port", "schema"),
    [
        (None, None),
        (0, ""),
        ("", "v2"),
        (443, "/v2"),
        (443, "v2\n"),
    ],
)
def test_port_and_schema_may_repeat_the_host(port, schema):
    assert parse_origin("tavusapi.com", port, schema) == DEFAULT_ORIGIN


@pytest.mark.parametrize(
    ("port", "schema"),
    [
        (80, None),
        (8443, None),
        (-1, None),
        (65536, None),
        (True, None),
        (443.5, None),
        ("abc", None),
        ("443 ", None),
        ("\u0664\u0664\u0663", None),
        (None, "http"),
        (None, "https"),
        (None, "v1"),
        (None, "v2/../x"),
        (None, 2),
    ],
)
def test_other_port_or_schema_is_rejected(port, schema):
    with pytest.raises(TavusValidationError, match=r"the connection's base URL"):
        parse_origin("tavusapi.com", port, schema)


def test_contradicting_ports_are_rejected():
    assert parse_origin("http://127.0.0.1:8600", 8600, allowed=[SANDBOX]) == SANDBOX
    with pytest.raises(TavusValidationError, match="is not a valid origin"):
        parse_origin("http://127.0.0.1:8600", 8601, allowed=[SANDBOX, "http://127.0.0.1:8601"])


def test_message_says_how_to_allow_an_origin():
    with pytest.raises(TavusValidationError) as caught:
        parse_origin(SANDBOX)
    assert str(caught.value) == (
        "the connection's base URL http://127.0.0.1:8600 is not among the allowed origins: an administrator "
        "of the deployment can add it to allowed_origins in section tavus of the configuration, or to "
        "AIRFLOW__TAVUS__ALLOWED_ORIGINS=http://127.0.0.1:8600"
    )
    assert parse_origin(SANDBOX, allowed=[DEFAULT_ORIGIN, f" {SANDBOX}/v2 ", ""]) == SANDBOX
    assert parse_origin("127.0.0.1", 8600, allowed=["https://127.0.0.1:8600"]) == "https://127.0.0.1:8600"


def test_allowed_origins_replace_the_default():
    with pytest.raises(TavusValidationError, match="is not among the allowed origins"):
        parse_origin(DEFAULT_ORIGIN, allowed=[SANDBOX])
    with pytest.raises(TavusValidationError, match="is not among the allowed origins"):
        parse_origin(DEFAULT_ORIGIN, allowed=[])


def test_other_ports_and_schemes_of_an_allowed_host_are_rejected():
    for host in ("https://127.0.0.1:8600", "http://127.0.0.1", "http://127.0.0.1:8601"):
        with pytest.raises(TavusValidationError, match="is not among the allowed origins"):
            parse_origin(host, allowed=[SANDBOX])


@pytest.mark.parametrize(
    "allowed", ["*", "https://*", "https://tavusapi.com https://evil.test", "https://evil.test/x"]
)
def test_invalid_allowed_origin_allows_nothing(allowed):
    with pytest.raises(TavusValidationError, match=r"\[tavus\] allowed_origins is not a valid origin"):
        parse_origin(None, allowed=[DEFAULT_ORIGIN, allowed])


@pytest.mark.parametrize("host", [KEY, f"A{KEY}".upper(), f"https://a{KEY}:443"])
def test_key_entered_as_host_is_not_repeated(host):
    with pytest.raises(TavusValidationError, match="the connection's base URL") as caught:
        parse_origin(host)
    assert KEY not in str(caught.value).lower()


# --- key


@pytest.mark.parametrize("password", [KEY, f"{KEY}\n", f" {KEY}", f"\t{KEY}\r\n"])
def test_whitespace_around_a_key_is_removed(password):
    assert parse_key(password) == KEY


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        pytest.param("", "has no API key", id="empty"),
        pytest.param("  ", "has no API key", id="whitespace"),
        pytest.param(None, "has no API key", id="none"),
        pytest.param(b"kkkk-secret", "has no API key", id="bytes"),
        pytest.param(12345678, "has no API key", id="int"),
        pytest.param("***", "mask that a form shows", id="mask"),
        pytest.param("**********", "mask that a form shows", id="long mask"),
        pytest.param("kkkk-secret\r\nX-Evil: 1", "is invalid: expected up to 512", id="header injection"),
        pytest.param("kkkk-secret kkkk", "is invalid: expected up to 512", id="inner space"),
        pytest.param("kkkk-secret\u20ac", "is invalid: expected up to 512", id="euro"),
        pytest.param("kkkk-secret\x00", "is invalid: expected up to 512", id="nul"),
        pytest.param("kkkk-secret" * 1000, "is invalid: expected up to 512", id="10 kB"),
        pytest.param("k" * 513, "is invalid: expected up to 512", id="513"),
    ],
)
def test_invalid_key_is_rejected_and_not_repeated(password, reason):
    with pytest.raises(TavusValidationError, match=reason) as caught:
        parse_key(password)
    assert "kkkk" not in f"{caught.value!r}{caught.value.args}"
    assert caught.value.__context__ is None


def test_longest_key():
    assert parse_key("k" * 512) == "k" * 512


def test_key_in_the_login_is_mentioned_and_not_repeated():
    with pytest.raises(TavusValidationError) as caught:
        parse_key(None, login=KEY)
    assert str(caught.value) == (
        "the connection has no API key: put it in the password (the login has a value, but it is not used)"
    )


def test_config_does_not_show_its_key():
    config = ClientConfig("https://tavusapi.com", KEY)
    assert KEY not in f"{config}"
    assert repr(config) == (
        "ClientConfig(origin='https://tavusapi.com', "
        "options=ClientOptions(timeout=30.0, concurrency=8, requests_per_second=None))"
    )


# --- extras


@pytest.mark.parametrize(
    "text", [None, "", "{}", '{"timeout": null, "concurrency": null, "requests_per_second": null}']
)
def test_defaults(text):
    assert ClientOptions.parse(text) == ClientOptions(timeout=30.0, concurrency=8, requests_per_second=None)


def test_given_extras_are_used():
    text = '{"timeout": 0.5, "concurrency": 64, "requests_per_second": 2}'
    assert ClientOptions.parse(text) == ClientOptions(timeout=0.5, concurrency=64, requests_per_second=2)


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"headers": {"a": "s3cret"}}, "'headers'"),
        ({"x-api-key": "s3cret"}, "'x-api-key'"),
        ({"api_key": "s3cret"}, "'api_key'"),
        ({"Host": "s3cret"}, "'Host'"),
        ({"X-HTTP-Method-Override": "s3cret"}, "'X-HTTP-Method-Override'"),
        ({"Transfer-Encoding": "s3cret"}, "'Transfer-Encoding'"),
        ({"proxies": {"https": "s3cret"}}, "'proxies'"),
        ({"proxy": "s3cret"}, "'proxy'"),
        ({"verify": False}, "'verify'"),
        ({"verify": "false"}, "'verify'"),
        ({"verify": 0}, "'verify'"),
        ({"verify": ""}, "'verify'"),
        ({"verify": "/etc/passwd"}, "'verify'"),
        ({"cert": "s3cret"}, "'cert'"),
        ({"trust_env": True}, "'trust_env'"),
        ({"allow_redirects": True}, "'allow_redirects'"),
        ({"base_url": "s3cret"}, "'base_url'"),
        ({"allowed_origins": "s3cret"}, "'allowed_origins'"),
        ({"hard": True}, "'hard'"),
        ({"max_deletions": 1000000}, "'max_deletions'"),
        ({"Timeout": 5}, "'Timeout'"),
        ({"extra__tavus__timeout": 5}, "'extra__tavus__timeout'"),
        ({"verify": None}, "'verify'"),
    ],
)
def test_unknown_extra_is_rejected_by_name_without_its_value(extra, name):
    with pytest.raises(TavusValidationError) as caught:
        ClientOptions.parse(json.dumps(extra))
    text = str(caught.value)
    assert text.startswith(f"the connection has unknown extras {name}: expected only timeout, concurrency, ")
    assert "the API key belongs in the password" in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '"timeout"',
        "5",
        "null",
        "true",
        "{",
        "{'timeout': 5}",
        "not json s3cret",
        pytest.param('{"timeout": ' + "1" * 10_000_000 + "}", id="10 MB"),
        pytest.param("[" * 1000 + "]" * 1000, id="depth 1,000"),
        pytest.param('{"timeout":' + "[" * 30_000, id="depth 30,000"),
        pytest.param('{"timeout": ' + "1" * 5000 + "}", id="5,000 digits"),
        {"timeout": 5},
        b"{}",
    ],
)
def test_extra_must_be_a_json_object(text):
    with pytest.raises(TavusValidationError, match="is not a JSON object of at most 64 KiB") as caught:
        ClientOptions.parse(text)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("timeout", value)
            for value in (
                0,
                -1,
                "0",
                "-1",
                "600.1",
                "5 s",
                "",
                " ",
                "1e2",
                "0x5",
                True,
                1e12,
                600.1,
                float("nan"),
                float("inf"),
                [5],
                {},
            )
        ),
        *(
            ("concurrency", value)
            for value in (0, 65, -1, 1.0, 8.5, "65", "8.0", True, False, float("nan"), [1])
        ),
        *(
            ("requests_per_second", value)
            for value in (0, -1, "0.0", "1000.5", True, 1000.5, float("inf"), float("nan"))
        ),
    ],
)
def test_value_outside_its_bounds_is_rejected_by_name(name, value):
    with pytest.raises(TavusValidationError, match=f"^{name} is .*: expected "):
        ClientOptions.parse(json.dumps({name: value}))
    with pytest.raises(TavusValidationError, match=f"^{name} is .*: expected "):
        check_option(name, value)


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("timeout", "60", 60),
        ("timeout", " 0.5\n", 0.5),
        ("timeout", "+600", 600),
        ("concurrency", "16", 16),
        ("requests_per_second", "2.5", 2.5),
    ],
)
def test_number_may_be_text_in_a_connection_and_not_in_an_operator(name, text, number):
    given = getattr(ClientOptions.parse(json.dumps({name: text})), name)
    assert (given, type(given)) == (number, type(number))
    with pytest.raises(InvalidOptionError, match=f"^{name} is of type str: expected "):
        check_option(name, text)


@pytest.mark.parametrize("text", ["700", "-1", "0"])
def test_number_as_text_outside_its_bounds_is_shown(text):
    with pytest.raises(InvalidOptionError, match=f"^timeout is {text}: expected ") as caught:
        ClientOptions.parse(json.dumps({"timeout": text}))
    assert (caught.value.option, caught.value.expected) == (
        "timeout",
        "a number of seconds greater than 0, at most 600",
    )


def test_error_about_an_option_can_be_pickled():
    with pytest.raises(InvalidOptionError) as caught:
        check_option("concurrency", 0)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.option) == (str(caught.value), "concurrency")


@pytest.mark.parametrize(
    ("names", "key", "shown"),
    [
        ([KEY], KEY, []),
        ([KEY.upper()], KEY, []),
        ([f"x{KEY}"], KEY, []),
        ([KEY[:20]], KEY, []),
        (["abcdefghijklmnop"], "abcdefghijklmnop", []),
        (["verify", "abcdefghijklmnop"], "abcdefghijklmnop", ["verify"]),
        (["a1b2c3d4e5f6a7b8c9d0e1f2"], "another key", []),
        (["a" * 31], "another key", []),
        (["proxy", "verify"], "another key", ["proxy", "verify"]),
        (["sk live"], "another key", []),
        (["\u202ekey"], "another key", []),
    ],
)
def test_unknown_extra_whose_name_may_be_a_key_is_not_repeated(names, key, shown):
    with pytest.raises(TavusValidationError) as caught:
        ClientOptions.parse(json.dumps(dict.fromkeys(names, 1)), key=key)
    text = str(caught.value)
    assert text.startswith("the connection has unknown extras ")
    assert [name for name in names if name in text] == shown
    if len(shown) < len(names):
        assert f"{len(names) - len(shown)} that are not shown because one may be a key" in text


def test_message_says_what_is_expected():
    with pytest.raises(TavusValidationError) as caught:
        check_option("timeout", -1)
    assert str(caught.value) == "timeout is -1: expected a number of seconds greater than 0, at most 600"


def test_key_entered_as_an_extra_is_not_repeated():
    with pytest.raises(TavusValidationError) as caught:
        ClientOptions.parse(json.dumps({"timeout": KEY}))
    assert (
        str(caught.value)
        == "timeout is of type str: expected a number of seconds greater than 0, at most 600"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 600),
        ("timeout", 0.001),
        ("concurrency", 1),
        ("concurrency", 64),
        ("requests_per_second", 1000),
    ],
)
def test_bounds_are_inclusive_where_documented(name, value):
    assert getattr(ClientOptions.parse(json.dumps({name: value})), name) == value
