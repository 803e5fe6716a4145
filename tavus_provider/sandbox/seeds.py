"""Seeds: the rows that a sandbox starts with, built in or read from a file."""

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tavus_provider.sandbox.world import SeedError, World

HOSTILE_NAME = "<img src=x onerror=alert(1)> **b** [x](javascript:alert(1)) \x1b[31m\n\u202egpj.exe"
"""A replica name with markup, a script, an escape sequence, a line break and a right-to-left override."""


def read_seed(path: str | Path) -> Mapping[str, Any]:
    """Read a seed from a JSON or YAML file.

    :raises SeedError: names the file and the invalid field
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if Path(path).suffix in {".yaml", ".yml"}:
            import yaml

            try:
                seed = yaml.safe_load(text)
            except yaml.YAMLError as exc:
                raise SeedError(" ".join(str(exc).split())) from None
        else:
            seed = json.loads(text)
        World(seed, now=dt.datetime.now(dt.UTC))
    except (OSError, ValueError, RecursionError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise SeedError(f"{path}: {reason}") from None
    return dict(seed)


def builtin_seed(*, now: dt.datetime) -> dict[str, Any]:
    """Return rows for every case of a policy: 26 replicas of the account and 4 stock replicas.

    Under a policy with `older_than: 90d`, all `in_use` checks and the 72 hours for failed trainings, six
    replicas expire, 23 % of the account: `spring-campaign_anna`, `summer-campaign_ben`, `black-friday_2024`
    (last used 300 days ago), `onboarding_v1` (last used 12 days ago, so `unused_for` keeps it),
    `webinar_lukas` (a failed training) and the one named `HOSTILE_NAME`.
    """
    naive = (now - dt.timedelta(days=400)).strftime("%Y-%m-%dT%H:%M:%S.%f")

    def replica(replica_id: str, name: str, age: str, **more: str) -> dict[str, Any]:
        return {"replica_id": replica_id, "replica_name": name, "age": age, **more}

    replicas = [
        # expired
        replica("r1a0c5e8f3b2", "spring-campaign_anna", "120d"),
        replica("r2b9d41c07ae", "summer-campaign_ben", "210d", model_name="phoenix-3"),
        replica("r3f6a2e9d815", "black-friday_2024", "700d", model_name="phoenix-2"),
        replica("r4c81b7f0d3e", "onboarding_v1", "400d", model_name="phoenix-3"),
        replica("r5e27d9a6c40", "webinar_lukas", "150d", updated="149d", status="error"),
        replica("r6d3b8f1e5a7", HOSTILE_NAME, "250d"),
        # too young
        replica("r70f4c2a9e6b", "spring-campaign_dev", "45d"),
        replica("r81e6b3d7f09", "vip_keynote", "80d"),
        replica("r92d5a0c8b4f", "team-a_v1", "85d"),
        replica("ra3c7f1e2d60", "team-a_v2", "64d"),
        replica("rb48e9d0a5f3", "team-a_v3", "33d"),
        replica("rc59f2b6e1d4", "team-a_v4", "6d"),
        replica("rd6a1c3f7e82", "team-b_v1", "3d"),
        {"replica_id": "re7b0d4a8f95", "age": "15d"},  # without a name
        # in use
        replica("rf8c6e5b1a20", "vip_ceo", "500d"),
        replica("r09d7f2c4b6a", "support-desk_live", "380d"),
        replica("r1ae8b0d3c5f", "birthday-video_host", "260d"),
        # in training, stuck in training, failed hours ago, failed recently after a long training
        replica("r2bf9a1e4d7c", "product-tour_mei", "3h", status="started"),
        replica("r3c0d6f8b2e5", "product-tour_2023", "200d", status="started"),
        replica("r4d1e7a9c3f6", "webinar_sofia", "20h", status="error"),
        replica("r5f2b8c0d4e1", "webinar_retake", "110d", updated="30h", status="error"),
        # undetermined: no date, date without a time zone, date in the future, unknown status, unknown type
        {"replica_id": "r6a3d9e1c5b8", "replica_name": "legacy-import_1", "updated": "300d"},
        {"replica_id": "r7b4e0f2d6c9", "replica_name": "legacy-import_2", "created_at": naive},
        replica("r8c5f1a3e7d0", "clock-skew_test", "-30d"),
        replica("r9d6a2b4f8e1", "archive_2023", "300d", status="archived"),
        replica("rae7b3c5a9f2", "stray-quote_test", "320d", replica_type="user'"),
        # stock replicas
        replica("rb1f8c4d6e0a", "Anna - Studio", "600d", replica_type="system"),
        replica("rb2a9d5e7f1b", "Luna - Office", "550d", replica_type="system"),
        replica("rb3b0e6f8a2c", "Gloria - Home", "300d", replica_type="system", model_name="phoenix-3"),
        replica("rb4c1f7a9b3d", "Benjamin - Dark", "100d", replica_type="system"),
    ]
    personas = [
        ("p1c2d3e4f5a6", "Assistant of the CEO", "rf8c6e5b1a20", "user"),
        ("p2d3e4f5a6b7", "Coach", "rb1f8c4d6e0a", "user"),
        ("p3e4f5a6b7c8", "Host of a face that is gone", "r00dead00bee", "user"),
        ("p4f5a6b7c8d9", "Sales Coach", "rb2a9d5e7f1b", "system"),
    ]
    conversations = [
        ("c0eaa60a267274af", "r09d7f2c4b6a", "p2d3e4f5a6b7", "active", "20m"),
        ("c1fbb71b378385b0", "r4c81b7f0d3e", "p2d3e4f5a6b7", "ended", "12d"),
        ("c20cc82c489496c1", "r3f6a2e9d815", "p2d3e4f5a6b7", "ended", "300d"),
        ("c31dd93d5905a7d2", "rf8c6e5b1a20", "p1c2d3e4f5a6", "ended", "2d"),
    ]
    videos = [
        ("1e30440cf9", "r1ae8b0d3c5f", "generating", "10m"),
        ("2f41551d0a", "r1a0c5e8f3b2", "ready", "119d"),
        ("3a52662e1b", "r5e27d9a6c40", "error", "149d"),
    ]
    return {
        "replicas": replicas,
        "personas": [
            {"persona_id": i, "persona_name": name, "default_replica_id": r, "persona_type": t, "age": "200d"}
            for i, name, r, t in personas
        ],
        "conversations": [
            {"conversation_id": i, "replica_id": r, "persona_id": p, "status": status, "age": age}
            for i, r, p, status, age in conversations
        ],
        "videos": [
            {"video_id": i, "video_name": "Greeting", "replica_id": r, "status": status, "age": age}
            for i, r, status, age in videos
        ],
    }
