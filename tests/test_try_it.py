"""`make demo`, `make plan` and `make airflow`: what they refuse before they start anything."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tavus_provider.sandbox import Sandbox

SCRIPT = Path(__file__).parents[1] / "scripts" / "try_it.py"


def run(home: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        check=False,
        env=os.environ | {"TRY_IT_HOME": str(home)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stdout


def test_port_in_use_is_refused(tmp_path):
    """Otherwise the address that is printed would be that of another Airflow."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, printed = run(tmp_path, "airflow", "--port", str(port))
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert f"Port {port} of 127.0.0.1 is in use" in printed


@pytest.mark.parametrize("what", ["demo", "airflow"])
def test_second_run_is_refused_and_leaves_the_files_of_the_first(what, tmp_path):
    (tmp_path / "airflow.db").touch()
    first = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(first, fcntl.LOCK_EX)
        code, printed = run(tmp_path, what)
    finally:
        os.close(first)
    assert (code, [file.name for file in tmp_path.iterdir()]) == (2, ["airflow.db"])
    assert "is running already" in printed


def test_plan_uses_the_proxy_of_the_environment(tmp_path):
    with Sandbox() as tavus, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        code, printed = run(
            tmp_path,
            "plan",
            TAVUS_API_KEY=tavus.key,
            TAVUS_BASE_URL=tavus.url,
            AIRFLOW__TAVUS__PROXY=f"http://127.0.0.1:{nobody.getsockname()[1]}",
        )
        assert tavus.state()["requests"] == []
    assert code != 0
    assert "through the proxy in [tavus] proxy" in printed
