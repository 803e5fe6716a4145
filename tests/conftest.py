"""An Airflow of its own, in an empty folder, and a Tavus of its own on loopback for each test."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Airflow reads all this while it is imported, so it must stand before the first such import.
HOME = Path(tempfile.mkdtemp(prefix="tavus-tests-"))
for name in [name for name in os.environ if name.startswith(("AIRFLOW", "TAVUS"))]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="True",
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    no_proxy="127.0.0.1,localhost",
)

KEY = "sandbox-key-8f2b6c91"
"""Long enough for Airflow to mask it, and like nothing else, so that a leak is found by a search."""


def pytest_configure(config) -> None:
    # Not in setup.cfg: pytest imports the class of a filter, and so Airflow, before this file is read.
    # What Airflow deprecates is a FutureWarning, shown where it is imported.
    kind = "airflow.utils.deprecation_tools.DeprecatedImportWarning"
    config.addinivalue_line("filterwarnings", f"error::{kind}:tavus_provider")


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture
def connect(monkeypatch, tmp_path):
    """
    Define the Airflow connection ``tavus_default`` and admit its origin: ``connect(url, **fields)``.

    The ledger is that of the test alone, in ``tmp_path / "ledger"``.
    """
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "ledger"))

    def define(host: str, *, password: str | None = KEY, conn_id: str = "tavus_default", **fields: object):
        value = {"conn_type": "tavus", "host": host, "password": password, **fields}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))
        monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", f"https://tavusapi.com,{host}")

    return define


@pytest.fixture
def sandbox(connect):
    """A Tavus with the built-in world, and the connection ``tavus_default`` to it."""
    from tavus_provider.sandbox import Sandbox

    with Sandbox(key=KEY) as running:
        connect(running.url, extra={"timeout": 5})
        yield running


class Clock:
    """Time that passes only by waiting, and remembers the waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Let every gate of the process wait on a clock that the test can read."""
    from tavus_provider import transport

    clock = Clock()
    real = transport.Gate
    monkeypatch.setattr(transport, "_gates", {})
    monkeypatch.setattr(transport, "Gate", lambda: real(sleep=clock.sleep, clock=clock))
    return clock


@pytest.fixture
def hook(sandbox, clock):
    """A hook on the sandbox whose waits take no time."""
    from tavus_provider.hooks.tavus import TavusHook

    with TavusHook() as made:
        yield made


class RawServer:
    """
    Says on a socket what no HTTP server would say, and remembers what it was asked.

    ``talk(head, number)`` gives what is said to the request of that number (from 1): bytes, ``None`` to
    hang up, or an iterable of both; otherwise the connection stays open.

    :param tls: an ``ssl.SSLContext`` of the server
    """

    def __init__(self, talk, tls=None) -> None:
        self.talk = talk
        self.tls = tls
        self.heads: list[str] = []
        self.connections = 0
        self.hung_up = threading.Event()
        """Set when somebody closed a connection while it was being spoken to."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self.tls:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            stream = stack.enter_context(connection.makefile("rb"))
            while head := "\n".join(iter(lambda: stream.readline().decode("latin-1").strip(), "")):
                with self._lock:
                    self.heads.append(head)
                    number = len(self.heads)
                said = self.talk(head, number)
                for part in [said] if said is None or isinstance(said, bytes) else said:
                    if part is None:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    try:
                        connection.sendall(part)
                    except OSError:
                        self.hung_up.set()
                        raise


@pytest.fixture
def raw_server():
    """Start raw servers: ``raw_server(talk, tls=None)``."""
    with contextlib.ExitStack() as stack:

        def start(talk, tls=None) -> RawServer:
            server = RawServer(talk, tls)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def serve(connect):
    """Start a Tavus with a world of your own, and the connection ``tavus_default`` to it: ``serve(seed)``."""
    from tavus_provider.sandbox import Sandbox

    with contextlib.ExitStack() as stack:

        def start(seed) -> Sandbox:
            running = stack.enter_context(Sandbox(seed, key=KEY))
            connect(running.url, extra={"timeout": 60})
            return running

        yield start


class Ran:
    """A finished run: its ``state``, the ``states`` of its tasks, and what they pushed."""

    def __init__(self, run) -> None:
        self.run_id = run.run_id
        self.state = str(run.state)
        self.instances = {(ti.task_id, ti.map_index): ti for ti in run.get_task_instances()}
        self.states = {
            task_id if at < 0 else (task_id, at): str(ti.state)
            for (task_id, at), ti in self.instances.items()
        }

    def pull(self, task_id: str, key: str = "return_value", at: int = -1):
        return self.instances[task_id, at].xcom_pull(task_ids=task_id, key=key, map_indexes=at)


@pytest.fixture(scope="session")
def airflow_db():
    """Airflow's tables, once for all runs: ``dag.test`` writes there. The folders whose DAGs it knows."""
    from airflow import settings
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.db import initdb

    assert str(HOME) in settings.SQL_ALCHEMY_CONN, "airflow was imported before this file: not our database"
    initdb()
    DagBundlesManager().sync_bundles_to_db()
    return set()


@pytest.fixture
def run_dag(airflow_db):
    """Run a DAG of a folder for real, in this process: ``run_dag(dag_id, conf, folder=..., ...)``."""

    def run(dag_id: str, conf=None, *, folder: Path = ROOT / "dags", **kwargs) -> Ran:
        try:
            from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        except ImportError:  # before 3.2
            from airflow.models.dagbag import DagBag, sync_bag_to_db

        where = {"bundle_path": folder, "bundle_name": "dags-folder"}
        known = inspect.signature(DagBag.__init__).parameters
        known_to_airflow = airflow_db
        bag = DagBag(folder, **{name: value for name, value in where.items() if name in known})
        assert not bag.import_errors
        if folder not in known_to_airflow:
            sync_bag_to_db(bag, "dags-folder", None)
            known_to_airflow.add(folder)
        return Ran(bag.dags[dag_id].test(run_conf=conf, **kwargs))

    return run
