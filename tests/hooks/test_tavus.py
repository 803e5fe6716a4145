"""The Airflow connection, its form and the connection test. The client itself is tested in tests/client."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tavus_provider.client.config import ClientOptions
from tavus_provider.exceptions import TavusRetryableError, TavusValidationError
from tavus_provider.get_provider_info import get_provider_info
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.keys import Kind
from tavus_provider.sandbox import Sandbox

API = "https://tavusapi.com"
KEY = "hook-key-8f2b6c91/+d"
REPLICA = "r1a0c5e8f3b2"
"""A replica of the built-in account of the sandbox that nothing uses."""


@pytest.fixture(scope="module")
def running_sandbox():
    with Sandbox(key="sandbox-key-8f2b6c91") as running:
        yield running


@pytest.fixture
def sandbox(running_sandbox, connect):
    """A sandbox with its built-in account, and the connection to it. All tests share the server."""
    if not running_sandbox._server:  # a test closed it
        running_sandbox.__enter__()
    running_sandbox.reset()
    connect(running_sandbox.url, password=running_sandbox.key, extra={"timeout": 5})
    return running_sandbox


# --- reading the connection


def test_connection_as_json(monkeypatch, requests_mock):
    monkeypatch.setenv(
        "AIRFLOW_CONN_TAVUS_DEFAULT", json.dumps({"conn_type": "tavus", "password": f"{KEY}\n"})
    )
    requests_mock.delete(f"{API}/v2/replicas/r1", status_code=204)
    with TavusHook() as hook:
        assert hook.delete_replica("r1").outcome == "deleted"
        assert hook.origin == API
        assert hook.get_conn() is hook.client
        assert hook.client.options == ClientOptions()
    assert requests_mock.last_request.headers["x-api-key"] == KEY


@pytest.mark.parametrize(
    ("uri", "origin", "options"),
    [
        ("tavus://:{key}@tavusapi.com", API, {}),
        ("tavus://:{key}@tavusapi.com/", API, {}),
        ("tavus://:{key}@tavusapi.com:443/v2", API, {}),
        ("tavus://:{key}@", API, {}),
        ("tavus://https://:{key}@tavusapi.com/", API, {}),
        ("tavus://https://:{key}@tavusapi.com/v2", API, {}),
        ("tavus://http://:{key}@127.0.0.1:8600/", "http://127.0.0.1:8600", {}),
        ("tavus://http://:{key}@127.0.0.1:8600/v2", "http://127.0.0.1:8600", {}),
        (
            "tavus://:{key}@tavusapi.com/?__extra__=%7B%22timeout%22%3A+5%2C+%22concurrency%22%3A+null%7D",
            API,
            {"timeout": 5},
        ),
        (
            "tavus://:{key}@tavusapi.com?timeout=60&concurrency=4&requests_per_second=0.5",
            API,
            {"timeout": 60, "concurrency": 4, "requests_per_second": 0.5},
        ),
    ],
)
def test_connection_as_a_uri(monkeypatch, uri, origin, options):
    monkeypatch.setenv("AIRFLOW_CONN_TAVUS_DEFAULT", uri.format(key=quote(KEY, safe="")))
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", f"{API}, http://127.0.0.1:8600")
    with TavusHook() as hook:
        assert hook.origin == origin
        assert hook.client.options == ClientOptions(**options)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"host": "http://127.0.0.1:8600"}, "is not among the allowed origins"),
        ({"host": "https://tavusapi.com@evil.test"}, "the connection's base URL is not a valid origin"),
        ({"port": 80}, "https://tavusapi.com:80 is not among the allowed origins"),
        ({"schema": "http"}, "the connection's base URL is not a valid origin"),
        ({"password": None, "login": KEY}, "has no API key"),
        ({"password": "***"}, "is the mask that a form shows"),
        ({"extra": {"verify": False}}, "unknown extras 'verify'"),
        ({"extra": {"api_key": KEY}}, "unknown extras 'api_key'"),
        ({"extra": {"timeout": 0}}, "timeout is 0: expected a number of seconds greater than 0, at most 600"),
    ],
)
def test_invalid_connection_is_rejected_and_nothing_is_sent(
    connect, monkeypatch, requests_mock, fields, reason
):
    connect(**{"host": None, "password": KEY, **fields})
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", API)
    for call in (TavusHook().list_replicas, lambda: TavusHook().delete_replica(REPLICA)):
        with pytest.raises(TavusValidationError) as caught:
            call()
        assert reason in str(caught.value)
        assert KEY not in str(caught.value)
    assert requests_mock.call_count == 0


@pytest.mark.parametrize("schema", ["v2", "/v2", ""])
def test_schema_may_be_v2(connect, schema):
    connect(API, schema=schema)
    assert TavusHook().origin == API


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="not defined"),
        pytest.param(f"{{not json {KEY}", id="invalid JSON"),
        pytest.param(f"tavus://:{KEY}@[", id="invalid URI"),
    ],
)
def test_unreadable_connection_is_named_without_its_text(monkeypatch, value):
    if value:
        monkeypatch.setenv("AIRFLOW_CONN_TAVUS_PROD", value)
    with pytest.raises(TavusValidationError) as caught:
        TavusHook("tavus_prod").list_replicas()
    assert str(caught.value).startswith(
        "the Airflow connection 'tavus_prod' is not defined or cannot be read ("
    )
    way = "AIRFLOW_CONN_TAVUS_PROD is set, but must be JSON" if value else "or set AIRFLOW_CONN_TAVUS_PROD"
    assert way in str(caught.value)
    assert KEY not in f"{caught.value!r}"
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_variable_that_has_only_the_key_is_named_without_it(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_TAVUS_PROD", KEY)
    with pytest.raises(TavusValidationError, match="AIRFLOW_CONN_TAVUS_PROD must be JSON") as caught:
        TavusHook("tavus_prod").list_replicas()
    assert KEY not in f"{caught.value!r}"


def test_connection_cannot_allow_its_own_origin(connect, monkeypatch, sandbox):
    monkeypatch.delenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS")
    with pytest.raises(TavusValidationError, match=f"AIRFLOW__TAVUS__ALLOWED_ORIGINS={sandbox.url}"):
        TavusHook().list_replicas()
    assert sandbox.state()["requests"] == []


# --- arguments of the hook


@pytest.mark.parametrize(
    ("extra", "arguments", "used"),
    [
        ({}, {}, (8, None)),
        ({"concurrency": 4, "requests_per_second": 2}, {}, (4, 2)),
        ({"concurrency": 4, "requests_per_second": 2}, {"concurrency": 9, "requests_per_second": 9}, (4, 2)),
        (
            {"concurrency": 4, "requests_per_second": 2},
            {"concurrency": 1, "requests_per_second": 0.5},
            (1, 0.5),
        ),
        ({"requests_per_second": 10}, {"parallel_tasks": 4}, (8, 2.5)),
        ({"requests_per_second": 10}, {"parallel_tasks": 4, "requests_per_second": 2}, (8, 0.5)),
        ({}, {"parallel_tasks": 4}, (8, None)),
        ({}, {"concurrency": 64, "requests_per_second": 9}, (64, 9)),
        ({}, {"concurrency": 16}, (16, None)),
        ({"concurrency": None}, {"concurrency": 16}, (16, None)),
        ({"concurrency": "4"}, {"concurrency": 16}, (4, None)),
        ({"timeout": 5}, {"concurrency": 16}, (16, None)),
    ],
    ids=str,
)
def test_arguments_are_used_unless_the_connection_sets_a_smaller_value(connect, extra, arguments, used):
    connect(API, extra=extra)
    options = TavusHook(**arguments).client.options
    assert (options.concurrency, options.requests_per_second) == used


def test_smaller_value_of_the_connection_is_logged_once(connect, capfd):
    connect(API, extra={"concurrency": 4, "requests_per_second": 9})
    hook = TavusHook(concurrency=16, requests_per_second=2)
    assert hook.client.options.concurrency == hook.client.options.concurrency == 4
    logged = "".join(capfd.readouterr())
    line = (
        "concurrency is 4, as the extra of the connection 'tavus_default' says, and not 16 as the task asks"
    )
    assert logged.count(line) == logged.count(" is ") == 1


@pytest.mark.parametrize(
    "arguments", [{"concurrency": 0}, {"concurrency": True}, {"requests_per_second": 0}], ids=str
)
def test_invalid_argument_is_rejected(connect, arguments):
    connect(API)
    with pytest.raises(TavusValidationError, match=f"^{next(iter(arguments))} is "):
        TavusHook(**arguments).list_replicas()


# --- settings of the deployment


def test_proxy_and_ca_bundle_are_settings_of_the_deployment(connect, monkeypatch, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    connect(API)
    monkeypatch.setenv("AIRFLOW__TAVUS__PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("AIRFLOW__TAVUS__CA_BUNDLE", str(bundle))
    session = TavusHook().client._transport._session
    assert session.proxies == {"http": "http://proxy.example:3128", "https": "http://proxy.example:3128"}
    assert session.verify == str(bundle)


def test_key_is_masked_in_logs_as_it_is_sent(connect, monkeypatch):
    masked = []
    monkeypatch.setattr("tavus_provider.hooks.tavus.mask_secret", masked.append)
    connect(API, password=f" {KEY}\n")
    assert TavusHook().origin == API
    assert masked == [KEY]


# --- the client


def test_methods_are_those_of_the_client(sandbox):
    with TavusHook() as hook:
        client = hook.client
        assert hook.clock_skew is client.clock_skew is None
        assert hook.list_replicas() == client.list_replicas()
        assert hook.list_replicas(while_deleting=True) == client.list_replicas(while_deleting=True)
        assert hook.list_personas() == client.list_personas()
        assert hook.list_conversations() == client.list_conversations()
        assert hook.list_conversations(latest_only=True) == client.list_conversations(latest_only=True)
        assert hook.list_items(Kind.VIDEO) == client.list_items(Kind.VIDEO)
        assert hook.list_videos() == client.list_videos()
        assert hook.list_videos(latest_only=True) == client.list_videos(latest_only=True)
        assert hook.get_replica(REPLICA) == client.get_replica(REPLICA)
        assert hook.delete_replica(REPLICA, hard=True).outcome == "deleted"
        assert hook.clock_skew == client.clock_skew
    assert sandbox.state()["deletes"] == [{"replica_id": REPLICA, "hard": True}]


def test_delete_of_the_hook_is_soft_by_default(sandbox):
    with TavusHook() as hook:
        hook.delete_replica(REPLICA)
    assert sandbox.state()["deletes"] == [{"replica_id": REPLICA, "hard": False}]


def test_closed_hook_can_be_used_again(sandbox):
    hook = TavusHook()
    assert len(hook.list_replicas()) == 26
    hook.close()
    hook.close()
    assert len(hook.list_replicas()) == 26
    hook.close()


def test_hook_does_not_show_the_key(sandbox):
    with TavusHook() as hook:
        hook.list_replicas()
        assert sandbox.key not in f"{hook!r} {vars(hook)} {hook.client}"


# --- the connection test

MESSAGES = {
    "accepted": (True, "Tavus accepted the API key."),
    "missing": (False, "The connection does not exist."),
    "origin": (
        False,
        "The base URL is not allowed: an administrator of the deployment can add it to allowed_origins in "
        "section tavus of the configuration.",
    ),
    "key": (False, "The API key is missing or invalid: enter it in the field API key."),
    "extras": (
        False,
        "The extras are invalid: expected only timeout, concurrency, requests_per_second.",
    ),
    "timeout": (
        False,
        "The extra timeout is invalid: expected a number of seconds greater than 0, at most 600.",
    ),
    "concurrency": (False, "The extra concurrency is invalid: expected a whole number from 1 to 64."),
    "settings": (False, "The proxy or ca_bundle in section tavus of the configuration is invalid."),
    "unreachable": (
        False,
        "Tavus could not be reached. Proxy variables such as HTTPS_PROXY are not read: an administrator of "
        "the deployment can set proxy in section tavus of the configuration.",
    ),
    "rejected": (False, "Tavus rejected the API key."),
    "rate limited": (False, "Tavus is rate limiting this account: try again later."),
    "not Tavus": (False, "The response is not from the Tavus API: check the base URL."),
}


def test_working_connection_is_tested_by_one_small_request(sandbox):
    assert TavusHook().test_connection() == MESSAGES["accepted"]
    (request,) = sandbox.state()["requests"]
    assert (request["method"], request["path"], request["query"]) == ("GET", "/v2/replicas", "limit=1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "https://evil.test"}, "origin"),
        ({"port": 8443}, "origin"),
        ({"password": None}, "key"),
        ({"password": f"{KEY}\x00"}, "key"),
        ({"extra": {"api_key": KEY}}, "extras"),
        ({"extra": {KEY: 1}}, "extras"),
        ({"extra": {"timeout": 700}}, "timeout"),
        ({"extra": {"timeout": KEY}}, "timeout"),
        ({"extra": {"concurrency": "0"}}, "concurrency"),
    ],
)
def test_connection_test_names_the_invalid_field(connect, monkeypatch, requests_mock, fields, message):
    connect(**{"host": API, "password": KEY, **fields})
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", API)
    assert TavusHook().test_connection() == MESSAGES[message]
    assert requests_mock.call_count == 0


def test_connection_test_of_a_missing_connection():
    assert TavusHook("tavus_nowhere").test_connection() == MESSAGES["missing"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 401}, "rejected"),
        ({"status": 403}, "rejected"),
        ({"status": 401, "html": True}, "not Tavus"),
        ({"status": 403, "body": "{}"}, "not Tavus"),
        ({"status": 429, "retry_after": "9999"}, "rate limited"),
        ({"status": 200, "html": True}, "not Tavus"),
        ({"status": 200, "body": "{}"}, "not Tavus"),
        ({"status": 200, "body": KEY}, "not Tavus"),
        ({"status": 404}, "not Tavus"),
        ({"status": 302, "headers": {"Location": "https://evil.test"}}, "not Tavus"),
        ({"status": 500, "body": KEY}, "not Tavus"),
        ({"close": True}, "unreachable"),
    ],
    ids=str,
)
def test_connection_test_returns_a_fixed_message(sandbox, fault, message):
    sandbox.switch(faults=[{"times": None, **fault}])
    assert TavusHook().test_connection() == MESSAGES[message]
    assert len(sandbox.state()["requests"]) == 1


def test_connection_test_of_a_server_that_is_down(sandbox):
    sandbox.__exit__()
    assert TavusHook().test_connection() == MESSAGES["unreachable"]


@pytest.mark.parametrize("option", ["PROXY", "CA_BUNDLE"])
def test_connection_test_with_an_invalid_setting_of_the_deployment(sandbox, monkeypatch, option):
    monkeypatch.setenv(f"AIRFLOW__TAVUS__{option}", "/nowhere")
    assert TavusHook().test_connection() == MESSAGES["settings"]
    assert sandbox.state()["requests"] == []


def test_connection_test_has_a_timeout_of_five_seconds(connect, monkeypatch):
    connect(API)
    timeouts = []
    hook = TavusHook()

    def send(*_, timeout: float):
        timeouts.append(timeout)
        raise TavusRetryableError("no connection")

    monkeypatch.setattr(hook.client._transport, "send", send)
    assert hook.test_connection() == MESSAGES["unreachable"]
    assert timeouts == [5.0]


# --- the form of Airflow before 3.2


def test_form_methods_return_the_provider_info():
    described = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
    assert TavusHook.get_ui_field_behaviour() == {
        "hidden_fields": described["hidden-fields"],
        "relabeling": described["relabeling"],
        "placeholders": described["placeholders"],
    }
