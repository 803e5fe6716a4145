"""Objects of every kind are read and deleted in the same way."""

from __future__ import annotations

import pytest
import requests_mock as mock
from client.conftest import API, KEY

from tavus_provider.client.kinds import KINDS
from tavus_provider.exceptions import (
    ItemNotFoundError,
    ReplicaNotFoundError,
    TavusInvalidResponseError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusValidationError,
)
from tavus_provider.keys import Kind, item_key, parse_key
from tavus_provider.models import Conversation, Replica, Video

ITEMS = {
    Kind.REPLICA: "r1a0c5e8f3b2",
    Kind.VIDEO: "2f41551d0a",
    Kind.CONVERSATION: "c1fbb71b378385b0",
}
"""One object of each kind of the built-in account of the sandbox."""

each_kind = pytest.mark.parametrize("kind", Kind)
each_hard = pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])


def key_of(kind: Kind) -> str:
    return item_key(kind, ITEMS[kind])


def deleted_as(sandbox, kind: Kind) -> str | None:
    """Return how the object is deleted in the sandbox."""
    rows = sandbox.state()[f"{kind}s"]
    return next(row["deleted"] for row in rows if row[f"{kind}_id"] == ITEMS[kind])


def test_every_kind_has_an_entry():
    assert list(KINDS) == list(Kind)


@each_kind
def test_item_is_returned_as_its_model(client, sandbox, kind):
    item = client.get_item(key_of(kind))
    assert type(item) is {"replica": Replica, "video": Video, "conversation": Conversation}[kind]
    assert (item.kind, item.key) == (kind, ITEMS[kind])
    (request,) = sandbox.state()["requests"]
    assert (request["path"], request["query"]) == (
        f"/v2/{kind}s/{ITEMS[kind]}",
        "verbose=true" if kind is Kind.REPLICA else "",
    )


@each_kind
@each_hard
def test_delete_is_one_request_without_a_body(mocked_client, requests_mock, kind, hard):
    requests_mock.delete(f"{API}/v2/{kind}s/{ITEMS[kind]}", status_code=204)
    deletion = mocked_client.delete_item(key_of(kind), hard=hard)
    (request,) = requests_mock.request_history
    query = "?hard=true" if hard else ""
    assert (request.method, request.url, request.body) == (
        "DELETE",
        f"{API}/v2/{kind}s/{ITEMS[kind]}{query}",
        None,
    )
    assert request.headers["x-api-key"] == KEY
    assert request.headers["Content-Length"] == "0"
    assert (deletion.key, deletion.outcome) == (key_of(kind), "deleted")
    assert deletion.detail == f"DELETE /v2/{kind}s/{ITEMS[kind]}{query} returned 204"


@each_kind
@each_hard
def test_deleted_item_is_deleted_in_this_way(client, sandbox, kind, hard):
    client.delete_item(key_of(kind), hard=hard)
    assert deleted_as(sandbox, kind) == ("hard" if hard else "soft")


@each_kind
def test_soft_is_the_default(client, sandbox, kind):
    client.delete_item(key_of(kind))
    assert deleted_as(sandbox, kind) == "soft"


@each_kind
@pytest.mark.parametrize("hard", ["true", "false", 1, 0, None, ""])
def test_hard_must_be_a_bool(client, sandbox, kind, hard):
    with pytest.raises(TavusValidationError, match=r"^hard: expected True or False"):
        client.delete_item(key_of(kind), hard=hard)
    assert sandbox.state()["requests"] == []


@pytest.mark.parametrize("key", ["persona/p1a", "video/..", "", None, "replica/r1a", "video/none"])
def test_invalid_key_sends_nothing(client, sandbox, key):
    for call in (client.get_item, client.delete_item):
        with pytest.raises(TavusValidationError):
            call(key)
    assert sandbox.state()["requests"] == []


@pytest.mark.parametrize("key", ["video/2f41551d0a", "conversation/c1fbb71b378385b0"])
def test_methods_for_replicas_take_no_key(client, sandbox, key):
    for call in (client.get_replica, client.delete_replica):
        with pytest.raises(TavusValidationError, match=r"^replica_id: "):
            call(key)
    assert sandbox.state()["requests"] == []


@each_kind
@pytest.mark.parametrize("unknown_id", ["400-error", "400-message", "404"])
def test_unknown_id_is_not_found(client, sandbox, kind, unknown_id):
    sandbox.switch(unknown_id=unknown_id)
    for call in (client.get_item, client.delete_item):
        with pytest.raises(ItemNotFoundError) as caught:
            call(item_key(kind, "00dead00bee"))
        assert (caught.value.outcome, caught.value.attempts) == ("already_gone", 1)
        assert isinstance(caught.value, ReplicaNotFoundError) == (kind is Kind.REPLICA)


@each_kind
@pytest.mark.parametrize("other", [f"{kind}_id" for kind in Kind] + ["persona_id", "face_id"])
def test_400_about_another_kind_does_not_mean_not_found(client, sandbox, kind, other):
    sandbox.switch(faults=[{"status": 400, "body": f'{{"error": "Invalid {other}"}}', "times": None}])
    if other in KINDS[kind].model.id_fields:
        with pytest.raises(ItemNotFoundError):
            client.delete_item(key_of(kind))
        return
    with pytest.raises(TavusRequestRejectedError):
        client.delete_item(key_of(kind))
    with pytest.raises(TavusInvalidResponseError):
        client.get_item(key_of(kind))


@each_kind
def test_object_in_an_envelope_is_read(mocked_client, requests_mock, kind):
    row = {f"{kind}_id": key_of(kind).rpartition("/")[2], "status": "completed"}
    for body in (row, row | {"data": {"script": "x"}}, {"data": row}, {"data": [row], "total_count": 1}):
        requests_mock.get(mock.ANY, json=body)
        assert mocked_client.get_item(key_of(kind)).status == "completed"
    for body in ({"data": [row, row]}, {"data": []}, {"data": {"data": row}}):
        requests_mock.get(mock.ANY, json=body)
        with pytest.raises(TavusInvalidResponseError, match="cannot be read"):
            mocked_client.get_item(key_of(kind))


@each_kind
def test_response_about_another_object_is_an_error(mocked_client, requests_mock, kind):
    requests_mock.get(mock.ANY, json={f"{kind}_id": "a1b2c3"})
    with pytest.raises(TavusInvalidResponseError, match=f"returned another {kind}, a1b2c3"):
        mocked_client.get_item(key_of(kind))


@each_kind
@each_hard
def test_applied_delete_with_a_lost_response_is_confirmed_by_a_look_up(client, sandbox, kind, hard):
    sandbox.switch(faults=[{"method": "DELETE", "status": 500, "when": "after"}])
    deletion = client.delete_item(key_of(kind), hard=hard)
    assert deletion.outcome == "confirmed"
    assert deleted_as(sandbox, kind) == ("hard" if hard else "soft")
    # A soft-deleted video can still be read. Then only a second DELETE shows that it is gone.
    seen = [request["method"] for request in sandbox.state()["requests"]]
    by_delete = kind is Kind.VIDEO and not hard
    assert seen == (["DELETE", "GET", "DELETE"] if by_delete else ["DELETE", "GET"])


@each_kind
def test_delete_that_may_be_applied_is_unknown(client, sandbox, kind):
    sandbox.switch(faults=[{"status": 500, "times": None}])
    with pytest.raises(TavusOutcomeUnknownError, match=f"^DELETE /v2/{kind}s/.*; it may have been applied$"):
        client.delete_item(key_of(kind))
    assert deleted_as(sandbox, kind) is None


@each_kind
def test_all_items_of_a_kind_are_those_of_its_list(client, kind):
    of_its_own = getattr(client, f"list_{kind.plural}")
    assert client.list_items(kind) == of_its_own()
    assert ITEMS[kind] in {row.key for row in client.list_items(kind)}
    assert {row.kind for row in client.list_items(kind)} == {kind}


@each_kind
def test_only_kept_items_of_a_kind_are_returned(client, kind):
    rows = client.list_items(kind, keep=lambda row: row.key == ITEMS[kind])
    assert [row.key for row in rows] == [ITEMS[kind]]


@pytest.mark.parametrize("kind", [Kind.VIDEO, Kind.CONVERSATION])
def test_only_kept_rows_are_returned(client, sandbox, kind):
    list_all = client.list_videos if kind is Kind.VIDEO else client.list_conversations
    wanted = ITEMS[kind]
    asked = []

    def keep(row):
        asked.append(row.key)
        return row.key == wanted

    assert [row.key for row in list_all(keep=keep)] == [wanted]
    assert set(asked) == {row.key for row in list_all()}
    assert list_all(keep=lambda row: False) == []
    assert [row.key for row in list_all(keep=keep, latest_only=True)] == [wanted]


def test_personas_can_be_kept(client):
    assert [row.key for row in client.list_personas(keep=lambda row: row.replica_id == "rf8c6e5b1a20")] == [
        "p1c2d3e4f5a6"
    ]


def test_keep_is_asked_about_unreadable_rows(client, sandbox):
    sandbox.switch(odd_rows={"conversations": [{"conversation_id": "c9", "replica_id": 7}]})
    (row,) = client.list_conversations(keep=lambda row: not isinstance(row, Conversation))
    assert row.own_ids == ("c9",)


def test_listing_with_keep_that_cannot_be_shown_to_be_complete_is_an_error(client, sandbox):
    sandbox.switch(total_count="high")
    with pytest.raises(TavusInvalidResponseError, match="cannot be shown to be complete"):
        client.list_conversations(keep=lambda row: False)


def test_keys_of_items_name_their_kind(client):
    for row in (*client.list_videos(), *client.list_conversations(), *client.list_replicas()):
        assert parse_key(item_key(Kind(row.kind), row.key)) == (row.kind, row.key)
