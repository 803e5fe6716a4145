"""Fixtures for the tests of the operators."""

from __future__ import annotations

import threading

import pytest
from operators.tasks import OLD, planned

from tavus_provider.client import rate_limiter


@pytest.fixture(autouse=True)
def _waits_take_no_time(request):
    if "waiting" not in request.fixturenames:
        request.getfixturevalue("clock")


@pytest.fixture
def waiting(monkeypatch):
    """Let the waits of the client take their time. Returns an event that is set when the first one begins."""
    waiting = threading.Event()
    real = rate_limiter.RateLimiter

    def sleep(seconds, stop):
        waiting.set()
        return rate_limiter.wait_for_stop(seconds, stop)

    monkeypatch.setattr(rate_limiter, "_shared", {})
    monkeypatch.setattr(rate_limiter, "RateLimiter", lambda: real(sleep=sleep))
    return waiting


@pytest.fixture
def log(capsys):
    """Return the lines that were logged since the last call: ``log()``. Airflow logs to stdout and stderr."""

    def lines():
        captured = capsys.readouterr()
        return (captured.out + captured.err).splitlines()

    return lines


@pytest.fixture
def plan(sandbox):
    """A plan for six soft deletes."""
    return planned()


@pytest.fixture
def hard_plan(sandbox):
    """A plan for six permanent deletes."""
    return planned(hard=True)


@pytest.fixture
def small_xcoms(monkeypatch):
    """Every plan is too large for an XCom."""
    monkeypatch.setattr("tavus_provider.planning.plan.MAX_XCOM_BYTES", 2_000)


@pytest.fixture
def held(monkeypatch, tmp_path):
    """The policy of the deployment has ``OLD`` under legal hold. Returns the file with the held ids."""
    (tmp_path / "holds.yaml").write_text(f"[{OLD}]")
    (tmp_path / "policy.yaml").write_text(
        f"{{expire: [{{older_than: 90d}}], legal_holds: {{file: {tmp_path}/holds.yaml, max_age: 7d}}}}"
    )
    monkeypatch.setenv("AIRFLOW__TAVUS__POLICY", str(tmp_path / "policy.yaml"))
    return tmp_path / "holds.yaml"


@pytest.fixture
def page(monkeypatch):
    """What Airflow was asked to show to the approver."""
    shown: dict[str, object] = {}
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail",
        lambda **details: shown.update(details),
    )
    return shown
