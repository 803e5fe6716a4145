"""An Airflow of its own, in an empty folder, and a Tavus of its own on loopback for each test."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import shutil
import ssl
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from faults.server import RawServer

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


NEEDS = {
    "server": {"sandbox", "serve", "raw_server", "tavus", "chat"},
    "airflow_db": {"airflow_db"},
    "process": {"airflow", "wheel"},
}
"""The fixtures that give a test a marker. Folders and modules are in ``FILES``."""
FILES = {
    "server": ("tests/sandbox/", "tests/faults/"),
    "process": ("tests/test_crash.py", "tests/test_kill.py", "tests/test_wheel.py", "tests/test_airflow.py"),
}
STARTS_PROCESSES = {"subprocess", "multiprocessing", "Popen", "run_python"}
"""Names whose use in the code of a test means that it starts a process."""


def pytest_collection_modifyitems(items) -> None:
    """Mark what a test needs, so that ``make quick`` can leave it out."""
    for item in items:
        file = item.path.relative_to(ROOT).as_posix()
        for marker, fixtures in NEEDS.items():
            if fixtures & set(item.fixturenames) or file.startswith(FILES.get(marker, ())):
                item.add_marker(marker)
        if STARTS_PROCESSES & set(item.function.__code__.co_names):
            item.add_marker("process")


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

    def sleep(self, seconds: float, stop: threading.Event | None = None) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return stop is not None and stop.is_set()


@pytest.fixture
def clock(monkeypatch):
    """Let every rate limiter of the process wait on a clock that the test can read."""
    from tavus_provider.client import rate_limiter

    clock = Clock()
    real = rate_limiter.RateLimiter
    monkeypatch.setattr(rate_limiter, "_shared", {})
    monkeypatch.setattr(rate_limiter, "RateLimiter", lambda: real(sleep=clock.sleep, clock=clock))
    return clock


@pytest.fixture
def hook(sandbox, clock):
    """A hook on the sandbox whose waits take no time."""
    from tavus_provider.hooks.tavus import TavusHook

    with TavusHook() as made:
        yield made


@pytest.fixture
def raw_server():
    """Start raw servers: ``raw_server(talk, tls=None, deaf=False)``."""
    with contextlib.ExitStack() as stack:

        def start(talk, tls=None, **options) -> RawServer:
            server = RawServer(talk, tls, **options)
            stack.callback(server.close)
            return server

        yield start


class Certificates:
    """Certificates for 127.0.0.1: ``good``, ``self-signed``, ``wrong name`` and ``expired``."""

    def __init__(self, folder: Path) -> None:
        now = datetime.now(UTC)
        ours, theirs = trustme.CA(), trustme.CA()
        self._made = {
            "good": ours.issue_cert("127.0.0.1"),
            "self-signed": theirs.issue_cert("127.0.0.1"),
            "wrong name": ours.issue_cert("127.0.0.2"),
            "expired": ours.issue_cert(
                "127.0.0.1", not_before=now - timedelta(9), not_after=now - timedelta(1)
            ),
        }
        self.trusted = str(folder / "trusted.pem")
        ours.cert_pem.write_to_path(self.trusted)

    def server(self, which: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._made[which].configure_cert(context)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """Certificates and the path of the bundle that trusts them: ``certificates.server("good")``."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


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


class Ti:
    """A task instance with XComs in a dictionary, and the asset events that its task adds."""

    def __init__(self, task_id: str, *, try_number: int = 1, run_id: str = "manual__1") -> None:
        self.task_id = task_id
        self.try_number = try_number
        self.dag_id = "dag"
        self.run_id = run_id
        self.map_index = -1
        self.pushed: dict[str, object] = {}
        self.events: list[dict[str, object]] = []

    def xcom_push(self, key, value):
        self.pushed[key] = json.loads(json.dumps(value))

    def __getitem__(self, alias):
        return self

    def add(self, asset, extra):
        self.events.append({"asset": asset.name, **json.loads(json.dumps(extra))})


@pytest.fixture
def run_task():
    """
    Execute an operator as Airflow would: ``run_task(operator, try_number=1, run_id="manual__1")``.

    Returns its task instance; ``error`` is what it failed with, or ``None``.
    """

    def run(operator, **of) -> Ti:
        ti = Ti(operator.task_id, **of)
        ti.error = None
        try:
            done = operator.execute({"ti": ti, "task_instance": ti, "task": operator, "outlet_events": ti})
            ti.xcom_push("return_value", done)
        except Exception as error:  # noqa: BLE001  # what it fails with is for the test to judge
            ti.error = error
        return ti

    return run


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
    from airflow.sdk.execution_time import supervisor
    from airflow.utils.db import initdb

    assert str(HOME) in settings.SQL_ALCHEMY_CONN, "airflow was imported before this file: not our database"
    initdb()
    DagBundlesManager().sync_bundles_to_db()
    # As later versions do: Airflow 3.1 would build its API anew for each task, in two seconds.
    supervisor.in_process_api_server = functools.lru_cache(maxsize=1)(supervisor.in_process_api_server)
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
