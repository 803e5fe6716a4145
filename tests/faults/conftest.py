"""Where a cell of the fault matrix is run, and where the cells are counted: the last line of pytest."""

from __future__ import annotations

import http.client
import logging
import time

import pytest
from faults.bench import FORMS, Bench, Time
from faults.kinds import KEY
from faults.server import Misdeed, RawServer, Tavus, answer

from tavus_provider.client import connection

_count = {"cells": 0, "broken": 0}


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", "cell: one cell of the fault matrix, or several: see ``each_of``")


def pytest_runtest_logreport(report) -> None:
    if "cell" in report.keywords and (report.when == "call" or report.failed):
        told = dict(report.user_properties)
        _count["cells"] += told.get("cells", 1)
        _count["broken"] += told.get("broken") or report.failed


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal and _count["cells"]:
        terminal.write_line("fault matrix: {cells} cells, {broken} broken".format(**_count))


@pytest.fixture
def each_of(record_property):
    """Run many cells in one test, and tell of every one that is broken: ``each_of(cells, run)``."""

    def run(cells, cell) -> None:
        broken = {}
        for one in cells:
            try:
                cell(one)
            except AssertionError as error:
                broken[one.name] = str(error).splitlines()[0]
        record_property("cells", len(cells))
        record_property("broken", len(broken))
        assert broken == {}

    return run


@pytest.fixture(scope="session")
def elsewhere():
    """Another origin, to which nobody must ever connect."""
    server = RawServer(lambda *_: answer(200, {}))
    yield server
    server.close()


@pytest.fixture
def bench(raw_server, connect, clock, monkeypatch, caplog, capfd, elsewhere):  # noqa: PLR0917
    """
    Start a misbehaving Tavus and a client: ``bench(ids, misdeeds...)``; ``timed=True`` for its patience.

    Whatever happens, the key stays where it belongs and no other origin is spoken to.
    """
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    before = elsewhere.connections
    benches = []

    def start(ids, *misdeeds: Misdeed, timed: bool = False, extra=None, **server_options) -> Bench:
        tavus = Tavus(ids, *misdeeds, elsewhere=elsewhere.url)
        server = raw_server(tavus.talk, **server_options)
        connect(
            server.url, password=KEY, extra={"timeout": tavus.patience, "concurrency": 1, **(extra or {})}
        )
        monkeypatch.setattr(connection, "time", Time(tavus) if timed else time)
        benches.append(Bench(tavus, server, clock))
        return benches[-1]

    yield start
    for one in benches:
        one.show(repr(vars(one.hook)))
        one.hook.close()
        assert all(f"\nx-api-key: {KEY}" in head for head in one.server.heads), "asked without the key"
        shown = [*one.shown, caplog.text, *capfd.readouterr()]
        assert not [text for text in shown for form in FORMS if form in text], "the key was shown"
    assert elsewhere.connections == before, "another origin was spoken to"
