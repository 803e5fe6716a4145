"""How many replicas will be deleted in the coming months."""

from __future__ import annotations

from datetime import timedelta

from retention.samples import NOW, policy, replica

from tavus_provider.planning import forecast
from tavus_provider.planning.forecast import make_forecast
from tavus_provider.retention.context import Inventory


def made(*ages: int, **parts):
    rows = [replica(f"r{number}", age=timedelta(days=age)) for number, age in enumerate(ages)]
    return make_forecast(policy(**parts), Inventory(rows), now=NOW, hard=False)


def test_deletes_are_counted_by_week():
    found = made(200, 88, 60, 59, 1, limits={"max_deletion_percent": 100})
    assert found["next_30_days"] == 3
    assert [week["count"] for week in found["weeks"]] == [2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found["weeks"][0] == {"first": "2026-09-01", "last": "2026-09-07", "count": 2}
    assert found["weeks"][-1]["last"] == "2026-11-30"
    assert found["stops"] == []


def test_limits_stop_the_runs():
    found = made(200, 200, 50, limits={"max_deletions": 1})
    assert sum(week["count"] for week in found["weeks"]) == 0
    assert (found["stops"][0]["first"], found["stops"][0]["last"]) == ("2026-09-01", "2026-11-30")
    assert "max_deletions is 1" in found["stops"][0]["reason"]


def test_large_account_has_no_forecast(monkeypatch):
    monkeypatch.setattr(forecast, "MAX_REPLICAS", 1)
    assert made(200, 200) == {
        "version": 1,
        "narrowed_by": [],
        "notice": "There is no forecast for 2 replicas, only for up to 1",
    }


def test_first_dates_are_named():
    found = made(200, 199, 60, 1, limits={"max_deletion_percent": 100})
    assert found["begins_at"] == NOW.isoformat()
    assert [(one["date"], one["count"]) for one in found["dates"]] == [
        ("2026-09-01", 2),
        ("2026-10-01", 1),
        ("2026-11-29", 1),
    ]
    assert [row["replica_id"] for row in found["dates"][1]["replicas"]] == ["r2"]


def test_names_are_those_of_the_first_dates():
    found = made(*range(78, 90), *[91] * 9, limits={"max_deletion_percent": 100, "max_deletions": 99})
    assert len(found["dates"]) == 13
    assert [bool(one["replicas"]) for one in found["dates"]] == [True] * forecast.MAX_NAMED_DATES + [
        False
    ] * 3
    assert (found["dates"][0]["count"], len(found["dates"][0]["replicas"])) == (9, forecast.MAX_NAMES)


def test_only_fields_that_narrow_are_named():
    """A trigger form always sends an age."""
    assert made(1, narrow={"older_than": "90d", "include": ["*"]})["narrowed_by"] == []
    assert made(1, narrow={"older_than": "91d", "exclude": ["a"]})["narrowed_by"] == ["exclude", "older_than"]
