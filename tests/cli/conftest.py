"""Fixtures for the tests of the commands."""

from __future__ import annotations

import pytest
import yaml
from cli.commands import KEY, STALE

from tavus_provider.cli.main import main


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    # The commands set it for their own process. It must not outlive the test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def policy(tmp_path):
    """Write a policy to a file, and return its path: ``policy(**parts)``."""

    def write(**parts) -> str:
        file = tmp_path / "retention.yaml"
        file.write_text(yaml.safe_dump({**STALE, **parts}), encoding="utf-8")
        return str(file)

    return write


@pytest.fixture
def run(capsys):
    """Run a command, and return its exit code, stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as ended:  # argparse
            code = int(ended.code)
        captured = capsys.readouterr()
        assert KEY not in captured.out + captured.err
        return code, captured.out, captured.err

    return command


@pytest.fixture
def stored_connection(sandbox, airflow_db):
    """The id of a connection to the sandbox that is in the database of Airflow only."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Connection(conn_id="stored", conn_type="tavus", host=sandbox.url, password=KEY))
    yield "stored"
    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id == "stored").delete()
