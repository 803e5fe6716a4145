"""Fixtures: an Airflow in an empty folder for the session, and a Tavus sandbox on loopback for each test."""

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

# Airflow reads these while it is imported, so they must be set before the first import of it.
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
"""Long enough for Airflow to mask it, and unlike any other text, so that a search finds a leak."""


def pytest_configure(config) -> None:
    # Not in setup.cfg: pytest would import the class of the filter, and so Airflow, before this file.
    # The class is a FutureWarning, attributed to the module that imports something deprecated.
    kind = "airflow.utils.deprecation_tools.DeprecatedImportWarning"
    config.addinivalue_line("filterwarnings", f"error::{kind}:tavus_provider")


NEEDS = {
    "server": {"sandbox", "serve", "raw_server", "tavus", "chat"},
    "airflow_db": {"airflow_db"},
    "process": {"airflow", "wheel"},
    "slow": set(),
}
"""The fixtures that give a test a marker. Folders and modules are in ``FILES``."""
FILES = {
    "server": ("tests/sandbox/", "tests/faults/"),
    "slow": (
        "tests/client/test_pagination_model.py",
        "tests/test_erasure_laws.py",
        "tests/storage/test_year.py",
    ),
    "process": (
        "tests/test_crash.py",
        "tests/test_kill.py",
        "tests/test_try_it.py",
        "tests/test_wheel.py",
        "tests/test_airflow.py",
        "tests/test_airflow_roles.py",
        "tests/test_page.py",
        "tests/test_page_airflow.py",
        "tests/test_erasure_airflow.py",
    ),
}
STARTS_PROCESSES = {"subprocess", "multiprocessing", "Popen", "process", "writer_process"}
"""Modules and helper functions whose use in the code of a test means that it starts a process."""


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
    Define the Airflow connection ``tavus_default`` and allow its origin: ``connect(url, **fields)``.

    The ledger is in ``tmp_path / "ledger"``, so each test has its own.
    """
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "ledger"))

    def define(host: str, *, password: str | None = KEY, conn_id: str = "tavus_default", **fields: object):
        value = {"conn_type": "tavus", "host": host, "password": password, **fields}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))
        monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", f"https://tavusapi.com,{host}")

    return define


@pytest.fixture
def sandbox(connect):
    """A sandbox with the built-in seed, and the connection ``tavus_default`` to it."""
    from tavus_provider.sandbox import Sandbox

    with Sandbox(key=KEY) as running:
        connect(running.url, extra={"timeout": 5})
        yield running


class Clock:
    """A clock that only ``sleep`` advances, and that records the waits."""

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
    """Let every rate limiter of the process use a clock that the test can read."""
    from tavus_provider.client import rate_limiter

    clock = Clock()
    real = rate_limiter.RateLimiter
    monkeypatch.setattr(rate_limiter, "_shared", {})
    monkeypatch.setattr(rate_limiter, "RateLimiter", lambda: real(sleep=clock.sleep, clock=clock))
    return clock


@pytest.fixture
def hook(sandbox, clock):
    """A hook for the sandbox whose waits take no time."""
    from tavus_provider.hooks.tavus import TavusHook

    with TavusHook() as made:
        yield made


@pytest.fixture
def raw_server():
    """Start raw servers: ``raw_server(respond, tls=None, listening=True)``."""
    with contextlib.ExitStack() as stack:

        def start(respond, tls=None, **options) -> RawServer:
            server = RawServer(respond, tls, **options)
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
    """Certificates for servers (``certificates.server("good")``) and a CA bundle (``.trusted``)."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def serve(connect):
    """Start a sandbox with a seed, and the connection ``tavus_default`` to it: ``serve(seed)``."""
    from tavus_provider.sandbox import Sandbox

    with contextlib.ExitStack() as stack:

        def start(seed) -> Sandbox:
            running = stack.enter_context(Sandbox(seed, key=KEY))
            connect(running.url, extra={"timeout": 60})
            return running

        yield start


class Ti:
    """A task instance that records the XComs and asset events of its task."""

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

    def xcom_pull(self, **kwargs):
        """Return nothing: there is no run before."""

    def get_previous_dagrun(self):
        return None

    def __getitem__(self, alias):
        return self

    def add(self, asset, extra):
        self.events.append({"asset": asset.name, **json.loads(json.dumps(extra))})


@pytest.fixture
def run_task():
    """
    Execute an operator as Airflow does: ``run_task(operator, try_number=1, run_id="manual__1")``.

    Returns the task instance. Its ``error`` is the exception that the operator raised, or ``None``.
    """

    def run(operator, **identity) -> Ti:
        ti = Ti(operator.task_id, **identity)
        ti.error = None
        try:
            done = operator.execute({"ti": ti, "task_instance": ti, "task": operator, "outlet_events": ti})
            ti.xcom_push("return_value", done)
        except Exception as error:  # noqa: BLE001  # the test checks it
            ti.error = error
        return ti

    return run


class FinishedRun:
    """The ``state`` of a DAG run, the ``states`` of its tasks, and their XComs."""

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
    """Create Airflow's database, which ``dag.test`` needs. Returns the set of folders whose DAGs it has."""
    from airflow import settings
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.sdk.execution_time import supervisor
    from airflow.utils.db import initdb

    assert str(HOME) in settings.SQL_ALCHEMY_CONN, (
        "airflow was imported before this file and uses another database"
    )
    initdb()
    DagBundlesManager().sync_bundles_to_db()
    # Airflow 3.1 builds its API again for each task, which takes two seconds. Later versions cache it too.
    supervisor.in_process_api_server = functools.lru_cache(maxsize=1)(supervisor.in_process_api_server)
    return set()


@pytest.fixture
def run_dag(airflow_db):
    """Run a DAG of a folder in this process: ``run_dag(dag_id, conf, folder=..., ...)``."""

    def run(dag_id: str, conf=None, *, folder: Path = ROOT / "dags", **kwargs) -> FinishedRun:
        try:
            from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        except ImportError:  # before 3.2
            from airflow.models.dagbag import DagBag, sync_bag_to_db

        options = {"bundle_path": folder, "bundle_name": "dags-folder"}
        supported = inspect.signature(DagBag.__init__).parameters
        bag = DagBag(folder, **{name: value for name, value in options.items() if name in supported})
        assert not bag.import_errors
        if folder not in airflow_db:
            sync_bag_to_db(bag, "dags-folder", None)
            airflow_db.add(folder)
        return FinishedRun(bag.dags[dag_id].test(run_conf=conf, **kwargs))

    return run


@pytest.fixture(scope="module")
def start_airflow(tmp_path_factory):
    """Start Airflow for the tests of a module: ``start_airflow(dags, settings=..., users=...)``."""
    from airflow_server import Airflow

    with contextlib.ExitStack() as stack:

        def start(dags: Path, **options) -> Airflow:
            running = Airflow(tmp_path_factory.mktemp("airflow"), dags, **options)
            stack.callback(running.stop)
            return running

        yield start


@pytest.fixture(scope="session")
def chromium():
    """A browser of Playwright."""
    from browser import ARGS, CHROMIUM
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)


@pytest.fixture
def sign_in(chromium, airflow):
    """
    Open the Airflow of the module's fixture ``airflow`` as a user: ``sign_in(user, scheme, width=...)``.

    Fails if a dialog opens or a script fails.
    """
    from browser import Browser

    browser = Browser(chromium, airflow.url)
    yield browser.sign_in
    browser.close()
    assert browser.errors == []


@pytest.fixture(scope="module")
def airflow_stand_in():
    """The stand-in for Airflow's REST API, for the Tavus page."""
    from fake_airflow import FakeAirflow

    with FakeAirflow().serve() as running:
        yield running


@pytest.fixture
def fake(airflow_stand_in):
    """The stand-in, without runs."""
    airflow_stand_in.reset()
    return airflow_stand_in


@pytest.fixture
def open_page(chromium, fake):
    """Open the page in the frame of Airflow: ``open_page(scheme, width)``. Fail if a script fails."""
    from browser import WIDTHS

    errors: list[str] = []
    contexts = []

    def open_one(scheme: str = "light", width: int = 1280, *, path: str = "/plugin/tavus", **options):
        viewport = {"width": width, "height": WIDTHS[width]}
        context = chromium.new_context(viewport=viewport, color_scheme=scheme, **options)
        contexts.append(context)
        nav = "0" if width < 500 else "64"
        for name, value in (("theme", scheme), ("nav", nav)):
            context.add_cookies([{"name": name, "value": value, "url": fake.url}])
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{fake.url}{path}")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert errors == []
