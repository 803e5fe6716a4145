"""
Every order of events around a plan: faults, crashes at any step, changes by others, other runs, retries.

Hypothesis searches for an order that breaks a promise. The state of the sandbox is the reference.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tavus_provider.exceptions import PlanRejectedError, TavusError
from tavus_provider.execution.executor import PlanExecutor
from tavus_provider.execution.inventory import read_inventory
from tavus_provider.execution.revalidation import MIN_MISSING
from tavus_provider.outcomes import ORDER, UNFINISHED
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.plan import make_plan
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.storage.history import read_history
from tavus_provider.storage.ledger import Ledger, job_name
from tavus_provider.storage.ledger_verify import compare_report, verify

POLICY = Policy.parse(
    {
        "name": "stale",
        "expire": [{"rule": "old", "older_than": "90d"}],
        "limits": {"max_deletions": 100, "max_deletion_percent": 100},
    }
)
ABSENT = ("deleted", "confirmed", "already_gone")
IDS = [f"old{n}" for n in range(6)]
FAULTS = [
    {"method": "DELETE", "close": True},
    {"method": "DELETE", "close": True, "when": "after"},
    {"method": "DELETE", "status": 500},
    {"method": "DELETE", "status": 502, "when": "after"},
    {"method": "DELETE", "status": 202},
    {"method": "DELETE", "status": 200, "html": True},
    {"method": "DELETE", "status": 200, "html": True, "when": "after"},
    {"method": "DELETE", "status": 429, "retry_after": "1"},
    {"method": "DELETE", "status": 409},
    {"method": "DELETE", "status": 403},
    {"method": "GET", "path": "/v2/replicas/", "status": 500},
    {"method": "GET", "path": "/v2/replicas/", "status": 403},
    {"method": "GET", "path": "/v2/replicas", "status": 503},
    {"method": "GET", "path": "/v2/replicas", "status": 200, "body": '{"data": []}'},
    {"method": "GET", "path": "/v2/videos", "close": True},
]


CALLS = (
    *("list_replicas", "list_personas", "get_conversations_page", "list_conversations", "list_videos"),
    "list_items",
    *("get_replica", "delete_replica"),
)


class Killed(BaseException):
    """Stands for SIGKILL: no code after it runs, except cleanup in this process."""


class Fuse:
    """Raise :class:`Killed` after a number of steps, and at every later step."""

    def __init__(self, steps) -> None:
        self.left = steps
        self._lock = threading.Lock()

    def step(self, act):
        with self._lock:
            if self.left == 0:
                raise Killed
            self.left -= 1
            last = self.left == 0
        done = act()
        if last:
            raise Killed  # the step had its effect, but its result is lost
        return done


class Crashing:
    """An attempt writer whose writes are steps of a fuse."""

    def __init__(self, entry, fuse) -> None:
        self.entry, self.fuse, self.name = entry, fuse, entry.name

    @property
    def last_digest(self):
        return self.entry.last_digest

    def write(self, kind, **fields):
        self.fuse.step(lambda: self.entry.write(kind, **fields))

    def close(self, **fields):
        self.fuse.step(lambda: self.entry.close(**fields))


class Run:
    """One DAG run: the number of its attempts, and the replicas that its reports claim to have deleted."""

    def __init__(self, name) -> None:
        self.name = name
        self.attempts = 0
        self.claims: set[str] = set()


class AnyOrder(RuleBasedStateMachine):
    """Plan, execute, crash and execute again in any order."""

    @initialize(
        hard=st.booleans(), listed=st.sampled_from(["hidden", "listed"]), concurrency=st.sampled_from([1, 3])
    )
    def begin(self, hard, listed, concurrency):
        self.folder = self.place()
        self.sandbox.reset()
        self.sandbox.switch(soft_deleted=listed, faults=[])
        self.hard, self.concurrency = hard, concurrency
        self.plan = None
        self.runs = [Run("one"), Run("two")]
        self.others: set[str] = set()
        self.created = 0
        self.report = None
        self.ledger = Ledger(self.hook.origin, "tavus_default", self.folder)

    # events outside the package

    @rule(age=st.sampled_from(["1d", "400d"]))
    def another_user_creates_a_replica(self, age):
        self.created += 1
        row = {"replica_id": f"other{self.created}", "replica_name": f"other {self.created}", "age": age}
        self.sandbox.put("replicas", row)

    @rule(replica_id=st.sampled_from(IDS))
    def another_user_deletes_a_replica(self, replica_id):
        if self.server[replica_id] is None:
            self.sandbox.put("replicas", {"replica_id": replica_id, "deleted": "hard"})
            self.others.add(replica_id)

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=3), times=st.sampled_from([1, 2, None]))
    def the_api_has_faults(self, faults, times):
        self.sandbox.switch(faults=[fault | {"times": times} for fault in faults])

    # actions of the package

    @precondition(lambda self: self.plan is None)
    @rule()
    def make_the_plan(self):
        try:
            inventory = read_inventory(self.hook, POLICY, now=now, history=self.history)
        except TavusError:
            return
        self.plan = make_plan(
            evaluate(POLICY, inventory, now=inventory.read_at, hard=self.hard),
            POLICY,
            now=now(),
            hard=self.hard,
            tavus_conn_id="tavus_default",
            origin=self.hook.origin,
        )
        self.planned = {row["replica_id"] for row in self.plan["delete"]}

    @precondition(lambda self: self.plan is not None)
    @rule(which=st.sampled_from([0, 0, 1]))
    def execute(self, which):
        self.attempt(self.runs[which])

    @precondition(lambda self: self.plan is not None)
    @rule(which=st.sampled_from([0, 0, 1]), steps=st.integers(0, 25), torn=st.booleans())
    def execute_and_crash(self, which, steps, torn):
        self.attempt(self.runs[which], fuse=Fuse(steps), torn=torn)

    @precondition(lambda self: self.plan is not None)
    @rule()
    def execute_two_runs_at_once(self):
        with ThreadPoolExecutor(2) as pool:
            for ended in [pool.submit(self.attempt, run) for run in self.runs]:
                ended.result()

    @precondition(lambda self: self.plan is not None)
    @rule()
    def execute_without_faults(self):
        self.sandbox.switch(faults=[])
        run = self.runs[0]
        error, report = self.attempt(run)
        if isinstance(error, PlanRejectedError):  # others deleted most of the plan before any run began
            gone = self.others & self.planned
            assert len(gone) >= MIN_MISSING or gone == self.planned
            assert not run.claims
            return
        assert error is None
        assert not [item for item in report["items"] if item["outcome"] in UNFINISHED], report
        assert all(self.server[replica_id] is not None for replica_id in self.planned)
        attempts, findings = verify(self.folder)
        assert attempts[-1].is_closed
        assert not [finding for finding in findings if attempts[-1].name in finding]
        inventory = read_inventory(self.hook, POLICY, now=now, history=self.history)
        again = {
            verdict.replica.replica_id
            for verdict in evaluate(POLICY, inventory, now=inventory.read_at, hard=self.hard).delete
        }
        assert not again & self.planned & self.listed or self.hard

    # promises

    @invariant()
    def only_planned_replicas_are_deleted(self):
        if getattr(self, "plan", None) is None:
            return
        requested = {r["path"].rsplit("/", 1)[1] for r in self.requests if r["method"] == "DELETE"}
        assert requested <= self.planned
        effects = [row["replica_id"] for row in self.sandbox.state()["deletes"]]
        assert len(effects) == len(set(effects))

    # details

    @property
    def requests(self):
        return self.sandbox.state()["requests"]

    @property
    def server(self):
        """Return how each replica was deleted according to the server: ``soft``, ``hard`` or ``None``."""
        return {row["replica_id"]: row["deleted"] for row in self.sandbox.state()["replicas"]}

    @property
    def listed(self):
        return {replica.replica_id for replica in self.hook.list_replicas()}

    def history(self, at):
        return read_history(self.ledger, POLICY)

    def attempt(self, run, fuse=None, torn=False):
        run.attempts += 1
        job = job_name("plan", self.plan["digest"])
        task = {"dag_id": "dag", "run_id": run.name, "task_id": "apply", "map_index": -1}

        def read_prior():
            return PriorAttempts.from_ledger(
                self.ledger.attempts(job),
                task=task,
                replica_ids=self.planned,
                batch=None,
                retried=run.attempts > 1,
            )

        prior = read_prior()
        fuse = fuse or Fuse(-1)

        def begin(**fields):
            fields |= {**task, "hard": self.hard, "prior_attempts": prior.last_digests}
            return Crashing(fuse.step(lambda: self.ledger.begin_attempt(job, **fields)), fuse)

        def step(name):
            real = getattr(self.hook, name)
            return lambda *positional, **named: fuse.step(lambda: real(*positional, **named))

        client = SimpleNamespace(
            clock_skew=None, stop=lambda: None, wait=self.hook.wait, **{name: step(name) for name in CALLS}
        )
        executor = PlanExecutor(
            self.plan,
            client,
            concurrency=self.concurrency,
            now=now,
            log=lambda line: None,
            begin=begin,
            history=self.history,
            prior=prior,
            reread_prior=read_prior,
        )
        error = None
        try:
            executor.run()
        except (TavusError, Killed) as caught:
            error = caught
        report = executor.report()
        self.sandbox.wait_until_idle()
        self.judge(run, report)
        if not isinstance(error, Killed):
            try:
                executor.close()
            except Killed:
                return error, report
            if report["ledger"]:
                assert compare_report(verify(self.folder)[0], report) == []
        elif torn and executor.writer is not None:
            tear(executor.writer.entry)
        return error, report

    def judge(self, run, report):
        items = {item["replica_id"]: item for item in report["items"]}
        assert [item["replica_id"] for item in report["items"]] == [
            r["replica_id"] for r in self.plan["delete"]
        ]
        assert sum(report["counts"].values()) == len(self.planned)
        assert set(report["counts"]) == set(ORDER)
        server, ours = self.server, {row["replica_id"] for row in self.sandbox.state()["deletes"]}
        for replica_id, item in items.items():
            if item["outcome"] in ABSENT:
                assert server[replica_id] is not None, item
            if item["outcome"] == "already_gone" and run.attempts > 1 and replica_id in ours:
                assert "by an earlier attempt" in item["detail"], item
            if item["outcome"] == "deleted":
                run.claims.add(replica_id)
        # "confirmed" does not say who deleted it, so only a response is a claim.
        assert not self.runs[0].claims & self.runs[1].claims
        assert not run.claims & (self.others - ours)


def now():
    return datetime.now(UTC)


def tear(entry):
    """Truncate the last record, as if the process was killed while it wrote it."""
    paths = sorted(entry.folder.iterdir(), key=lambda path: path.name)
    paths[-1].write_bytes(paths[-1].read_bytes()[:-20])


def test_promises_hold_in_every_order_of_events(serve, clock, tmp_path):
    from airflow.sdk import ObjectStoragePath

    from tavus_provider.hooks.tavus import TavusHook

    rows = [{"replica_id": i, "replica_name": f"name of {i}", "age": "200d"} for i in IDS]
    rows += [{"replica_id": f"new{n}", "replica_name": f"new {n}", "age": "5d"} for n in range(3)]
    count = iter(range(10**9))
    with TavusHook() as hook:
        AnyOrder.sandbox = serve({"replicas": rows})
        AnyOrder.hook = hook
        AnyOrder.place = lambda self: ObjectStoragePath(str(tmp_path / str(next(count))))
        AnyOrder.TestCase.settings = SETTINGS
        AnyOrder.TestCase().runTest()


SETTINGS = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
