from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from rendering.samples import HOSTILE_NAMES
from rich.console import Console

from tavus_provider.models import Replica
from tavus_provider.rendering.simulation import (
    PICTURE_ROWS,
    simulation_result,
    simulation_svg,
    simulation_title,
    simulation_view,
    stop_sentences,
)
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.simulation import simulate

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
LOOSE = {"max_deletions": 100, "max_deletion_percent": 100}


def replica(replica_id, days, name=None):
    return Replica(replica_id, name or replica_id, "completed", "user", created_at=NOW - timedelta(days=days))


def simulated(policy, *replicas, days=30, hard=False, history=None):
    inventory = Inventory(replicas, history=history or History())
    return simulate(Policy.parse(policy), inventory, now=NOW, days=days, hard=hard)


def lines(view, width=160):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view)
    return out.getvalue().splitlines()


def without_spaces(text):
    return "".join(text.split())


def text_of(svg):
    """Return the text of a picture without spaces, so that it does not matter where lines are wrapped."""
    return without_spaces("".join(ElementTree.fromstring(svg).itertext()))


def test_view_has_a_bar_per_period_and_a_row_per_delete():
    policy = {"name": "x", "expire": [{"rule": "old", "older_than": "90d"}], "limits": LOOSE}
    found = simulated(policy, replica("r1", 95), replica("r2", 86, "anna"), replica("r3", 20))
    shown = lines(simulation_view(found))
    assert shown[0] == simulation_title(found)
    assert shown[0].startswith("Policy 'x' over 3 replicas, one run a day from 2026-09-01 to 2026-10-01")
    bars = [line for line in shown if "█" in line]
    assert [line.split()[:2] for line in bars] == [["2026-09-01", "1"], ["2026-09-05", "1"]]
    assert any(line.split()[:5] == ["2026-09-05", "r2", "anna", "old", "90"] for line in shown)
    assert shown[-1] == "2 deleted, 1 remaining. On the last day: 1 not_expired"


def test_view_has_the_date_of_the_announcement_if_a_rule_has_grace():
    policy = {"name": "x", "expire": [{"older_than": "90d", "grace": "14d"}], "limits": LOOSE}
    shown = lines(simulation_view(simulated(policy, replica("r1", 95))))
    assert any(line.split()[:3] == ["2026-09-15", "2026-09-01", "r1"] for line in shown)


def test_delete_without_a_rule_names_hard_delete_after():
    policy = {"expire": [{"older_than": "90d"}], "limits": LOOSE, "hard_delete_after": "30d"}
    history = History(soft_deleted={"r9": NOW - timedelta(days=40)})
    shown = lines(simulation_view(simulated(policy, replica("r1", 1), hard=True, history=history)))
    assert any("r9" in line and "(hard_delete_after)" in line for line in shown)


def test_stops_are_counted_and_described():
    policy = {"expire": [{"older_than": "90d"}], "limits": {**LOOSE, "max_deletions": 1}}
    found = simulated(policy, *(replica(f"r{n}", days) for n, days in enumerate((95, 86, 80, 80))))
    assert simulation_result(found) == "2 deleted, 2 remaining; a run would stop at a limit on 21 days"
    (sentence,) = stop_sentences(found)
    assert sentence.startswith(
        "on 2026-09-11 and every day until 2026-10-01 the run would stop: 2 of 2 replicas"
    )
    assert without_spaces(sentence) in text_of(simulation_svg(found))


def test_picture_shows_the_same_text_and_loads_nothing():
    policy = {"name": "<b>&", "expire": [{"older_than": "90d"}], "limits": LOOSE}
    found = simulated(policy, replica("r1", 95))
    svg = simulation_svg(found)
    assert without_spaces(simulation_result(found)) in text_of(svg)
    assert "Policy'<b>&'over1replicas" in text_of(svg)
    assert "url(" not in svg.replace("url(#", "")
    assert "@font-face" not in svg


def test_picture_names_a_limited_number_of_deletes():
    policy = {"expire": [{"older_than": "90d"}], "limits": LOOSE}
    found = simulated(policy, *(replica(f"r{n:03}", 95) for n in range(PICTURE_ROWS + 5)))
    text = text_of(simulation_svg(found))
    assert "r039" in text
    assert "r040" not in text
    assert "...and5more" in text


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_name_cannot_break_a_line_or_the_picture(name):
    policy = {"expire": [{"older_than": "90d"}], "limits": LOOSE}
    found = simulated(policy, Replica("r1", name, "completed", "user", created_at=NOW - timedelta(days=95)))
    assert all(line.isprintable() for line in lines(simulation_view(found)))
    assert "r1" in text_of(simulation_svg(found))
