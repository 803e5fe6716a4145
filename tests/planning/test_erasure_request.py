"""What is accepted as a request for an erasure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

import pytest

from tavus_provider.dag_params import accounts_param, erasure_params
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import Kind, item_key
from tavus_provider.operators.tavus import PlanErasureOperator
from tavus_provider.planning.beyond_reach import find_beyond_reach
from tavus_provider.planning.erasure_request import (
    REQUEST_PATTERN,
    Ground,
    add_month,
    find_past_due_date,
    is_past,
    parse_request,
)

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
GOOD = {
    "request": "DSR-2026-0142",
    "received_on": "2026-11-01",
    "ground": "request",
    "replica_ids": ["rf4e9d9790f0"],
    "now": NOW,
}


def parse(**changes):
    arguments = GOOD | changes
    ids = {kind: arguments.pop(kind.ids_name) for kind in Kind if kind.ids_name in arguments}
    return parse_request(ids=ids, **arguments)


def test_parts_of_a_request():
    found = parse(
        replica_ids=["rf4e9d9790f0", "r2", "r2"],
        conversation_ids=["conversation/c0eaa60a267274af"],
        video_ids=["1e30440cf9"],
        due_on="2026-12-24",
    )
    assert found.keys == ("rf4e9d9790f0", "r2", "video/1e30440cf9", "conversation/c0eaa60a267274af")
    assert found.replica_ids == ("rf4e9d9790f0", "r2")
    assert (found.received_on, found.due_on) == (date(2026, 11, 1), date(2026, 12, 24))
    assert found.kinds == tuple(Kind)
    assert found.ground is Ground.REQUEST


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-11-01", "2026-12-01"),
        ("2026-01-31", "2026-02-28"),
        ("2024-01-30", "2024-02-29"),
        ("2026-12-31", "2027-01-31"),
        ("2026-03-31", "2026-04-30"),
    ],
)
def test_due_date_is_one_calendar_month_later(received, due):
    assert add_month(date.fromisoformat(received)) == date.fromisoformat(due)
    assert parse(received_on="2026-10-31").due_on == date(2026, 11, 30)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"request": "Jane Doe"}, "request: must be a reference such as DSR-2026-0142, and not a name"),
        ({"request": "JaneDoe"}, "request: must be a reference"),
        ({"request": "Jäne-1"}, "request: must be a reference"),
        ({"request": "a1"}, "request: must be a reference"),
        ({"request": "1" * 65}, "request: must be a reference"),
        ({"request": "../DSR-1"}, "request: must be a reference"),
        ({"request": "DSR-1\n"}, "request: must be a reference"),
        ({"request": None}, "request: must be a reference"),
        ({"request": "jane@example.com"}, "request: an e-mail address"),
        ({"request": 2026}, "request: a number"),
        ({"received_on": ""}, "received_on: '' is not a date"),
        ({"received_on": None}, "received_on: empty is not a date"),
        ({"received_on": "28.11.2026"}, "received_on: '28.11.2026' is not a date"),
        ({"received_on": "2026-02-30"}, "received_on: '2026-02-30' is not a date"),
        ({"received_on": "2026-11-30"}, "received_on: 2026-11-30 is in the future"),
        ({"due_on": "2026-10-31"}, "due_on: 2026-10-31 is before received_on"),
        ({"due_on": "soon"}, "due_on: 'soon' is not a date"),
        ({"ground": "because"}, "ground: 'because' is not one of consent_withdrawn,"),
        ({"ground": None}, "ground: empty is not one of"),
        ({"replica_ids": []}, "replica_ids, video_ids, conversation_ids: all are empty"),
        ({"replica_ids": "rf4e9d9790f0"}, "replica_ids: must be a list, not 'rf4e9d9790f0'"),
        ({"replica_ids": ["None"]}, "replica_ids: 'None' is not the id of a replica"),
        ({"replica_ids": [["r1"]]}, "replica_ids: a list is not the id of a replica"),
        ({"replica_ids": ["spring-*"]}, "replica_ids: 'spring-*' is not the id of a replica"),
        ({"replica_ids": ["c0eaa60a267274af"]}, "looks like the id of a conversation, not of a replica"),
        ({"replica_ids": ["p1c2d3e4f5a6"]}, "looks like the id of a persona, not of a replica"),
        ({"video_ids": ["rf4e9d9790f1"]}, "looks like the id of a replica, not of a video"),
        ({"video_ids": ["conversation/c1"]}, "'conversation/c1' is not the id of a video"),
        ({"video_ids": ["rf4e9d97"], "replica_ids": ["rf4e9d97"]}, "rf4e9d97 is in two of"),
        ({"kinds": []}, "kinds: is empty"),
        ({"kinds": ["persona"]}, "kinds: 'persona' is not one of replica, video, conversation"),
        ({"kinds": "replica"}, "kinds: must be a list"),
        ({"kinds": ["replica"], "video_ids": ["v1"]}, "video_ids: has ids, but kinds does not have 'video'"),
    ],
)
def test_bad_input_is_one_clear_line(changes, problem):
    with pytest.raises(TavusValidationError) as caught:
        parse(**changes)
    message = str(caught.value)
    assert problem in message
    assert message.endswith("Nothing was read or deleted")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["Jane Doe", "jane@example.com"])
def test_message_does_not_repeat_what_may_be_a_name(name):
    with pytest.raises(TavusValidationError) as caught:
        parse(request=name)
    assert "ane" not in str(caught.value).replace("anew", "")


def test_past_due_date_is_refused_unless_it_is_known():
    given = parse(received_on="2026-09-01", due_on="2026-10-01")
    assert "due_on: 2026-10-01 is in the past" in find_past_due_date(given, known=[], now=NOW)
    assert find_past_due_date(given, known=[date(2026, 10, 1)], now=NOW) is None
    assert find_past_due_date(parse(received_on="2026-09-01"), known=[], now=NOW) is None  # computed
    assert find_past_due_date(parse(due_on="2026-11-28"), known=[], now=NOW) is None


def test_a_day_is_past_when_it_is_past_everywhere():
    assert not is_past(date(2026, 11, 27), now=datetime(2026, 11, 28, 11, tzinfo=UTC))
    assert is_past(date(2026, 11, 27), now=datetime(2026, 11, 28, 12, tzinfo=UTC))


@pytest.mark.parametrize("kind", Kind)
def test_ids_of_every_kind_are_accepted(kind):
    found = parse(**{"replica_ids": [], kind.ids_name: [kind.example]})
    assert found.keys == (item_key(kind, kind.example),)


def test_replicas_that_are_not_to_be_deleted_say_what_belongs_to_the_request():
    assert parse(kinds=["video"]).replica_ids == ("rf4e9d9790f0",)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_field_an_argument_and_what_is_beyond_reach(kind):
    assert kind.ids_name in erasure_params(["tavus_default"])
    assert kind.ids_name in PlanErasureOperator.template_fields
    assert len(find_beyond_reach([kind])) > len(find_beyond_reach([]))


@pytest.mark.parametrize("make", [erasure_params, accounts_param])
def test_form_needs_a_connection(make):
    with pytest.raises(
        TavusValidationError, match="connections: the list is empty; put the id of at least one"
    ):
        make([])


def test_form_has_the_same_pattern_and_grounds():
    params = erasure_params(["tavus_default"])
    assert params["request"].schema["pattern"] == REQUEST_PATTERN
    assert set(params["ground"].schema["enum"]) == set(Ground)
    assert params["kinds"].schema["items"]["enum"] == list(Kind)
    assert re.fullmatch(params["received_on"].schema["pattern"], "2026-11-28")
