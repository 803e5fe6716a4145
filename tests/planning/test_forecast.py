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
        "notice": "There is no forecast for 2 replicas, only for up to 1",
    }
