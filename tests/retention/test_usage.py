"""What counts as use: conversations that never end, and rows that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from retention.samples import (
    NOW,
    SECOND,
    UNUSED,
    ago,
    conversation,
    decide,
    policy,
    replica,
    verdict,
    video,
)

from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.models import Conversation, Persona, Replica, Video, parse_row
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import evaluate, explain
from tavus_provider.retention.policy import Policy

DAY = timedelta(days=1)


def unreadable(model: Any, row: object) -> Inventory:
    return Inventory((), unreadable=[parse_row(model, row)])


# --- conversations that stay active -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "status", "reason_code"),
    [
        pytest.param(NOW - DAY + SECOND, "active", "in_use", id="just within the limit"),
        pytest.param(NOW - DAY, "active", "expired", id="at the limit"),
        pytest.param(NOW - 30 * DAY, "active", "expired", id="weeks"),
        pytest.param(None, "active", "in_use", id="no readable date"),
        pytest.param(NOW + SECOND, "active", "in_use", id="future"),
        pytest.param(NOW - 30 * DAY, "paused", "in_use", id="another status"),
        pytest.param(NOW - 30 * DAY, None, "in_use", id="no status"),
    ],
)
def test_conversation_that_was_active_for_too_long_counts_as_ended(at, status, reason_code) -> None:
    use = Inventory((), conversations=[conversation(status=status, at=at)])
    assert verdict(replica(), use=use).reason_code == reason_code


def test_reason_names_the_conversation_that_counts_as_ended() -> None:
    talks = [
        conversation(status="active", at=ago(days=9), activity_id="c9"),
        conversation(status="active", at=ago(days=3), activity_id="c3"),
    ]
    by = policy({"older_than": "90d"}, keep={"active_for": "2d"})
    for turn in (1, -1):
        found = verdict(replica(), by=by, use=Inventory((), conversations=talks[::turn]))
        assert found.reason == (
            "200 days old, limit is 90d; conversation c3 has been active for 3 days and counts as ended, "
            "keep.active_for is 2d"
        )
    steps = explain(by, Inventory([replica()], conversations=talks), "r1", now=NOW)
    assert next(step.reason for step in steps if step.reason_code == "in_use") is None
    assert "counts as ended" in next(step.reason for step in steps if step.reason_code == "expired")


def test_conversation_that_counts_as_ended_is_still_a_last_use() -> None:
    use = Inventory((), conversations=[conversation(status="active", at=ago(days=9))])
    by = policy({"rule": "stale", "unused_for": "10d"})
    assert verdict(replica(), by=by, use=use).reason == "used 9 days ago, rule 'stale' asks for 10d"


def test_a_fresh_conversation_outweighs_one_that_counts_as_ended() -> None:
    talks = [
        conversation(status="active", at=at, activity_id=i) for i, at in (("c1", ago(days=9)), ("c2", NOW))
    ]
    assert verdict(replica(), use=Inventory((), conversations=talks)).reason == "is in active conversation c2"


def test_unfinished_video_never_counts_as_finished() -> None:
    use = Inventory((), videos=[video(status="generating", at=ago(days=900))])
    assert verdict(replica(), use=use).reason_code == "in_use"


@pytest.mark.parametrize("persona_id", [None, "p_unlisted", "p_bare"])
def test_old_active_conversation_without_replica_stops_nothing(persona_id: str | None) -> None:
    hidden = conversation(None, status="active", persona_id=persona_id, at=ago(days=2))
    use = Inventory((), personas=[Persona("p_bare", None)], conversations=[hidden])
    assert decide(replica(), use=use).delete
    by_use = policy({"rule": "unused", "unused_for": "10d"})
    assert verdict(replica(), by=by_use, use=use).reason == (
        "possibly used 2 days ago (conversation c1 does not name its replica), rule 'unused' asks for 10d"
    )


@pytest.mark.parametrize("at", [None, NOW + DAY], ids=["no date", "future"])
def test_active_conversation_without_replica_and_without_a_past_date_stops_the_decision(at) -> None:
    use = Inventory((), conversations=[conversation(None, status="active", at=at)])
    with pytest.raises(TavusInvalidResponseError) as error:
        decide(replica(), use=use)
    assert str(error.value).startswith(
        "conversation c1 is active, has no date in the past and names neither a replica nor a persona; "
    )


# --- rows of the listing that cannot be read ----------------------------------------------------------------


def test_unreadable_row_is_listed_and_undetermined_and_the_rest_is_decided() -> None:
    use = unreadable(Replica, {"replica_id": "r.1", "replica_name": "x"})
    decision = decide(replica("r1"), replica("r2", age=DAY), use=use)
    assert [found.replica.replica_id for found in decision.delete] == ["r1"]
    (odd,) = decision.undetermined
    assert (odd.replica.replica_id, odd.status, odd.reason_code) == ("r.1", "undetermined", "unreadable_row")
    assert odd.reason == (
        "a row of the listing cannot be read: replica_id is 'r.1'; expected 2 to 64 letters, digits, "
        "'_' or '-'"
    )
    assert decision.listed == 3


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"replica_id": "r1", "face_id": "r2"}, id="two ids"),
        pytest.param({"face_id": "r1", "replica_id": ["r2"]}, id="id and list"),
        pytest.param({"replica_id": "r1", "replica_name": "a", "face_name": "b"}, id="two names"),
        pytest.param({"replica_id": " r1"}, id="blank"),
    ],
)
def test_every_id_that_an_unreadable_row_shows_is_kept(row: object) -> None:
    decision = decide(replica("r1"), replica("r9"), use=unreadable(Replica, row))
    assert [found.replica.replica_id for found in decision.delete] == ["r9"]
    kept = next(found for found in decision.undetermined if found.reason_code == "undetermined")
    assert kept.replica.replica_id == "r1"
    assert kept.reason.startswith("a row of the listing cannot be read: ")
    assert decision.listed == 3


def test_id_of_an_unreadable_row_is_not_due_for_a_permanent_delete() -> None:
    """A due permanent delete comes before undetermined, but not for an id of an unreadable row."""
    by = policy(hard_delete_after="7d")
    use = replace(
        unreadable(Replica, {"replica_id": "r1", "face_id": "r2"}),
        history=History(soft_deleted=dict.fromkeys(("r1", "r2", "r3"), ago(days=30))),
    )
    decision = evaluate(by, replace(use, replicas=[replica("r1")]), now=NOW, hard=True)
    assert [found.replica.replica_id for found in decision.delete] == ["r3"]


def test_unreadable_row_can_show_an_expected_replica() -> None:
    by = policy(account={"expect_present": ["r7"]})
    assert decide(replica(), by=by, use=unreadable(Replica, {"replica_id": "r7", "face_id": "r8"})).delete
    with pytest.raises(TavusInvalidResponseError, match="expect_present names r7"):
        decide(replica(), by=by, use=unreadable(Replica, {"replica_id": "r8", "face_id": 7}))


def test_explain_says_why_a_row_cannot_be_read() -> None:
    use = unreadable(Replica, {"replica_id": "r7", "face_id": "r8"})
    (step,) = explain(policy(), use, "r8", now=NOW)
    assert (step.status, step.reason_code) == ("undetermined", "unreadable_row")
    assert "different values" in (step.reason or "")
    assert explain(policy(), use, "r9", now=NOW) == []


def mostly_unreadable(readable: int, count: int, **limits: int) -> str | None:
    rows = [parse_row(Replica, {"replica_id": f"r.{n}"}) for n in range(count)]
    listing = [replica(f"rx{n}") for n in range(readable)]
    by = policy(limits={"max_deletions": 1000, "max_deletion_percent": 100, **limits})
    return evaluate(by, Inventory(listing, unreadable=rows), now=NOW).limit_exceeded


def test_a_listing_that_is_mostly_unreadable_stops_the_run() -> None:
    """Such as that of another service, or of Tavus after it changed its API."""
    assert mostly_unreadable(5, 5) is None
    assert mostly_unreadable(5, 6) == (
        "6 of 11 rows of the listing cannot be read, more than 50 %: see the reasons in the log of the "
        "plan, or "
        "set limits.max_undetermined_percent to accept them; nothing was deleted"
    )
    assert mostly_unreadable(5, 6, max_undetermined_percent=60) is None
    assert "6 of 11 replicas are undetermined" in str(mostly_unreadable(5, 6, max_undetermined_percent=50))
    assert mostly_unreadable(0, 1, max_undetermined_percent=0) is not None


# --- uses that cannot be read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "row", "kept"),
    [
        pytest.param(Persona, {"pal_id": 7, "default_replica_id": "r1"}, {"r1"}, id="persona"),
        pytest.param(
            Persona,
            {"persona_id": "p1", "default_replica_id": "r1", "default_face_id": "r2"},
            {"r1", "r2"},
            id="persona with two replicas",
        ),
        pytest.param(Conversation, {"replica_id": "r1", "status": "active"}, {"r1"}, id="conversation"),
        pytest.param(
            Conversation, {"replica_id": "r1", "face_id": "r2"}, {"r1", "r2"}, id="conversation, two replicas"
        ),
        pytest.param(Conversation, {"replica_id": "r1", "status": "ended"}, {"r1"}, id="ended conversation"),
        pytest.param(Conversation, {"persona_id": "p3"}, {"r3"}, id="conversation with a persona"),
        pytest.param(Video, {"replica_id": ["r1"], "video_id": "v1"}, {"r1"}, id="video"),
    ],
)
def test_unreadable_use_keeps_every_replica_that_it_names(model: Any, row: object, kept: set[str]) -> None:
    use = replace(unreadable(model, row), personas=[] if model is Persona else [Persona("p3", "r3")])
    by = policy(keep={"in_use": [model.kind]})
    found = decide(*(replica(f"r{n}") for n in range(1, 5)), by=by, use=use)
    in_use = {one.replica.replica_id: one for one in found.verdicts if one.reason_code == "in_use"}
    assert in_use.keys() == kept
    assert all(f"is named by {model.kind} " in one.reason for one in in_use.values())
    assert all("cannot be read: " in one.reason for one in in_use.values())
    assert len(found.delete) == 4 - len(kept)


def test_persona_of_a_conversation_that_cannot_be_read_names_its_replicas() -> None:
    use = replace(
        unreadable(Persona, {"persona_id": "p1", "default_replica_id": "r1", "default_face_id": "r2"}),
        conversations=[conversation(None, status="active", persona_id="p1")],
    )
    by = policy(keep={"in_use": ["conversation"]})
    found = decide(replica("r1"), replica("r2"), replica("r3"), by=by, use=use)
    assert [one.replica.replica_id for one in found.delete] == ["r3"]
    assert [one.reason for one in found.verdicts if one.reason_code == "in_use"] == [
        "is in active conversation c1"
    ] * 2


@pytest.mark.parametrize(
    ("model", "row", "message"),
    [
        pytest.param(
            Persona,
            None,
            "persona (row 74234e98afe7) cannot be read (the persona is null; expected a JSON object) "
            "and names no "
            "replica; it may use any replica, so nothing may be deleted. To continue, correct or delete that "
            "persona in Tavus, or take 'persona' out of keep.in_use",
            id="persona",
        ),
        pytest.param(
            Conversation,
            {"conversation_id": "c1", "replica_id": 7, "persona_id": "p3"},
            "conversation c1 cannot be read (replica_id is 7; expected an id or null) and names no "
            "replica; it may "
            "use any replica, so nothing may be deleted. To continue, end that conversation in Tavus, "
            "wait until it "
            "ends, or take 'conversation' out of keep.in_use",
            id="conversation",
        ),
        pytest.param(
            Video,
            "v1",
            "video (row 161078e42e8f) cannot be read (the video is 'v1'; expected a JSON object) and "
            "names no "
            "replica; it may use any replica, so nothing may be deleted. To continue, wait until that "
            "video is "
            "finished, delete it in Tavus, or take 'video' out of keep.in_use",
            id="video",
        ),
    ],
)
def test_unreadable_use_of_an_unknown_replica_stops_the_decision(
    model: Any, row: object, message: str
) -> None:
    use = replace(unreadable(model, row), personas=[Persona("p3", "r3")])
    with pytest.raises(TavusInvalidResponseError) as error:
        decide(replica(), use=use)
    assert str(error.value) == message
    others = [kind for kind in ("persona", "conversation", "video") if kind != model.kind]
    assert decide(replica(), by=policy(keep={"in_use": others}), use=use).delete


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"status": "ended", "updated_at": "2026-08-30T12:00:00Z"}, id="ended"),
        pytest.param({"status": "active", "updated_at": "2026-08-30T12:00:00Z"}, id="active for too long"),
    ],
)
def test_unreadable_conversation_that_has_ended_stops_nothing(row: object) -> None:
    use = unreadable(Conversation, row)
    assert decide(replica(), use=use).delete
    found = verdict(replica(), by=policy({"rule": "unused", "unused_for": "10d"}), use=use)
    assert found.reason.startswith("possibly used 2 days ago (conversation (row ")


def test_last_use_by_an_unreadable_row_is_unknown() -> None:
    by = policy({"unused_for": "10d"}, keep={"in_use": []})
    found = decide(replica("r1"), replica("r2"), by=by, use=unreadable(Video, {"replica_id": "r1"}))
    assert [one.replica.replica_id for one in found.delete] == ["r2"]
    assert found.undetermined[0].reason.startswith("last use is unknown: video (row ")
    assert not decide(replica("r1"), by=by, use=unreadable(Video, None)).delete


# --- letter case of ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "in_use"),
    [
        pytest.param(Inventory((), personas=[Persona("p1", "R1A")]), ["persona"], id="persona"),
        pytest.param(
            Inventory((), conversations=[conversation("R1A", status="active")]), ["conversation"], id="call"
        ),
        pytest.param(Inventory((), videos=[video("R1a", status="queued")]), ["video"], id="video"),
        pytest.param(
            unreadable(Persona, {"persona_id": "p1", "default_replica_id": ["R1A"]}),
            ["persona"],
            id="unreadable",
        ),
    ],
)
@pytest.mark.parametrize("replica_id", ["r1a", "R1A", "r1A"])
def test_use_is_found_in_any_letter_case(use: Inventory, in_use: list[str], replica_id: str) -> None:
    assert verdict(replica(replica_id), by=policy(keep={"in_use": in_use}), use=use).reason_code == "in_use"


def test_last_use_is_found_in_any_letter_case() -> None:
    by = policy({"older_than": "90d", "unused_for": "30d"})
    used = Inventory((), conversations=[conversation("R1A", at=ago(days=3))])
    assert verdict(replica("r1a"), by=by, use=used).reason_code == "not_expired"
    unknown = Inventory((), conversations=[conversation("R1A", at=None)])
    assert (
        verdict(replica("r1a"), by=by, use=unknown).reason
        == "last use is unknown: conversation c1 has no readable date"
    )


def test_holds_and_protected_ids_keep_in_any_letter_case() -> None:
    assert verdict(replica("r1a"), use=Inventory((), held=frozenset({"R1A"}))).reason_code == "held"
    assert verdict(replica("R1a"), use=Inventory((), held=frozenset({"r1A"}))).reason_code == "held"
    assert verdict(replica("r1a"), by=policy(keep={"protected_ids": ["R1A"]})).reason_code == "protected"


# --- names --------------------------------------------------------------------------------------------------


def named(name: str, replica_id: str = "r1") -> Replica:
    row = {"replica_id": replica_id, "replica_name": name, "replica_type": "user", "status": "completed"}
    return Replica.from_api({**row, "created_at": "2026-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("name", "glob", "matches"),
    [
        ("vip\ud83d", "vip*", True),
        ("vip\ud83d", "vip?", True),
        ("a\0_keep", "*_keep", True),
        ("a\0_keep", "a?_keep", True),
        ("a\0_keep", "a_keep", False),
        ("a\0", "*sha256*", False),
    ],
)
def test_globs_match_the_name_as_it_was(name: str, glob: str, matches: bool) -> None:
    """What is appended to a name to make it safe must not hide the end that an exclude matches."""
    found = verdict(named(name), by=policy(scope={"exclude": [glob]}))
    assert (found.reason_code == "out_of_scope") is matches


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("M\udcfcller", id="byte that is not UTF-8"),
        pytest.param("party \ud83c", id="half an emoji"),
        pytest.param("M\ufffdller", id="replaced by the server"),
    ],
)
def test_name_with_a_lost_character_is_out_of_scope_if_there_is_one(name: str) -> None:
    """An exclude could match the character that is missing."""
    for scope in ({"exclude": ["M\u00fcller*"]}, {"include": ["*ller", "p*"]}):
        found = verdict(named(name), by=policy(scope=scope))
        assert (found.reason_code, found.reason) == (
            "out_of_scope",
            "name has a character that was lost on the way, so it cannot be checked against the scope",
        )
    assert verdict(named(name)).reason_code == "expired"
    rule = {"older_than": "90d", "names": {"exclude": ["M\u00fcller*"]}}
    assert verdict(named(name), by=policy(rule)).status != "expired"


def test_name_that_was_cut_is_out_of_scope_if_there_is_one() -> None:
    """The end that an exclude would match may be missing."""
    long_name = "x" * 80_000 + "_keep"
    for scope in ({"exclude": ["*_keep"]}, {"include": ["x*"]}):
        found = verdict(named(long_name), by=policy(scope=scope))
        assert (found.reason_code, found.reason) == (
            "out_of_scope",
            "name has more than 256 characters, too many to check it against the scope",
        )
    assert verdict(named(long_name)).reason_code == "expired"


def test_patterns_see_at_most_256_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 patterns on names of 80 kB took 40 seconds."""
    lengths = []
    from tavus_provider.retention import names

    monkeypatch.setattr(names, "compile_glob", lambda glob: lambda name: lengths.append(len(name)) or None)
    monkeypatch.setattr(names, "normalize", lambda form, text: lengths.append(len(text)) or text)
    by = policy(scope={"exclude": [f"*a*{n}*" for n in range(100)]})
    decide(named("a" * 80_000), named("\u0301" * 200_000, "r2"), by=by)
    assert len(lengths) == 202
    assert max(lengths) == 256


@pytest.mark.parametrize(
    "names",
    [("a\0_1", "a\x01_1"), ("x" * 300, "x" * 301), ("a\ud83d_1", "a\ud83c_1"), ("a\ufffd_1", "a\ufffd_2")],
    ids=["replaced", "cut", "half", "lost"],
)
def test_names_that_were_altered_share_no_group(names: tuple[str, str]) -> None:
    """Otherwise replicas of two groups would count as one, and keep_last would keep fewer."""
    by = policy(keep={"keep_last": 1, "group_by": "^(?P<group>.*?)(_|$)"})
    found = decide(named(names[0]), named(names[1], "r2"), named("b_1", "r3"), named("b_2", "r4"), by=by)
    assert [one.replica.replica_id for one in found.delete] == ["r4"]


def test_policy_without_active_for_has_24_hours() -> None:
    assert Policy.parse({"expire": [{"older_than": "1d"}]}).keep.active_for.delta == DAY
    assert UNUSED.unreadable_replicas == ()
