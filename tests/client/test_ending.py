"""``end_conversation``: what it sends, and what it says about the conversation."""

from __future__ import annotations

import pytest
from client.conftest import API, KEY

from tavus_provider.exceptions import (
    ItemNotFoundError,
    TavusAuthError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
    TavusValidationError,
)

ACTIVE = "c0eaa60a267274af"
ENDED = "c1fbb71b378385b0"
UNKNOWN = "c00dead00bee"


def status_of(sandbox, conversation_id=ACTIVE):
    rows = sandbox.state()["conversations"]
    return next(row["status"] for row in rows if row["conversation_id"] == conversation_id)


def methods(sandbox) -> list[str]:
    return [request["method"] for request in sandbox.state()["requests"]]


def post_fault(**more: object) -> dict[str, object]:
    return {"method": "POST", **more}


def test_end_is_one_request_without_a_body(mocked_client, requests_mock):
    requests_mock.post(f"{API}/v2/conversations/{ACTIVE}/end", status_code=200)
    ending = mocked_client.end_conversation(ACTIVE)
    (request,) = requests_mock.request_history
    assert (request.url, request.body) == (f"{API}/v2/conversations/{ACTIVE}/end", None)
    assert (request.headers["x-api-key"], request.headers["Content-Length"]) == (KEY, "0")
    assert (ending.conversation_id, ending.attempts) == (ACTIVE, 1)
    assert ending.detail == f"POST /v2/conversations/{ACTIVE}/end returned 200"


def test_active_conversation_has_ended_afterwards(client, sandbox):
    client.end_conversation(ACTIVE)
    assert status_of(sandbox) == "ended"
    assert methods(sandbox) == ["POST"]


@pytest.mark.parametrize("conversation_id", ["", "..", "c1/../x", "conversation/c1a", None, "none", "c1\n"])
def test_invalid_id_sends_nothing(client, sandbox, conversation_id):
    with pytest.raises(TavusValidationError, match=r"^conversation_id: "):
        client.end_conversation(conversation_id)
    assert methods(sandbox) == []


@pytest.mark.parametrize("unknown_id", ["400-error", "400-message", "404"])
def test_unknown_conversation_is_not_found(client, sandbox, unknown_id):
    sandbox.switch(unknown_id=unknown_id)
    with pytest.raises(ItemNotFoundError, match=f"^POST /v2/conversations/{UNKNOWN}/end returned 4"):
        client.end_conversation(UNKNOWN)
    assert methods(sandbox) == ["POST", "GET"]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 400, "body": '{"error": "Invalid conversation_id"}'}, id="unknown id"),
        pytest.param({"status": 400, "body": '{"error": "Conversation is not active"}'}, id="400"),
        pytest.param({"status": 409}, id="409"),
        pytest.param({"status": 404}, id="404"),
        pytest.param({"status": 500}, id="500"),
        pytest.param({"close": True}, id="closed"),
    ],
)
def test_conversation_that_had_ended_before_has_ended(client, sandbox, fault):
    sandbox.switch(faults=[post_fault(**fault, times=None)])
    ending = client.end_conversation(ENDED)
    assert ending.detail.endswith("; a look-up shows that the conversation has ended")
    assert methods(sandbox) == ["POST", "GET"]


@pytest.mark.parametrize("status", [400, 404, 405, 409])
def test_rejection_is_final_and_does_not_mean_that_it_has_ended(client, sandbox, status):
    sandbox.switch(faults=[post_fault(status=status, times=None)])
    with pytest.raises(TavusRequestRejectedError) as caught:
        client.end_conversation(ACTIVE)
    assert (caught.value.outcome, caught.value.attempts) == ("failed", 1)
    assert status_of(sandbox) == "active"
    assert methods(sandbox) == ["POST", "GET"]


def test_not_found_of_a_conversation_that_can_be_read_is_no_not_found(client, sandbox):
    body = '{"error": "Invalid conversation_id"}'
    sandbox.switch(faults=[post_fault(status=400, body=body, times=None)])
    with pytest.raises(
        TavusRequestRejectedError, match=r"Invalid conversation_id, but a look-up shows that .* is active$"
    ):
        client.end_conversation(ACTIVE)


@pytest.mark.parametrize("fault", [{"status": 500}, {"close": True}, {"status": 200, "html": True}])
@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_response_is_settled_by_a_look_up_or_a_second_request(client, sandbox, fault, when):
    sandbox.switch(faults=[post_fault(**fault, when=when)])
    ending = client.end_conversation(ACTIVE)
    assert status_of(sandbox) == "ended"
    assert methods(sandbox) == (["POST", "GET"] if when == "after" else ["POST", "GET", "POST"])
    assert ending.attempts == (1 if when == "after" else 2)


def test_end_that_may_be_applied_is_unknown(client, sandbox):
    sandbox.switch(faults=[{"status": 500, "times": None}])
    with pytest.raises(TavusOutcomeUnknownError, match=r"3 attempts; it may have been applied$"):
        client.end_conversation(ACTIVE)


def test_rejection_after_an_unknown_attempt_is_unknown(client, sandbox):
    sandbox.switch(faults=[post_fault(status=500), post_fault(status=409)])
    with pytest.raises(TavusOutcomeUnknownError):
        client.end_conversation(ACTIVE)


def test_rate_limit_is_retried_and_certainly_not_applied(client, sandbox, clock):
    sandbox.switch(faults=[post_fault(status=429, retry_after="1")])
    assert client.end_conversation(ACTIVE).attempts == 2
    sandbox.reset()
    sandbox.switch(faults=[post_fault(status=429, times=None)])
    with pytest.raises(TavusRetryableError):
        client.end_conversation(ACTIVE)
    assert methods(sandbox) == ["POST"] * 3


def test_single_401_is_sent_again_and_a_second_one_is_final(client, sandbox, clock):
    sandbox.switch(faults=[post_fault(status=401)])
    assert client.end_conversation(ACTIVE).attempts == 2
    sandbox.switch(faults=[post_fault(status=401, times=None)])
    with pytest.raises(TavusAuthError) as caught:
        client.end_conversation(ACTIVE)
    assert caught.value.key_rejected


def test_redirect_is_not_followed(client, sandbox):
    headers = {"Location": f"{sandbox.url}/v2/conversations/{ENDED}/end"}
    sandbox.switch(faults=[post_fault(status=307, headers=headers)])
    with pytest.raises(TavusRequestRejectedError):
        client.end_conversation(ACTIVE)
    assert status_of(sandbox) == "active"


def test_stopped_client_sends_nothing(client, sandbox):
    client.stop()
    with pytest.raises(TavusRetryableError) as caught:
        client.end_conversation(ACTIVE)
    assert caught.value.outcome == "not_attempted"
    assert methods(sandbox) == []
