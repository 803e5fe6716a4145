"""Connections and responses that cannot be used: one clear line each, and nothing is deleted."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import KEY, apply_task, delete, look_up, plan_task, requests, run

from tavus_provider.exceptions import TavusError, TavusRetryableError

TASKS = [
    pytest.param(lambda _: delete(), id="delete"),
    pytest.param(lambda _: plan_task(), id="plan"),
    pytest.param(apply_task, id="apply"),
    pytest.param(lambda _: look_up(), id="look"),
]


def fail(make, plan):
    """Run a task that must fail. Return the error, and its message, which is one line without the key."""
    with pytest.raises((AirflowFailException, TavusError)) as caught:
        run(make(plan))
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert KEY not in repr(caught.value)
    return caught.value, message


@pytest.mark.parametrize("make", TASKS)
def test_missing_connection_is_named(sandbox, plan, monkeypatch, make):
    monkeypatch.delenv("AIRFLOW_CONN_TAVUS_DEFAULT")
    error, message = fail(make, plan)
    assert isinstance(error, AirflowFailException)
    assert message.startswith("the Airflow connection 'tavus_default' is not defined or cannot be read")
    assert "AIRFLOW_CONN_TAVUS_DEFAULT" in message
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize("make", TASKS)
@pytest.mark.parametrize("key", [None, "", "   ", "\n"], ids=repr)
def test_blank_key_is_missing(sandbox, plan, connect, make, key):
    connect(sandbox.url, password=key)
    error, message = fail(make, plan)
    assert isinstance(error, AirflowFailException)
    assert message == "the connection has no API key: put it in the password"
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize("make", TASKS)
def test_wrong_key_is_rejected_and_not_repeated(sandbox, plan, connect, make):
    connect(sandbox.url, password="another-key-than-the-right-one")
    error, message = fail(make, plan)
    assert isinstance(error, AirflowFailException)
    assert "returned 401: Invalid access token: check the API key of the Airflow connection" in message
    assert "another-key" not in message
    assert sandbox.state()["deletes"] == []


@pytest.mark.parametrize("make", TASKS)
def test_origin_that_is_not_allowed_is_named_and_gets_no_request(sandbox, plan, monkeypatch, make):
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", "https://tavusapi.com")
    before = requests(sandbox)
    error, message = fail(make, plan)
    assert isinstance(error, AirflowFailException)
    assert f"{sandbox.url} is not among the allowed origins" in message
    assert "allowed_origins in section tavus" in message
    assert requests(sandbox) == before


@pytest.mark.parametrize("make", TASKS)
def test_unreachable_host_is_named_and_retried(sandbox, plan, make):
    sandbox.__exit__()
    error, message = fail(make, plan)
    assert isinstance(error, TavusRetryableError)
    assert f"no connection to {sandbox.url}" in message


@pytest.mark.parametrize("make", TASKS)
def test_html_response_deletes_nothing(sandbox, plan, make):
    sandbox.switch(faults=[{"status": 200, "html": True, "times": None}])
    _, message = fail(make, plan)
    assert "text/html" in message
    assert sandbox.state()["deletes"] == []
