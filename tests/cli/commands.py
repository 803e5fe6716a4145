"""What the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
KEY = "sandbox-key-8f2b6c91"
STALE = {
    "name": "stale",
    "expire": [
        {"rule": "failed-training", "status": ["error"], "older_than": "14d"},
        {"rule": "stale", "older_than": "180d", "unused_for": "90d"},
    ],
    "scope": {"exclude": ["vip_*"]},
}


def one_error(err: str) -> str:
    """Return the one line on stderr."""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    return err.strip()
