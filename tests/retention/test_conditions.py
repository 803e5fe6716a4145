"""The conditions of a rule: when they hold, their reasons, and what they imply."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from retention.samples import (
    NOW,
    SECOND,
    STALE,
    ago,
    conversation,
    policy,
    replica,
    verdict,
    video,
)

from tavus_provider.models import Persona, Replica
from tavus_provider.retention.conditions import CONDITIONS, Condition, OlderThan, UnusedFor
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.fields import USE_KINDS, Duration
from tavus_provider.retention.policy import Rule

LATELY = {"rule": "idle", "older_than": "180d", "unused_for": "90d"}


@pytest.mark.parametrize(
    ("one", "rules", "reason_code", "reason", "rule"),
    [
        pytest.param(
            replica(age=timedelta(days=90)),
            [STALE],
            "expired",
            "90 days old, limit is 90d",
            "stale",
            id="at the limit",
        ),
        pytest.param(
            replica(age=timedelta(days=90) - SECOND),
            [STALE],
            "not_expired",
            "89 days old, rule 'stale' asks for 90d",
            None,
            id="a second before",
        ),
        pytest.param(
            replica(age=timedelta(days=90) + SECOND),
            [STALE],
            "expired",
            "90 days old, limit is 90d",
            "stale",
            id="a second after",
        ),
        pytest.param(
            replica(age=timedelta(days=2)),
            [{"older_than": "36h"}],
            "expired",
            "48 hours old, limit is 36h",
            "rule 1",
            id="in the unit of the limit",
        ),
        pytest.param(
            replica(age=timedelta(minutes=1)),
            [{"older_than": "1min"}],
            "expired",
            "1 minute old, limit is 1min",
            "rule 1",
            id="one minute",
        ),
        pytest.param(
            replica(age=timedelta()),
            [STALE],
            "not_expired",
            "0 days old, rule 'stale' asks for 90d",
            None,
            id="created now",
        ),
        pytest.param(
            replica(status="error"),
            [{"rule": "failed", "status": ["error"], "older_than": "14d"}, STALE],
            "expired",
            "200 days old, limit is 14d",
            "failed",
            id="the first rule that holds",
        ),
        pytest.param(
            replica(),
            [{"rule": "failed", "status": ["error"], "older_than": "14d"}],
            "not_expired",
            "no rule matches status 'completed'",
            None,
            id="no rule for this status",
        ),
        pytest.param(
            replica(age=timedelta(days=80)),
            [{"rule": "later", "older_than": "365d"}, STALE],
            "not_expired",
            "80 days old, rule 'stale' asks for 90d",
            None,
            id="the nearest rule is told",
        ),
        pytest.param(
            replica(),
            [{"rule": "never", "unused_for": "90d"}],
            "expired",
            "never used in 200 days, limit is 90d",
            "never",
            id="never used",
        ),
        pytest.param(
            replica(),
            [LATELY],
            "expired",
            "200 days old, limit is 180d; never used in 200 days, limit is 90d",
            "idle",
            id="both conditions",
        ),
        pytest.param(
            replica(age=timedelta(days=80)),
            [LATELY],
            "not_expired",
            "80 days old, rule 'idle' asks for 180d; never used in 80 days, rule 'idle' asks for 90d",
            None,
            id="neither condition",
        ),
        pytest.param(
            replica(age=timedelta(days=100)),
            [LATELY],
            "not_expired",
            "100 days old, rule 'idle' asks for 180d",
            None,
            id="one condition",
        ),
    ],
)
def test_first_rule_with_all_conditions_met_expires_a_replica(
    one: Replica, rules: list[dict[str, Any]], reason_code: str, reason: str, rule: str | None
) -> None:
    found = verdict(one, by=policy(*rules))
    assert (found.reason_code, found.reason, found.rule) == (reason_code, reason, rule)


@pytest.mark.parametrize(
    ("use", "reason_code", "reason"),
    [
        pytest.param(
            Inventory((), [], [conversation(at=ago(days=90))], []),
            "expired",
            "unused for 90 days, limit is 90d",
            id="at the limit",
        ),
        pytest.param(
            Inventory((), [], [conversation(at=ago(days=90) + SECOND)], []),
            "not_expired",
            "used 89 days ago, rule 'idle' asks for 90d",
            id="a second before",
        ),
        pytest.param(
            Inventory((), [], [conversation(at=ago(days=150))], [video(at=ago(days=120), status="ready")]),
            "expired",
            "unused for 120 days, limit is 90d",
            id="the newest use counts, of whatever kind",
        ),
        pytest.param(
            Inventory((), [Persona("p1", "r1")], [conversation(None, at=ago(days=3), persona_id="p1")], []),
            "not_expired",
            "used 3 days ago, rule 'idle' asks for 90d",
            id="used through its persona",
        ),
        pytest.param(
            Inventory((), [Persona("p1", "r1")], [conversation("r2", at=ago(days=3), persona_id="p1")], []),
            "expired",
            "never used in 200 days, limit is 90d",
            id="the conversation's own replica counts",
        ),
        pytest.param(
            Inventory((), [], [conversation(at=None), conversation(at=ago(days=150), activity_id="c2")], []),
            "undetermined",
            "last use is unknown: conversation c1 has no readable date",
            id="a use without date",
        ),
        pytest.param(
            Inventory((), [], [], [video(at=NOW + SECOND, status="ready", activity_id="v1")]),
            "undetermined",
            "last use is unknown: video v1 is dated in the future",
            id="a use a second ahead",
        ),
        pytest.param(
            Inventory((), [], [conversation(at=NOW)], []),
            "not_expired",
            "used 0 days ago, rule 'idle' asks for 90d",
            id="used now",
        ),
    ],
)
def test_unused_for_counts_from_the_last_use(use: Inventory, reason_code: str, reason: str) -> None:
    by = policy({"rule": "idle", "unused_for": "90d"}, keep={"in_use": []})
    found = verdict(replica(), by=by, use=use)
    assert (found.reason_code, found.reason) == (reason_code, reason)


def test_use_without_date_matters_only_for_rules_with_unused_for() -> None:
    use = Inventory((), [], [conversation(at=None)], [])
    assert verdict(replica(), use=use).reason_code == "expired"
    by = policy({"rule": "a", "unused_for": "1d", "status": ["error"]}, {"rule": "b", "older_than": "1d"})
    assert verdict(replica(), by=by, use=use).reason_code == "expired"
    assert verdict(replica(status="error"), by=by, use=use).reason_code == "undetermined"


def test_use_that_names_no_replica_counts_for_every_replica() -> None:
    by_use = policy({"unused_for": "30d"})
    hidden = video(None, status="ready", activity_id="v9", at=NOW - timedelta(days=20))
    older = conversation(None, status="ended", activity_id="c8", at=NOW - timedelta(days=25))
    (verdict,) = evaluate(by_use, Inventory([replica()], [], [older], [hidden]), now=NOW).verdicts
    assert (verdict.reason_code, verdict.reason) == (
        "not_expired",
        "possibly used 20 days ago (video v9 does not name its replica), rule 'rule 1' asks for 30d",
    )
    assert evaluate(by_use, Inventory([replica()], [], [], [hidden]), now=NOW + timedelta(days=10)).delete
    undated = video(None, status="ready", at=None)
    assert not evaluate(by_use, Inventory([replica()], [], [], [undated]), now=NOW).delete


def test_verdict_has_age_and_last_use_only_if_known() -> None:
    used = Inventory((), [], [conversation(at=ago(days=4))], [])
    by_use = policy({"unused_for": "30d"})
    found = verdict(replica(), by=by_use, use=used)
    assert (found.age_days, found.last_used_at) == (200, ago(days=4))
    assert verdict(replica()).last_used_at is None
    assert verdict(replica(created_at=NOW + SECOND)).age_days is None
    undated = Inventory((), [], [conversation(at=None)], [])
    assert verdict(replica(), by=by_use, use=undated).last_used_at is None
    # Where only present use was read the last use is not known, whatever the conversations say.
    assert verdict(replica(), use=used).last_used_at is None


# --- what every condition declares -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONDITIONS)
def test_condition_is_a_field_of_a_rule_with_its_description(kind: type[Condition]) -> None:
    field = Rule.model_fields[kind.key]
    assert field.description == kind.description
    assert field.default is None
    assert kind.needs <= set(USE_KINDS)


def test_rule_has_its_conditions_in_the_order_of_the_table() -> None:
    (rule,) = policy({"unused_for": "2w", "older_than": "90d"}).expire
    assert [(type(one), str(one.limit)) for one in rule.conditions] == [(OlderThan, "90d"), (UnusedFor, "2w")]


def limit(text: str) -> Duration:
    return Duration.parse(text)


@pytest.mark.parametrize(
    ("one", "other", "implied"),
    [
        pytest.param(OlderThan(limit("90d")), OlderThan(limit("90d")), True, id="same"),
        pytest.param(OlderThan(limit("90d")), OlderThan(limit("12w")), True, id="lower limit"),
        pytest.param(OlderThan(limit("90d")), OlderThan(limit("91d")), False, id="higher limit"),
        pytest.param(OlderThan(limit("90d")), UnusedFor(limit("1d")), False, id="old but used"),
        pytest.param(UnusedFor(limit("90d")), OlderThan(limit("90d")), True, id="unused and as old"),
        pytest.param(UnusedFor(limit("90d")), OlderThan(limit("91d")), False, id="unused but younger"),
        pytest.param(UnusedFor(limit("90d")), UnusedFor(limit("1h")), True, id="unused for longer"),
    ],
)
def test_condition_implies_another(one: Condition, other: Condition, implied: bool) -> None:
    assert one.implies(other) is implied


def test_turning_points_are_the_times_at_which_the_result_changes() -> None:
    later = NOW + timedelta(days=2)
    inventory = Inventory(
        [replica(age=timedelta(days=5)), replica("r2", created_at=None)],
        conversations=[conversation(at=ago(days=3)), conversation(at=None)],
        videos=[video(at=later, status="ready")],
    )
    due = ago(days=5) + timedelta(days=7)
    assert list(OlderThan(limit("7d")).turning_points(inventory)) == [due]
    assert set(UnusedFor(limit("7d")).turning_points(inventory)) == {
        due,
        *(ago(days=3) + span for span in (timedelta(), timedelta(days=7))),
        *(later + span for span in (timedelta(), timedelta(days=7))),
    }


def test_turning_point_after_the_end_of_the_calendar_is_left_out() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    assert list(OlderThan(limit("1d")).turning_points(Inventory([replica(created_at=last)]))) == []
