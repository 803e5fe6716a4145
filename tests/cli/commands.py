"""What the tests of the commands share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

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


def process(
    *arguments: str, program: str = "tavus_provider", stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process, with connections from the database of Airflow."""
    from airflow.configuration import conf

    # In test mode, the SDK reads no connection from the database, and Airflow encrypts with another key.
    left_out = ("_AIRFLOW_PROCESS_CONTEXT", "AIRFLOW__CORE__UNIT_TEST_MODE")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    env["AIRFLOW__CORE__FERNET_KEY"] = conf.get("core", "fernet_key")
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        env=env,
        check=False,
    )
