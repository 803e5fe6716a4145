"""What belongs to a request, and what may belong to it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from tavus_provider.client.kinds import KINDS
from tavus_provider.exceptions import ItemNotFoundError, TavusRetryableError
from tavus_provider.execution.sweep import MAX_ASKED, Sweep, ask_for
from tavus_provider.keys import Kind, parse_key
from tavus_provider.models import Conversation, Persona, Replica, UnreadableRow, Video
from tavus_provider.planning.erasure import MAX_UNDETERMINED

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def video(item_id, replica_id=None, persona_id=None):
    return Video(item_id, replica_id, persona_id, "ready", NOW)


def conversation(item_id, replica_id=None, persona_id=None):
    return Conversation(item_id, replica_id, persona_id, "ended", NOW)


class Account:
    """A client with the rows of an account; ``details`` are what single objects show."""

    fails = None

    def __init__(self, *rows, details=()):
        self.rows = rows
        self.details = {row.key: row for row in (*rows, *details)}
        self.asked, self.listed = [], []

    def _list(self, kind, keep=None):
        return [row for row in self.rows if row.kind == kind and (keep is None or keep(row))]

    def list_personas(self, *, keep=None):
        return self._list("persona", keep)

    def list_items(self, kind, *, keep=None):
        self.listed.append(kind)
        if kind is self.fails:
            raise TavusRetryableError("down")
        return self._list(kind, keep)

    def get_item(self, key):
        self.asked.append(key)
        try:
            return self.details[parse_key(key)[1]]
        except KeyError:
            raise ItemNotFoundError("unknown") from None

    def stop(self):
        pass


def sweep(account, keys=("r1",), replica_ids=("r1",)):
    return Sweep.of(account, keys=frozenset(keys), replica_ids=frozenset(replica_ids))


def unreadable(kind, own=(), replicas=()):
    return UnreadableRow(kind, "odd", "f" * 64, own, replicas)


def test_rows_of_the_request_are_kept_and_others_are_not():
    account = Account(
        Replica("r1"), Replica("r2"), video("v1", "r1"), video("v2", "r2"),
        conversation("c1", "r1"), conversation("c2", "r2"), conversation("c3", "r2"),
        Persona("p1", "r1"), Persona("p2", "r2"),
    )  # fmt: skip
    found = sweep(account, keys=("r1", "conversation/c3"))
    assert set(found.items) == {"r1", "video/v1", "conversation/c1", "conversation/c3"}
    assert found.references == [{"persona_id": "p1", "replica_id": "r1"}]
    assert found.undetermined == {}


@pytest.mark.parametrize(
    ("row", "is_undetermined"),
    [
        (video("v1"), True),
        (conversation("c1", None, "p1"), True),
        (unreadable("video", ("v1",), ("r1",)), True),
        (unreadable("video", ("v1",)), True),
        (unreadable("video", ("v1",), ("r2",)), False),
        (unreadable("video", ("v9",), ("r2",)), True),  # shows a key of the request
        (unreadable("replica", ("r1", "r3")), True),
        (unreadable("replica", ("r3", "r4")), False),
        (unreadable("replica"), True),
        (unreadable("persona", ("p1",)), True),
        (unreadable("persona", ("p1",), ("r2",)), False),
    ],
)
def test_rows_of_which_it_cannot_be_seen_whose_they_are(row, is_undetermined):
    found = sweep(Account(row), keys=("r1", "video/v9"))
    assert bool(found.undetermined) == is_undetermined
    assert found.items == {}


def test_replica_in_another_letter_case_may_be_that_of_the_request():
    account = Account(
        Persona("p1", "R1"),
        unreadable("persona", replicas=("R1",)),
        video("v1", "R1"),
        conversation("c1", "r1"),
        unreadable("conversation", ("c2",), ("R1",)),
    )
    found = sweep(account)
    assert set(found.items) == {"conversation/c1"}
    assert [one["replica_id"] for one in found.references] == ["R1", "R1"]
    assert found.undetermined["video/v1"] == "names replica R1, an id of the request in another letter case"
    assert len(found.undetermined) == 2


def test_without_a_replica_in_the_request_such_rows_do_not_matter():
    account = Account(
        video("v1"), unreadable("replica"), unreadable("persona", ("p1",)), conversation("c1", "r2")
    )
    found = sweep(account, keys=("conversation/c1",), replica_ids=())
    assert (set(found.items), found.undetermined) == ({"conversation/c1"}, {})


def test_object_that_names_its_replica_although_its_row_does_not_is_attributed():
    """The reference of the API leaves replica_id out of the rows of videos."""
    account = Account(
        video("v1"), video("v2"), video("v3"),
        details=[video("v1", "r1"), video("v2", "r2")],
    )  # fmt: skip
    found = sweep(account)
    assert set(found.undetermined) == {"video/v1", "video/v2", "video/v3"}
    found.attribute(account, known=(), concurrency=2)
    assert set(found.items) == {"video/v1"}
    assert set(found.undetermined) == {"video/v3"}


def test_object_that_names_its_replica_in_another_letter_case_stays_undetermined():
    account = Account(video("v1"), details=[video("v1", "R1")])
    found = sweep(account)
    found.read_list(account, "video")
    found.attribute(account, concurrency=2)
    assert found.items == {}
    assert found.undetermined == {"video/v1": "names replica R1, an id of the request in another letter case"}


def test_nothing_is_asked_if_too_many_rows_name_no_replica():
    account = Account(*(video(f"v{n}") for n in range(MAX_ASKED + 1)))
    sweep(account).attribute(account, concurrency=2)
    assert account.asked == []


def test_number_of_undetermined_rows_is_bounded():
    found = sweep(Account(*(video(f"v{n}") for n in range(MAX_UNDETERMINED + 7))))
    assert (len(found.undetermined), found.overflow) == (MAX_UNDETERMINED, 7)


def test_list_that_fails_does_not_stop_the_others():
    account = Account(video("v1", "r1"), Replica("r1"))
    account.fails = Kind.CONVERSATION
    found = sweep(account)
    assert set(found.errors) == {"conversation"}
    assert found.read == {"persona", "replica", "video"}
    assert set(found.items) == {"r1", "video/v1"}


def test_every_kind_is_listed_once_in_its_own_list():
    account = Account()
    found = sweep(account)
    assert account.listed == list(Kind)
    assert found.read == {"persona", *Kind}


@pytest.mark.parametrize("kind", Kind)
def test_list_counts_as_read_only_if_tavus_returned_that_list(hook, sandbox, kind):
    """Whatever the other lists return."""
    fault = {"method": "GET", "path": KINDS[kind].path, "status": 418, "times": None}
    sandbox.switch(faults=[fault])
    found = Sweep.of(hook, keys=frozenset(), replica_ids=frozenset())
    assert set(found.errors) == {kind}
    assert found.read == {"persona", *Kind} - {kind}


@pytest.mark.parametrize("name", ["document", "replicas", ""])
def test_list_of_an_unknown_kind_is_an_error_and_is_not_read(name):
    found = sweep(Account())
    with pytest.raises(ValueError, match="is not a valid Kind"):
        found.read_list(Account(), name)
    assert found.read == {"persona", *Kind}


def test_row_of_a_model_without_a_way_to_see_whose_it_is_is_an_error():
    """A kind that nobody decided about is not one of which everything was read."""
    document = SimpleNamespace(kind="video", key="d1")
    found = Sweep(keys=frozenset({"r1"}), replica_ids=frozenset({"r1"}))
    with pytest.raises(AssertionError):
        found.read_list(Account(document), Kind.VIDEO)
    assert found.read == set()


def test_answers_tell_missing_objects_from_errors():
    account = Account(Replica("r1"))
    answers = ask_for(account, ["r1", "r2"], concurrency=2)
    assert answers["r1"].item is not None
    assert answers["r2"].is_missing
    assert ask_for(account, [], concurrency=2) == {}
