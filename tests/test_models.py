from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.models import Activity, Persona, Replica, check_replica_id, read_time
from tavus_provider.sanitize import escape_line


class Disguised(str):
    def __format__(self, _: str) -> str:
        return "r1/../../personas/p1"


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


NO_IDS = [
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
    Disguised("r1"),
    Unshowable(),
]


@pytest.mark.parametrize(
    "value",
    NO_IDS,
    ids=[ascii(value)[:30] if type(value) is str else type(value).__name__ for value in NO_IDS],
)
def test_what_is_not_an_id_is_refused_and_the_rule_is_named(value):
    with pytest.raises(TavusValidationError) as caught:
        check_replica_id(value)
    match = re.fullmatch(
        r"replica_id (.*) \((\w+)\) is not a replica id: expected a string of 2 to 64 letters, digits, "
        r"'_' or '-' such as 'rf4e9d9790f0'; nothing was sent",
        str(caught.value),
    )
    assert match
    assert len(match[1]) <= 40
    assert match[1].isascii()
    assert match[1].isprintable()
    assert match[2] == type(value).__name__


@pytest.mark.parametrize(
    "value", ["r1", "rf4e9d9790f0", "R1", "0a", "a-", "a_b-c", "1e30440cf9", "r" * 64, "nano"]
)
def test_an_id_is_returned_as_it_is(value):
    assert check_replica_id(value) == value


# -- text from the server


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ok\n[2026-01-01] INFO - deleted 0", r"ok\n[2026-01-01] INFO - deleted 0"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x00", r"\x00"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("\ud800", r"\ud800"),
        ("::group::hidden", ": :group: :hidden"),
        (":::group:::", ": ::group: ::"),
        ("<script>", "<script>"),
        ("{{ 7*7 }}", "{{ 7*7 }}"),
        ("Zo\u00eb \u732b", "Zo\u00eb \u732b"),
    ],
)
def test_text_of_the_server_is_one_harmless_line(text, shown):
    assert escape_line(text) == shown
    assert "::group::" not in escape_line(text)


def test_text_of_the_server_is_cut():
    assert len(escape_line("x" * 1_000_000)) == 256
    assert escape_line("x" * 257).endswith("x...")
    assert escape_line("x" * 256) == "x" * 256


# -- dates


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
        ("Wed, 24 Jan 2024 07:14:03 GMT", datetime(2024, 1, 24, 7, 14, 3, tzinfo=UTC)),
        ("2015-01-01T00:00:00Z", datetime(2015, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),  # to come: for the policy
    ],
)
def test_a_date_with_a_zone_is_read(text, expected):
    assert read_time(text) == expected
    assert read_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is not given"),
        (1706080443, "is not a date but of type int"),
        (1706080443327, "is not a date but of type int"),
        (True, "is not a date but of type bool"),
        ({}, "is not a date but of type dict"),
        ("2024-01-24T07:14:03", "'2024-01-24T07:14:03' has no time zone"),
        ("2024-01-24 07:14:03.824457", "'2024-01-24 07:14:03.824457' has no time zone"),
        ("2024-01-24", "'2024-01-24' has no time zone"),
        ("20240124", "'20240124' is not a readable date"),
        ("20240124T071403Z", "'20240124T071403Z' is not a readable date"),
        ("2024-W04-3", "'2024-W04-3' is not a readable date"),
        ("2024-W04-3T07:14:03Z", "'2024-W04-3T07:14:03Z' is not a readable date"),
        ("2024-024", "'2024-024' is not a readable date"),
        ("1706080443", "'1706080443' is not a readable date"),
        ("1706080443327", "'1706080443327' is not a readable date"),
        ("2024-01-24T07:14:60Z", "'2024-01-24T07:14:60Z' is not a readable date"),
        ("2024-02-30T07:14:03Z", "'2024-02-30T07:14:03Z' is not a readable date"),
        ("2024-13-01T07:14:03Z", "'2024-13-01T07:14:03Z' is not a readable date"),
        ("0000-01-01T00:00:00Z", "'0000-01-01T00:00:00Z' is not a readable date"),
        ("10000-01-01T00:00:00Z", "'10000-01-01T00:00:00Z' is not a readable date"),
        ("9999-12-31T23:59:59-14:00", "'9999-12-31T23:59:59-14:00' is not a readable date"),
        ("2024-01-24t07:14:03z", "'2024-01-24t07:14:03z' is not a readable date"),
        ("2024-01-24T07:14:03z", "'2024-01-24T07:14:03z' is not a readable date"),
        ("24/01/2024", "'24/01/2024' is not a readable date"),
        ("<string>", "'<string>' is not a readable date"),
        (
            "\u0662\u0660\u0662\u0664-01-24T07:14:03Z",
            "'\u0662\u0660\u0662\u0664-01-24T07:14:03Z' is not a readable date",
        ),
        ("2024-01-24T24:00:00Z", "'2024-01-24T24:00:00Z' is not a readable date"),
        ("2024-01-24T07:14:03+25:00", "'2024-01-24T07:14:03+25:00' is not a readable date"),
        ("2024-01-24T07:14:03.Z", "'2024-01-24T07:14:03.Z' is not a readable date"),
        ("2024-01-24T07:14:03Z\n", r"'2024-01-24T07:14:03Z\n' is not a readable date"),
        (" 2024-01-24T07:14:03Z", "' 2024-01-24T07:14:03Z' is not a readable date"),
        ("Wed, 24 Jan 2024 07:14:03 +0000", "'Wed, 24 Jan 2024 07:14:03 +0000' is not a readable date"),
        ("Wed, 24 Jan 2024 07:14:03", "'Wed, 24 Jan 2024 07:14:03' is not a readable date"),
        ("Wed, 24 Xyz 2024 07:14:03 GMT", "'Wed, 24 Xyz 2024 07:14:03 GMT' is not a readable date"),
        ("Wed, 31 Feb 2024 07:14:03 GMT", "'Wed, 31 Feb 2024 07:14:03 GMT' is not a readable date"),
        ("2014-12-31T23:59:59Z", "'2014-12-31T23:59:59Z' is before 2015, when there was no Tavus"),
        ("1970-01-01T00:00:00Z", "'1970-01-01T00:00:00Z' is before 2015, when there was no Tavus"),
        (
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "'Thu, 01 Jan 1970 00:00:00 GMT' is before 2015, when there was no Tavus",
        ),
        ("", "'' is not a readable date"),
        ("\x1b[2J::group::", r"'\x1b[2J: :group: :' is not a readable date"),
    ],
)
def test_any_other_date_is_unknown_and_the_sentence_says_why(value, reason):
    with pytest.raises(ValueError, match=r"^is |^'") as caught:
        read_time(value)
    assert str(caught.value) == reason


# -- rows

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
WORDS = {"replica_id": "face_id", "replica_name": "face_name", "replica_type": "face_type"}
FACE_ROW = {WORDS.get(name, name): value for name, value in ROW.items()}


@pytest.mark.parametrize("row", [ROW, FACE_ROW, {**ROW, **FACE_ROW}], ids=["replica", "face", "both"])
def test_a_row_is_read_in_either_vocabulary(row):
    assert Replica.from_api(row) == Replica(
        replica_id="r1a2b3c4d5e6",
        replica_name="spring-campaign",
        status="completed",
        replica_type="user",
        model_name="phoenix-4",
        created_at=datetime(2026, 1, 5, 9, 30, 12, 345678, tzinfo=UTC),
        updated_at=datetime(2026, 1, 5, 13, 2, 44, 100200, tzinfo=UTC),
        doubts={},
    )


@pytest.mark.parametrize("name", WORDS)
def test_two_vocabularies_that_disagree_are_no_answer(name):
    with pytest.raises(TavusInvalidResponseError) as caught:
        Replica.from_api({**ROW, WORDS[name]: "r9other"})
    assert str(caught.value) == f"Tavus gave one row two different values for {name} and {WORDS[name]}"


def test_a_null_in_one_vocabulary_does_not_disagree_with_the_other():
    assert Replica.from_api({**ROW, "face_name": None}).replica_name == "spring-campaign"


def test_what_is_missing_is_unknown():
    replica = Replica.from_api({"replica_id": "r1"})
    assert (replica.replica_name, replica.status, replica.replica_type, replica.created_at) == (None,) * 4
    assert replica.doubts == {
        "created_at": "created_at is not given",
        "updated_at": "updated_at is not given",
    }


@pytest.mark.parametrize("name", ["replica_name", "status", "replica_type", "model_name"])
@pytest.mark.parametrize(("value", "kind"), [(7, "int"), (True, "bool"), (["user"], "list"), ({}, "dict")])
def test_what_is_not_text_is_in_doubt(name, value, kind):
    replica = Replica.from_api({**ROW, name: value})
    assert getattr(replica, name) is None
    assert replica.doubts == {name: f"{name} is not text but of type {kind}"}


def test_a_date_that_cannot_be_read_is_in_doubt():
    replica = Replica.from_api({**ROW, "created_at": "2024-01-24"})
    assert replica.created_at is None
    assert replica.doubts == {"created_at": "created_at '2024-01-24' has no time zone"}


def test_the_stray_quote_of_the_documentation_is_not_taken_for_user():
    assert Replica.from_api({**ROW, "replica_type": "user'"}).replica_type == "user'"


@pytest.mark.parametrize(
    "value", ["../personas/p1", "", None, 7, ["r1"], "None", "r1\n", "r" * 65, "x?hard=true"]
)
def test_a_row_with_an_id_that_cannot_be_one_refuses_the_listing(value):
    with pytest.raises(
        TavusInvalidResponseError, match=r"whose id cannot be one: .*; the whole listing is refused"
    ) as caught:
        Replica.from_api({**ROW, "replica_id": value})
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize("row", [None, [], "r1", 7, True])
@pytest.mark.parametrize(
    "read", [Replica.from_api, Persona.from_api, lambda row: Activity.from_api(row, kind="video")]
)
def test_a_row_that_is_not_an_object_is_refused(row, read):
    with pytest.raises(
        TavusInvalidResponseError, match=f"that is not an object but of type {type(row).__name__}"
    ):
        read(row)


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
def test_a_persona_is_reduced_to_its_ids(row):
    persona = Persona.from_api(row)
    assert repr(persona) == "Persona(persona_id='p1', replica_id='r1')"
    assert not hasattr(persona, "__dict__")


def test_a_persona_may_have_no_replica():
    assert Persona.from_api({**PERSONA, "default_replica_id": None}).replica_id is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"persona_id": None}, "Tavus gave a row without a readable persona_id"),
        ({"persona_id": 7}, "Tavus gave a row without a readable persona_id"),
        ({"persona_id": ""}, "Tavus gave a row without a readable persona_id"),
        (
            {"default_replica_id": ["r1"]},
            "Tavus gave a row whose default_replica_id is not an id but of type list",
        ),
        (
            {"default_replica_id": ""},
            "Tavus gave a row whose default_replica_id is not an id but of type str",
        ),
        (
            {"default_face_id": "r2"},
            "Tavus gave one row two different values for default_replica_id and default_face_id",
        ),
        ({"pal_id": "p2"}, "Tavus gave one row two different values for persona_id and pal_id"),
    ],
)
def test_a_persona_in_doubt_is_refused(change, reason):
    with pytest.raises(TavusInvalidResponseError) as caught:
        Persona.from_api({**PERSONA, **change})
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (
            {"conversation_id": "c1", "replica_id": "r1", "persona_id": "p1", "status": "active"},
            "conversation",
        ),
        ({"conversation_id": "c1", "face_id": "r1", "pal_id": "p1", "status": "active"}, "conversation"),
        ({"video_id": "c1", "replica_id": "r1", "persona_id": "p1", "status": "active"}, "video"),
    ],
)
def test_an_activity_is_read_in_either_vocabulary(row, kind):
    assert Activity.from_api(row, kind=kind) == Activity("c1", "r1", "p1", "active", None)


def test_an_activity_is_dated_by_its_last_change_else_by_its_beginning():
    row = {"video_id": "v1", "created_at": "2026-01-05T09:30:12Z", "updated_at": "2026-02-05T09:30:12Z"}
    assert Activity.from_api(row, kind="video").at == datetime(2026, 2, 5, 9, 30, 12, tzinfo=UTC)
    del row["updated_at"]
    assert Activity.from_api(row, kind="video").at == datetime(2026, 1, 5, 9, 30, 12, tzinfo=UTC)
    assert Activity.from_api({**row, "updated_at": "soon"}, kind="video").at is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conversation_id": None}, "without a readable conversation_id"),
        ({"replica_id": 7}, "whose replica_id is not an id but of type int"),
        ({"face_id": "r2"}, "two different values for replica_id and face_id"),
        ({"persona_id": ""}, "whose persona_id is not an id but of type str"),
    ],
)
def test_an_activity_in_doubt_is_refused(change, reason):
    with pytest.raises(TavusInvalidResponseError, match=reason):
        Activity.from_api({"conversation_id": "c1", "replica_id": "r1", **change}, kind="conversation")


def test_a_status_that_is_not_text_is_unknown():
    assert Activity.from_api({"video_id": "v1", "status": 7}, kind="video").status is None
