"""Fixtures of the fault matrix, and the number of its cells as the last line of pytest's output."""

from __future__ import annotations

import http.client
import logging
import time

import pytest
from faults.harness import KEY_ENCODINGS, FakeTime, Harness
from faults.kinds import KEY
from faults.server import FakeTavus, Fault, RawServer, http_response

from tavus_provider.client import connection

_count = {"cells": 0, "failed": 0}


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", "cell: one cell of the fault matrix, or several (see ``run_cells``)")


def pytest_runtest_logreport(report) -> None:
    if "cell" in report.keywords and (report.when == "call" or report.failed):
        properties = dict(report.user_properties)
        _count["cells"] += properties.get("cells", 1)
        _count["failed"] += properties.get("failed") or report.failed


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal and _count["cells"]:
        terminal.write_line("fault matrix: {cells} cells, {failed} failed".format(**_count))


@pytest.fixture
def run_cells(record_property):
    """Run many cells in one test and report every one that fails: ``run_cells(kinds, run)``."""

    def run_all(kinds, run) -> None:
        failed = {}
        for kind in kinds:
            try:
                run(kind)
            except AssertionError as error:
                failed[kind.name] = str(error).splitlines()[0]
        record_property("cells", len(kinds))
        record_property("failed", len(failed))
        assert failed == {}

    return run_all


@pytest.fixture(scope="session")
def other_origin():
    """A server that no client may connect to."""
    server = RawServer(lambda *_: http_response(200, {}))
    yield server
    server.close()


@pytest.fixture
def start(raw_server, connect, clock, monkeypatch, caplog, capfd, other_origin):  # noqa: PLR0917
    """
    Start a server with faults and a hook: ``start(ids, *faults)`` returns a :class:`Harness`.

    ``timed=True`` gives the client a clock that the server controls, for faults that use up its timeout.
    After the test, checks that the API key was disclosed nowhere and that no other origin was contacted.
    """
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    connections = other_origin.connections
    started = []

    def start_harness(
        ids, *faults: Fault, kind: str = "replica", timed: bool = False, extra=None, **server_options
    ) -> Harness:
        tavus = FakeTavus(ids, *faults, kind=kind, other_origin=other_origin.url)
        server = raw_server(tavus.respond, **server_options)
        connect(server.url, password=KEY, extra={"timeout": tavus.timeout, "concurrency": 1, **(extra or {})})
        monkeypatch.setattr(connection, "time", FakeTime(tavus) if timed else time)
        started.append(Harness(tavus, server, clock))
        return started[-1]

    yield start_harness
    for harness in started:
        harness.record(repr(vars(harness.hook)))
        harness.hook.close()
        assert all(f"\nx-api-key: {KEY}" in head for head in harness.server.heads), "request without the key"
        disclosed = [*harness.disclosed, caplog.text, *capfd.readouterr()]
        assert not [text for text in disclosed for form in KEY_ENCODINGS if form in text], "key disclosed"
    assert other_origin.connections == connections, "another origin was contacted"
