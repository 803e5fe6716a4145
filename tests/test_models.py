from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.json_parser import ConflictingValues, UnusableNumber
from tavus_provider.models import (
    Conversation,
    Persona,
    Replica,
    UnreadableRow,
    Video,
    check_bool,
    check_replica_id,
    parse_row,
    parse_rows,
)
from tavus_provider.row_fields import parse_time


class Impostor(str):
    """Equal to a valid id, formatted as a path."""

    def __format__(self, _: str) -> str:
        return "r1/../../personas/p1"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


INVALID_IDS = [
    "",
    " ",
    ".",
    "..",
    "../personas/p123",
    "x/../../personas/p1",
    "x?hard=true",
    "x?hard=true&",
    "x#f",
    "%2e%2e",
    "%2E%2E/personas/p1",
    "..%2fpersonas%2fp1",
    "x%3Fhard%3Dtrue",
    "r1;hard=true",
    "r1,r2",
    "r1/",
    "a b",
    "a\tb",
    "r1\n",
    "\nr1",
    "x\r\nX-Injected: 1",
    "x\x00y",
    "\u202eabc",
    "r\u0435plica",
    "\uff52\uff11",
    "r\u0661",
    "\\..\\personas",
    "//evil.com/x",
    "-r1",
    "_r1",
    "r",
    "None",
    "none",
    "null",
    "NULL",
    "undefined",
    "Undefined",
    "nan",
    "NaN",
    "true",
    "True",
    "FALSE",
    "{{ x }}",
    "['r1','r2']",
    "\udcff\udcfe",
    "r" * 65,
    "r" * 9000,
    None,
    True,
    False,
    0,
    1000,
    1e5,
    float("nan"),
    10**5000,
    b"r1",
    ["r1"],
    ("r1",),
    {"id": "r1"},
    ...,
    Impostor("r1"),
    Unprintable(),
]


def id_of_case(value: object) -> str:
    return ascii(value)[:30] if type(value) is str else type(value).__name__


@pytest.mark.parametrize("value", INVALID_IDS, ids=id_of_case)
def test_invalid_replica_id_is_rejected(value):
    with pytest.raises(TavusValidationError) as caught:
        check_replica_id(value)
    match = re.fullmatch(
        r"replica_id: (.*) is not a replica id; expected a string of 2 to 64 letters, digits, '_' or '-', "
        r"such as 'rf4e9d9790f0'; nothing was sent",
        str(caught.value),
    )
    assert match
    assert len(match[1]) <= 40
    assert match[1].isascii()
    assert match[1].isprintable()


@pytest.mark.parametrize(
    "value", ["r1", "rf4e9d9790f0", "R1", "0a", "a-", "a_b-c", "1e30440cf9", "r" * 64, "nano"]
)
def test_valid_replica_id_is_returned_unchanged(value):
    assert check_replica_id(value) == value


@pytest.mark.parametrize("value", [True, False])
def test_check_bool_returns_a_bool(value):
    assert check_bool("hard", value) is value


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("false", "'false'"),
        ("True", "'True'"),
        ("", "''"),
        (0, "0"),
        (1, "1"),
        (None, "None"),
        ([], "a list"),
    ],
)
def test_check_bool_rejects_other_values(value, quoted):
    with pytest.raises(TavusValidationError) as caught:
        check_bool("hard", value)
    assert str(caught.value) == f"hard: expected True or False, got {quoted}; nothing was sent"


# Dates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-24T07:14:03.327Z", datetime(2024, 1, 24, 7, 14, 3, 327000, tzinfo=UTC)),
        ("2024-01-24T07:14:03Z", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("2025-09-10T00:35:24.310570Z", datetime(2025, 9, 10, 0, 35, 24, 310570, tzinfo=UTC)),
        ("2024-01-24T07:14:03+14:00", datetime(2024, 1, 23, 17, 14, 3, tzinfo=UTC)),
        ("2024-01-24T07:14:03-00:30", datetime(2024, 1, 24, 7, 44, 3, tzinfo=UTC)),
        ("2024-01-24T07:14:03+00:00", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("2024-01-24T07:14:03.327123456Z", datetime(2024, 1, 24, 7, 14, 3, 327123, tzinfo=UTC)),
        ("2024-01-24 07:14:03Z", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("2024-01-24 07:14:03+00", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("2024-01-24 07:14:03.25+0000", datetime(2024, 1, 24, 7, 14, 3, 250000, tzinfo=UTC)),
        ("2024-01-24 07:14:03 UTC", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("2024-01-24T07:14:03 GMT", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("2024-01-24 07:14:03 -0130", datetime(2024, 1, 24, 8, 44, 3, tzinfo=UTC)),
        ("2024-01-24T07:14:03+01", datetime(2024, 1, 24, 6, 14, 3, tzinfo=UTC)),
        ("Wed, 24 Jan 2024 07:14:03 GMT", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("Wed, 24 Jan 2024 07:14:03 UTC", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("Wed, 24 Jan 2024 07:14:03 +0100", datetime(2024, 1, 24, 6, 14, 3, tzinfo=UTC)),
        ("2015-01-01T00:00:00Z", datetime(2015, 1, 1, tzinfo=UTC)),
        (
            "9999-12-31T23:59:59Z",
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        ),  # the policy decides on dates in the future
    ],
)
def test_date_with_time_zone_is_parsed(text, expected):
    assert parse_time(text) == expected
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is missing"),
        (1706080443, "is 1706080443, not a date"),
        (1706080443327, "is 1706080443327, not a date"),
        (True, "is True, not a date"),
        ({}, "is a dict, not a date"),
        ("2024-01-24T07:14:03", "'2024-01-24T07:14:03' has no time zone"),
        ("2024-01-24 07:14:03.824457", "'2024-01-24 07:14:03.824457' has no time zone"),
        ("2024-01-24", "'2024-01-24' has no time zone"),
        ("20240124", "'20240124' is not an ISO 8601 or RFC 1123 date"),
        ("20240124T071403Z", "'20240124T071403Z' is not an ISO 8601 or RFC 1123 date"),
        ("2024-W04-3", "'2024-W04-3' is not an ISO 8601 or RFC 1123 date"),
        ("2024-W04-3T07:14:03Z", "'2024-W04-3T07:14:03Z' is not an ISO 8601 or RFC 1123 date"),
        ("2024-024", "'2024-024' is not an ISO 8601 or RFC 1123 date"),
        ("1706080443", "'1706080443' is not an ISO 8601 or RFC 1123 date"),
        ("1706080443327", "'1706080443327' is not an ISO 8601 or RFC 1123 date"),
        ("2024-01-24T07:14:60Z", "'2024-01-24T07:14:60Z' is not an ISO 8601 or RFC 1123 date"),
        ("2024-02-30T07:14:03Z", "'2024-02-30T07:14:03Z' is not an ISO 8601 or RFC 1123 date"),
        ("2024-13-01T07:14:03Z", "'2024-13-01T07:14:03Z' is not an ISO 8601 or RFC 1123 date"),
        ("0000-01-01T00:00:00Z", "'0000-01-01T00:00:00Z' is not an ISO 8601 or RFC 1123 date"),
        ("10000-01-01T00:00:00Z", "'10000-01-01T00:00:00Z' is not an ISO 8601 or RFC 1123 date"),
        ("9999-12-31T23:59:59-14:00", "'9999-12-31T23:59:59-14:00' is not an ISO 8601 or RFC 1123 date"),
        ("2024-01-24t07:14:03z", "'2024-01-24t07:14:03z' is not an ISO 8601 or RFC 1123 date"),
        ("2024-01-24T07:14:03z", "'2024-01-24T07:14:03z' is not an ISO 8601 or RFC 1123 date"),
        ("24/01/2024", "'24/01/2024' is not an ISO 8601 or RFC 1123 date"),
        ("<string>", "'<string>' is not an ISO 8601 or RFC 1123 date"),
        (
            "\u0662\u0660\u0662\u0664-01-24T07:14:03Z",
            r"'\u0662\u0660\u0662\u0664-01-24T07:14... is not an ISO 8601 or RFC 1123 date",
        ),
        ("2024-01-24T24:00:00Z", "'2024-01-24T24:00:00Z' is not an ISO 8601 or RFC 1123 date"),
        ("2024-01-24T07:14:03+25:00", "'2024-01-24T07:14:03+25:00' is not an ISO 8601 or RFC 1123 date"),
        ("2024-01-24T07:14:03.Z", "'2024-01-24T07:14:03.Z' is not an ISO 8601 or RFC 1123 date"),
        ("2024-01-24T07:14:03Z\n", r"'2024-01-24T07:14:03Z\n' is not an ISO 8601 or RFC 1123 date"),
        (" 2024-01-24T07:14:03Z", "' 2024-01-24T07:14:03Z' is not an ISO 8601 or RFC 1123 date"),
        (
            "Wed, 24 Jan 2024 07:14:03 -0000",
            "'Wed, 24 Jan 2024 07:14:03 -0000' is not an ISO 8601 or RFC 1123 date",
        ),
        ("2024-01-24  07:14:03Z", "'2024-01-24  07:14:03Z' is not an ISO 8601 or RFC 1123 date"),
        ("2024-01-24 07:14:03 CET", "'2024-01-24 07:14:03 CET' is not an ISO 8601 or RFC 1123 date"),
        ("2024-01-24 07:14:03 +1", "'2024-01-24 07:14:03 +1' is not an ISO 8601 or RFC 1123 date"),
        ("Wed, 24 Jan 2024 07:14:03", "'Wed, 24 Jan 2024 07:14:03' is not an ISO 8601 or RFC 1123 date"),
        (
            "Wed, 24 Xyz 2024 07:14:03 GMT",
            "'Wed, 24 Xyz 2024 07:14:03 GMT' is not an ISO 8601 or RFC 1123 date",
        ),
        (
            "Wed, 31 Feb 2024 07:14:03 GMT",
            "'Wed, 31 Feb 2024 07:14:03 GMT' is not an ISO 8601 or RFC 1123 date",
        ),
        ("2014-12-31T23:59:59Z", "'2014-12-31T23:59:59Z' is before 2015, earlier than Tavus existed"),
        ("1970-01-01T00:00:00Z", "'1970-01-01T00:00:00Z' is before 2015, earlier than Tavus existed"),
        (
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "'Thu, 01 Jan 1970 00:00:00 GMT' is before 2015, earlier than Tavus existed",
        ),
        ("", "'' is not an ISO 8601 or RFC 1123 date"),
        ("\x1b[2J::group::", r"'\x1b[2J: :group: :' is not an ISO 8601 or RFC 1123 date"),
    ],
)
def test_other_dates_are_rejected_with_a_reason(value, reason):
    with pytest.raises(ValueError, match=r"^is |^'") as caught:
        parse_time(value)
    assert str(caught.value) == reason


# Rows

ROW = {
    "replica_id": "r1a2b3c4d5e6",
    "replica_name": "spring-campaign",
    "thumbnail_video_url": "javascript:alert(1)",
    "training_progress": "100/100",
    "status": "completed",
    "created_at": "2026-01-05T09:30:12.345678Z",
    "updated_at": "2026-01-05T13:02:44.100200Z",
    "error_message": None,
    "replica_type": "user",
    "model_name": "phoenix-4",
}
FACE_KEYS = {"replica_id": "face_id", "replica_name": "face_name", "replica_type": "face_type"}
FACE_ROW = {FACE_KEYS.get(name, name): value for name, value in ROW.items()}


@pytest.mark.parametrize("row", [ROW, FACE_ROW, {**ROW, **FACE_ROW}], ids=["replica", "face", "both"])
def test_replica_is_parsed_in_both_vocabularies(row):
    assert Replica.from_api(row) == Replica(
        replica_id="r1a2b3c4d5e6",
        replica_name="spring-campaign",
        status="completed",
        replica_type="user",
        model_name="phoenix-4",
        created_at=datetime(2026, 1, 5, 9, 30, 12, 345678, tzinfo=UTC),
        updated_at=datetime(2026, 1, 5, 13, 2, 44, 100200, tzinfo=UTC),
        unreadable={},
    )


@pytest.mark.parametrize("name", FACE_KEYS)
def test_different_values_in_the_two_vocabularies_are_rejected(name):
    with pytest.raises(TavusInvalidResponseError) as caught:
        Replica.from_api({**ROW, FACE_KEYS[name]: "r9other"})
    assert (
        str(caught.value)
        == f"Tavus returned a row that cannot be read: {name} and {FACE_KEYS[name]} have different values; "
        "expected equal values"
    )


def test_null_in_one_vocabulary_is_ignored():
    assert Replica.from_api({**ROW, "face_name": None}).replica_name == "spring-campaign"


def test_missing_fields_are_none_and_not_unreadable():
    replica = Replica.from_api({"replica_id": "r1"})
    assert (replica.replica_name, replica.status, replica.replica_type, replica.created_at) == (None,) * 4
    assert replica.unreadable == {}


@pytest.mark.parametrize("name", ["replica_name", "status", "replica_type", "model_name"])
@pytest.mark.parametrize(
    ("value", "quoted"), [(7, "7"), (True, "True"), (["user"], "a list"), ({}, "a dict")]
)
def test_value_that_is_not_a_string_is_unreadable(name, value, quoted):
    replica = Replica.from_api({**ROW, name: value})
    assert getattr(replica, name) is None
    assert replica.unreadable == {name: f"{name} is {quoted}, not a string"}


def test_invalid_date_is_unreadable():
    replica = Replica.from_api({**ROW, "created_at": "2024-01-24"})
    assert replica.created_at is None
    assert replica.unreadable == {"created_at": "created_at '2024-01-24' has no time zone"}


def test_replica_type_with_the_typo_of_the_documentation_is_not_user():
    assert Replica.from_api({**ROW, "replica_type": "user'"}).replica_type == "user'"


@pytest.mark.parametrize(
    "value", ["../personas/p1", "", None, 7, ["r1"], "None", "r1\n", "r" * 65, "x?hard=true"]
)
def test_replica_with_an_invalid_id_is_rejected(value):
    with pytest.raises(
        TavusInvalidResponseError, match=r": replica_id is .*; expected 2 to 64 letters, digits, '_' or '-'$"
    ) as caught:
        Replica.from_api({**ROW, "replica_id": value})
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    ("row", "quoted"), [(None, "null"), ([], "a list"), ("r1", "'r1'"), (7, "7"), (True, "True")]
)
@pytest.mark.parametrize("model", [Replica, Persona, Conversation, Video])
def test_row_that_is_not_an_object_is_rejected(row, quoted, model):
    with pytest.raises(TavusInvalidResponseError) as caught:
        model.from_api(row)
    assert str(caught.value) == (
        f"Tavus returned a row that cannot be read: the {model.__name__.lower()} is {quoted}; expected a "
        "JSON object"
    )


PERSONA = {
    "persona_id": "p1",
    "default_replica_id": "r1",
    "system_prompt": "secret prompt",
    "layers": {"llm": {"api_key": "third-party-key"}, "tts": {"api_key": "third-party-key"}},
}


@pytest.mark.parametrize(
    "row",
    [PERSONA, {"pal_id": "p1", "default_face_id": "r1", "layers": PERSONA["layers"]}],
    ids=["persona", "pal"],
)
def test_persona_keeps_ids_only(row):
    persona = Persona.from_api(row)
    assert repr(persona) == "Persona(persona_id='p1', replica_id='r1')"
    assert not hasattr(persona, "__dict__")


def test_persona_may_have_no_default_replica():
    assert Persona.from_api({**PERSONA, "default_replica_id": None}).replica_id is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"persona_id": None}, "persona_id is missing; expected a non-empty string"),
        ({"persona_id": 7}, "persona_id is 7; expected a non-empty string"),
        ({"persona_id": ""}, "persona_id is missing; expected a non-empty string"),
        ({"default_replica_id": ["r1"]}, "default_replica_id is a list; expected an id or null"),
        ({"default_replica_id": "  "}, "default_replica_id is '  '; expected an id or null"),
        (
            {"default_face_id": "r2"},
            "default_replica_id and default_face_id have different values; expected equal values",
        ),
        ({"pal_id": "p2"}, "persona_id and pal_id have different values; expected equal values"),
    ],
)
def test_unreadable_persona_is_rejected(change, reason):
    with pytest.raises(TavusInvalidResponseError) as caught:
        Persona.from_api({**PERSONA, **change})
    assert str(caught.value) == f"Tavus returned a row that cannot be read: {reason}"


@pytest.mark.parametrize(
    ("row", "model"),
    [
        (
            {"conversation_id": "c1", "replica_id": "r1", "persona_id": "p1", "status": "active"},
            Conversation,
        ),
        ({"conversation_id": "c1", "face_id": "r1", "pal_id": "p1", "status": "active"}, Conversation),
        ({"video_id": "c1", "replica_id": "r1", "persona_id": "p1", "status": "active"}, Video),
    ],
)
def test_activity_is_parsed_in_both_vocabularies(row, model):
    assert model.from_api(row) == model("c1", "r1", "p1", "active", None)


def test_activity_is_dated_by_the_later_of_its_dates():
    row = {"video_id": "v1", "created_at": "2026-01-05T09:30:12Z", "updated_at": "2026-02-05T09:30:12Z"}
    assert Video.from_api(row).used_at == datetime(2026, 2, 5, 9, 30, 12, tzinfo=UTC)
    assert Video.from_api({**row, "created_at": "2026-03-05T09:30:12Z"}).used_at.month == 3
    del row["updated_at"]
    assert Video.from_api(row).used_at == datetime(2026, 1, 5, 9, 30, 12, tzinfo=UTC)
    assert Video.from_api({**row, "updated_at": "soon"}).used_at is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conversation_id": None}, "conversation_id is missing; expected a non-empty string"),
        ({"replica_id": 7}, "replica_id is 7; expected an id or null"),
        ({"face_id": "r2"}, "replica_id and face_id have different values"),
        ({"persona_id": " "}, "persona_id is ' '; expected an id or null"),
    ],
)
def test_unreadable_activity_is_rejected(change, reason):
    with pytest.raises(TavusInvalidResponseError, match=reason):
        Conversation.from_api({"conversation_id": "c1", "replica_id": "r1", **change})


def test_status_that_is_not_a_string_is_none():
    assert Video.from_api({"video_id": "v1", "status": 7}).status is None


@pytest.mark.parametrize(
    ("model", "finished", "unfinished"),
    [
        (Conversation, ["ended"], ["active", "paused", "ready", None]),
        (Video, ["ready", "deleted", "error"], ["queued", "generating", "ended", None]),
    ],
)
def test_only_known_final_statuses_count_as_finished(model, finished, unfinished):
    assert all(model("x1", "r1", None, status, None).is_finished for status in finished)
    assert not any(model("x1", "r1", None, status, None).is_finished for status in unfinished)


def test_conversation_does_not_equal_a_video():
    assert Conversation("x1", "r1", None, "ended", None) != Video("x1", "r1", None, "ended", None)


def test_activities_have_no_dict():
    """Accounts can have millions of conversations."""
    assert not hasattr(Conversation("c1", "r1", None, None, None), "__dict__")
    assert not hasattr(Replica("r1"), "__dict__")


# Empty strings


@pytest.mark.parametrize("name", ["replica_name", "status", "replica_type", "model_name", "updated_at"])
def test_empty_string_in_a_field_of_a_replica_is_null(name):
    replica = Replica.from_api({**ROW, name: ""})
    assert getattr(replica, name) is None
    assert replica.unreadable == {}


def test_empty_string_in_a_reference_is_null():
    assert Persona.from_api({**PERSONA, "default_replica_id": ""}).replica_id is None
    row = {"conversation_id": "c1", "replica_id": "", "persona_id": "", "status": ""}
    assert Conversation.from_api(row) == Conversation("c1", None, None, None, None)


def test_empty_string_in_one_vocabulary_is_ignored():
    assert Persona.from_api({**PERSONA, "default_face_id": ""}).replica_id == "r1"
    assert Replica.from_api({**ROW, "face_id": "", "face_name": ""}).replica_name == "spring-campaign"


def test_blanks_around_a_reference_are_ignored():
    """Otherwise the replica that it means would not count as in use."""
    assert Persona.from_api({**PERSONA, "default_replica_id": " r1\n"}).replica_id == "r1"


# Text that is not safe


def test_name_is_made_safe_and_still_matched_by_patterns():
    replica = Replica.from_api({**ROW, "replica_name": "half\ud83d_keep"})
    assert replica.replica_name.startswith("half\\ud83d_keep [sha256:")
    assert replica.name_for_patterns == "half\ufffd_keep"
    assert not replica.is_name_cut
    assert Replica.from_api(ROW).name_for_patterns == "spring-campaign"
    assert Replica.from_api({"replica_id": "r1"}).name_for_patterns == ""


@pytest.mark.parametrize("name", ["\u0301" * 200_000, "x" * 80_000], ids=["combining marks", "80 kB"])
def test_long_name_is_cut_before_anything_matches_it(name):
    replica = Replica.from_api({**ROW, "replica_name": name})
    assert replica.is_name_cut
    assert len(replica.name_for_patterns) == len(replica.replica_name) == 256


def test_name_that_was_made_safe_compares_equal_only_to_itself():
    first, again, other = (
        Replica.from_api({**ROW, "replica_name": "x" * 300 + end})
        for end in ("a\ud83d", "a\ud83d", "a\ud83e")
    )
    assert first.replica_name == again.replica_name != other.replica_name


@pytest.mark.parametrize("value", ["a\ud83d", "a\0", "a" * 80_000], ids=["surrogate", "NUL", "long"])
def test_every_text_that_is_kept_is_safe(value):
    replica = Replica.from_api({**ROW, "status": value, "replica_type": value, "model_name": value})
    persona = Persona.from_api({"persona_id": value, "default_replica_id": value})
    row = {"conversation_id": value, "replica_id": value, "persona_id": value, "status": value}
    conversation = Conversation.from_api(row)
    unreadable = parse_row(Video, {"replica_id": value, "persona_id": value, "status": value})
    kept = [replica.status, replica.replica_type, replica.model_name, persona.persona_id, persona.replica_id]
    kept += [getattr(conversation, name) for name in ("activity_id", "replica_id", "persona_id", "status")]
    kept += [*unreadable.replica_ids, *unreadable.persona_ids, unreadable.status, unreadable.reason]
    for text in kept:
        assert len(text) <= 256
        assert text.isprintable()
    assert conversation.persona_id == persona.persona_id


# Rows that cannot be read


@pytest.mark.parametrize(
    ("row", "reason", "ids"),
    [
        pytest.param(None, "the replica is null; expected a JSON object", (), id="null"),
        pytest.param({}, "replica_id is missing; ", (), id="no id"),
        pytest.param({**ROW, "replica_id": "r1.x"}, "replica_id is 'r1.x'; ", ("r1.x",), id="dot"),
        pytest.param(
            {**ROW, "replica_id": "r" * 70},
            f"replica_id is '{'r' * 36}...; ",
            ("r" * 70,),
            id="70 characters",
        ),
        pytest.param({**ROW, "replica_id": 7, "face_id": 7}, "replica_id is 7; ", (), id="number"),
        pytest.param({**ROW, "replica_id": " r1 "}, "replica_id is ' r1 '; ", ("r1",), id="blanks"),
        pytest.param({"replica_id": ["r1", {"id": "r2"}]}, "replica_id is a list; ", ("r1", "r2"), id="list"),
        pytest.param(
            {**ROW, "replica_id": "r1", "face_id": "r2"},
            "replica_id and face_id have different values; ",
            ("r1", "r2"),
            id="two ids",
        ),
        pytest.param(
            {**ROW, "replica_id": "r1", "face_type": "system"},
            "replica_type and face_type have different values; ",
            ("r1",),
            id="two types",
        ),
        pytest.param(
            {"replica_id": ConflictingValues(("r1", "r2"))},
            "replica_id is given more than once, with different values; ",
            ("r1", "r2"),
            id="key twice",
        ),
    ],
)
def test_unreadable_replica_shows_its_ids(row, reason, ids):
    unreadable = parse_row(Replica, row)
    assert isinstance(unreadable, UnreadableRow)
    assert unreadable.kind == "replica"
    assert unreadable.reason.startswith(reason)
    assert unreadable.own_ids == unreadable.replica_ids == ids
    if len(ids) != 1:
        with pytest.raises(TavusValidationError):
            check_replica_id(unreadable.shown_id)


def test_unreadable_persona_shows_its_replicas():
    unreadable = parse_row(Persona, {"pal_id": "p1", "default_replica_id": "r1", "default_face_id": ["r2"]})
    assert (unreadable.own_ids, unreadable.replica_ids) == (("p1",), ("r1", "r2"))
    assert unreadable.persona_ids == ()


def test_unreadable_activity_shows_its_replicas_and_personas():
    row = {
        "replica_id": "r1",
        "face_id": "r2",
        "pal_id": "p1",
        "status": "ended",
        "updated_at": "2026-01-05T09:30:12Z",
    }
    unreadable = parse_row(Conversation, row)
    assert (unreadable.replica_ids, unreadable.persona_ids) == (("r1", "r2"), ("p1",))
    assert unreadable.status == "ended"
    assert unreadable.used_at == datetime(2026, 1, 5, 9, 30, 12, tzinfo=UTC)
    assert parse_row(Video, None) == UnreadableRow(
        "video", "the video is null; expected a JSON object", parse_row(Video, None).fingerprint
    )


def test_rows_without_an_id_are_told_apart_by_their_content():
    rows = [parse_row(Replica, row) for row in (None, {}, {"status": "error"}, {"status": "error"})]
    assert len({row.fingerprint for row in rows}) == 3
    assert len({row.shown_id for row in rows}) == 3


def test_readable_row_is_parsed():
    assert parse_row(Replica, ROW) == Replica.from_api(ROW)


def test_odd_values_matter_only_in_fields_that_are_read():
    odd = {"thumbnail_video_url": ConflictingValues((1, 2)), "training_progress": UnusableNumber("NaN")}
    assert Replica.from_api({**ROW, **odd}) == Replica.from_api(ROW)
    replica = Replica.from_api(
        {**ROW, "status": ConflictingValues(("error", "completed")), "created_at": UnusableNumber("1e999")}
    )
    assert (replica.status, replica.created_at) == (None, None)
    assert replica.unreadable == {
        "status": "status is given more than once, with different values, not a string",
        "created_at": "created_at is 1e999, not a date",
    }


def test_deeply_nested_unreadable_row_does_not_raise():
    row = []
    for _ in range(100_000):
        row = [row]
    assert parse_row(Replica, {"x": row}).own_ids == ()


# Rows of one page that have the same id and differ


@pytest.mark.parametrize("order", [1, -1], ids=["old first", "old last"])
def test_replica_that_is_listed_twice_with_two_dates_has_no_known_date(order):
    rows = [ROW, {**ROW, "created_at": "2026-11-01T00:00:00Z", "thumbnail_video_url": None}][::order]
    for parsed in parse_rows(Replica, rows, start=0):
        assert (parsed.replica_id, parsed.created_at) == ("r1a2b3c4d5e6", None)
        assert parsed.unreadable == {
            "created_at": "created_at is given more than once, with different values, not a date"
        }


@pytest.mark.parametrize("order", [1, -1], ids=["used first", "used last"])
def test_row_that_is_listed_twice_keeps_every_replica_that_it_names(order):
    rows = [PERSONA, {**PERSONA, "default_replica_id": None}, {**PERSONA, "default_replica_id": "r2"}][
        ::order
    ]
    (parsed,) = set(parse_rows(Persona, rows, start=0))
    assert set(parsed.replica_ids) == {"r1", "r2"}
    calls = [
        {"conversation_id": "c1", "replica_id": "r1", "status": status} for status in ("active", "ended")
    ]
    (parsed,) = set(parse_rows(Conversation, calls[::order], start=0))
    assert (parsed.replica_id, parsed.status) == ("r1", None)


def test_rows_that_differ_only_in_fields_that_are_not_read_are_equal():
    rows = [ROW, {**ROW, "thumbnail_video_url": "x"}, {**ROW, "replica_id": "r2"}]
    assert parse_rows(Replica, rows, start=0) == [Replica.from_api(row) for row in rows]
