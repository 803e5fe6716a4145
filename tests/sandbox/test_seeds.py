"""The built-in account and seeds of the sandbox."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sandbox.client import listing

from tavus_provider.sandbox import HOSTILE_NAME, Sandbox, SeedError

EXPIRED_AT_90_DAYS = {
    "r1a0c5e8f3b2": "spring-campaign_anna",
    "r2b9d41c07ae": "summer-campaign_ben",
    "r3f6a2e9d815": "black-friday_2024",
    "r4c81b7f0d3e": "onboarding_v1",
    "r5e27d9a6c40": "webinar_lukas",
    "r6d3b8f1e5a7": HOSTILE_NAME,
}


def expired(tavus: Sandbox, *, days: int) -> dict[str, str | None]:
    """Return the replicas that a policy on age and use would delete, computed from the API alone."""
    now = dt.datetime.now(dt.UTC)

    def age(text: str | None) -> dt.timedelta | None:
        moment = None if text is None else dt.datetime.fromisoformat(text)
        return None if moment is None or moment.tzinfo is None or moment > now else now - moment

    used = {row["default_replica_id"] for row in listing(tavus, "/v2/personas")}
    used |= {row["replica_id"] for row in listing(tavus, "/v2/conversations", status="active")}
    used |= {r["replica_id"] for r in listing(tavus, "/v2/videos") if r["status"] in {"queued", "generating"}}
    found = {}
    for row in listing(tavus, verbose="true"):
        created, updated = age(row.get("created_at")), age(row.get("updated_at"))
        quiet = row["status"] == "completed" or (updated is not None and updated > dt.timedelta(hours=72))
        old = created is not None and created > dt.timedelta(days=days)
        known = row["replica_type"] == "user" and row["status"] in {"completed", "error"}
        if known and old and quiet and row["replica_id"] not in used:
            found[row["replica_id"]] = row.get("replica_name")
    return found


def test_six_builtin_replicas_expire_at_90_days_within_the_limits(
    tavus: Sandbox,
) -> None:
    assert expired(tavus, days=90) == EXPIRED_AT_90_DAYS
    listed = len(listing(tavus, replica_type="user"))
    assert listed == 26
    assert 100 * len(EXPIRED_AT_90_DAYS) <= 25 * listed


@pytest.mark.parametrize(
    ("replica_id", "change"),
    [
        pytest.param("r7b4e0f2d6c9", {"age": "400d"}, id="date without a time zone"),
        pytest.param("r6a3d9e1c5b8", {"age": "400d"}, id="no date"),
        pytest.param("r8c5f1a3e7d0", {"age": "400d"}, id="date in the future"),
        pytest.param("r9d6a2b4f8e1", {"status": "completed"}, id="unknown status"),
        pytest.param("rae7b3c5a9f2", {"replica_type": "user"}, id="unknown type"),
        pytest.param("r3c0d6f8b2e5", {"status": "completed"}, id="stuck in training"),
        pytest.param("r5f2b8c0d4e1", {"updated": "80h"}, id="failed less than 72 hours ago"),
    ],
)
def test_undetermined_builtin_replicas_are_kept_for_one_reason(
    tavus: Sandbox, replica_id: str, change: dict[str, str]
) -> None:
    assert replica_id not in expired(tavus, days=90)
    tavus.put("replicas", {"replica_id": replica_id, **change})
    assert replica_id in expired(tavus, days=90)


def test_three_builtin_replicas_are_kept_only_because_in_use(tavus: Sandbox) -> None:
    in_use = {"rf8c6e5b1a20", "r09d7f2c4b6a", "r1ae8b0d3c5f"}
    assert not in_use & set(expired(tavus, days=90))
    tavus.put("personas", {"persona_id": "p1c2d3e4f5a6", "deleted": "hard"})
    tavus.put("conversations", {"conversation_id": "c0eaa60a267274af", "status": "ended"})
    tavus.put("videos", {"video_id": "1e30440cf9", "status": "ready"})
    assert in_use < set(expired(tavus, days=90))


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ([], "a seed must be an object with replicas, personas, conversations, videos, not list"),
        ({"faces": []}, "'faces' is not one of replicas,"),
        ({"replicas": {}}, "replicas: must be a list"),
        ({"replicas": ["r1"]}, r"replicas\[0\]: must be an object"),
        ({"replicas": [{}]}, r"replicas\[0\]\.replica_id: None is not a non-empty string"),
        (
            {"replicas": [{"replica_id": "r1"}, {"replica_id": "r1"}]},
            r"replicas\[1\]\.replica_id: 'r1' is a duplicate",
        ),
        ({"replicas": [{"replica_id": "r1", "age": 90}]}, r"replicas\[0\]\.age: 90 is not an age"),
        ({"replicas": [{"replica_id": "r1", "age": "90"}]}, r"replicas\[0\]\.age: '90' is not an age"),
        ({"replicas": [{"replica_id": "r1", "age": "999999w"}]}, "outside the supported range of dates"),
        (
            {"replicas": [{"replica_id": "r1", "age": "9d", "created_at": None}]},
            "set age or created_at, not both",
        ),
        ({"replicas": [{"replica_id": "r1", "name": "x"}]}, r"replicas\[0\]\.name: unknown field"),
        ({"replicas": [{"replica_id": "r1", "deleted": "maybe"}]}, "'maybe' is not null, 'soft' or 'hard'"),
        ({"videos": [{"video_id": "v1", "status": 3}]}, r"videos\[0\]\.status: 3 is not a string or null"),
    ],
)
def test_invalid_seed_is_rejected_naming_the_field(tmp_path: Path, seed: Any, message: str) -> None:
    with pytest.raises(SeedError, match=message):
        Sandbox(seed)
    file = tmp_path / "world.json"
    file.write_text(json.dumps(seed))
    with pytest.raises(SeedError, match=f"^{re.escape(str(file))}: .*{message}"):
        Sandbox(file)


def test_seed_can_be_yaml(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text("replicas:\n- {replica_id: r1, age: 90d, deleted: soft}\n- {replica_id: r2}\n")
    assert Sandbox(file).replica_ids() == ["r2"]
