"""
Any order of what can happen to a plan: faults, crashes at any step, other people, other runs, another try.

Hypothesis looks for the order that breaks what is promised; the sandbox's own state is the judge.
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
from tavus_provider.execution.executor import MANY, OUTCOMES, RED, Application, read_account
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
GONE = ("deleted", "confirmed", "already_gone")
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
    *("list_replicas", "list_personas", "list_conversations", "list_videos"),
    *("get_replica", "delete_replica"),
)


class Killed(BaseException):
    """What a SIGKILL is to the code that it stops: nothing after it runs."""


class Fuse:
    """Goes off at the k-th step, before or after it, and at every step after that: the process is dead."""

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
            raise Killed  # it was done, and nobody heard of it
        return done


class Crashing:
    """A ``Record`` whose writes are steps."""

    def __init__(self, entry, fuse) -> None:
        self.entry, self.fuse, self.name = entry, fuse, entry.name

    def write(self, kind, **fields):
        self.fuse.step(lambda: self.entry.write(kind, **fields))

    def close(self, **fields):
        self.fuse.step(lambda: self.entry.close(**fields))


class Run:
    """One run of the DAG: its tries, and what their reports say."""

    def __init__(self, name) -> None:
        self.name = name
        self.tries = 0
        self.claims: set[str] = set()


class AnyOrder(RuleBasedStateMachine):
    """Plans, applies, crashes, applies again."""

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

    # what happens around it

    @rule(age=st.sampled_from(["1d", "400d"]))
    def somebody_creates_one(self, age):
        self.created += 1
        row = {"replica_id": f"other{self.created}", "replica_name": f"other {self.created}", "age": age}
        self.sandbox.put("replicas", row)

    @rule(replica_id=st.sampled_from(IDS))
    def somebody_deletes_one(self, replica_id):
        if self.server[replica_id] is None:
            self.sandbox.put("replicas", {"replica_id": replica_id, "deleted": "hard"})
            self.others.add(replica_id)

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=3), times=st.sampled_from([1, 2, None]))
    def something_goes_wrong(self, faults, times):
        self.sandbox.switch(faults=[fault | {"times": times} for fault in faults])

    # what we do

    @precondition(lambda self: self.plan is None)
    @rule()
    def plan_it(self):
        try:
            account = read_account(self.hook, POLICY, now=now, history=self.history)
        except TavusError:
            return
        self.plan = make_plan(
            evaluate(POLICY, account, now=account.read_at, hard=self.hard),
            POLICY,
            now=now(),
            hard=self.hard,
            tavus_conn_id="tavus_default",
            origin=self.hook.origin,
        )
        self.planned = {row["replica_id"] for row in self.plan["delete"]}

    @precondition(lambda self: self.plan is not None)
    @rule(which=st.sampled_from([0, 0, 1]))
    def apply_it(self, which):
        self.try_once(self.runs[which])

    @precondition(lambda self: self.plan is not None)
    @rule(which=st.sampled_from([0, 0, 1]), steps=st.integers(0, 25), torn=st.booleans())
    def apply_it_and_crash(self, which, steps, torn):
        self.try_once(self.runs[which], fuse=Fuse(steps), torn=torn)

    @precondition(lambda self: self.plan is not None)
    @rule()
    def apply_it_twice_at_once(self):
        with ThreadPoolExecutor(2) as pool:
            for ended in [pool.submit(self.try_once, run) for run in self.runs]:
                ended.result()

    @precondition(lambda self: self.plan is not None)
    @rule()
    def all_is_well_and_it_is_applied_again(self):
        self.sandbox.switch(faults=[])
        run = self.runs[0]
        error, report = self.try_once(run)
        if isinstance(error, PlanRejectedError):  # others deleted most of it before anybody had begun
            assert len(self.others & self.planned) >= MANY
            assert not run.claims
            return
        assert error is None
        assert not [item for item in report["items"] if item["outcome"] in RED], report
        assert all(self.server[replica_id] is not None for replica_id in self.planned)
        tries, findings = verify(self.folder)
        assert tries[-1].is_closed
        assert not [finding for finding in findings if tries[-1].name in finding]
        account = read_account(self.hook, POLICY, now=now, history=self.history)
        again = {
            verdict.replica.replica_id
            for verdict in evaluate(POLICY, account, now=account.read_at, hard=self.hard).delete
        }
        assert not again & self.planned & self.listed or self.hard

    # what is promised

    @invariant()
    def nothing_unplanned_is_deleted(self):
        if getattr(self, "plan", None) is None:
            return
        asked = {r["path"].rsplit("/", 1)[1] for r in self.requests if r["method"] == "DELETE"}
        assert asked <= self.planned
        effects = [row["replica_id"] for row in self.sandbox.state()["deletes"]]
        assert len(effects) == len(set(effects))

    # how

    @property
    def requests(self):
        return self.sandbox.state()["requests"]

    @property
    def server(self):
        """What became of each replica, as the server knows it."""
        return {row["replica_id"]: row["deleted"] for row in self.sandbox.state()["replicas"]}

    @property
    def listed(self):
        return {replica.replica_id for replica in self.hook.list_replicas()}

    def history(self, at):
        return read_history(self.ledger, POLICY)

    def try_once(self, run, fuse=None, torn=False):
        run.tries += 1
        work = job_name("plan", self.plan["digest"])
        tries = [one for one in self.ledger.attempts(work) if "intent" in one.begin_record]
        earlier: dict[str, str | None] = {}
        for one in tries:
            if one.begin_record["run_id"] == run.name:
                earlier |= dict.fromkeys(one.intended - earlier.keys()) | one.outcomes
        fuse = fuse or Fuse(-1)

        def begin(**fields):
            named = {one.name: one.last_digest for one in tries}
            more = {"run_id": run.name, "hard": self.hard, "prior_attempts": named, **fields}
            return Crashing(fuse.step(lambda: self.ledger.begin_attempt(work, **more)), fuse)

        def step(name):
            real = getattr(self.hook, name)
            return lambda *given, **more: fuse.step(lambda: real(*given, **more))

        tavus = SimpleNamespace(clock_skew=None, **{name: step(name) for name in CALLS})
        application = Application(
            self.plan,
            tavus,
            concurrency=self.concurrency,
            now=now,
            log=lambda line: None,
            begin=begin,
            history=self.history,
            earlier=earlier,
            earlier_tries=run.tries > 1,
            begun_before=bool(tries),
        )
        error = None
        try:
            application.run()
        except (TavusError, Killed) as caught:
            error = caught
        report = application.report()
        self.judge(run, report)
        if not isinstance(error, Killed):
            try:
                application.close()
            except Killed:
                return error, report
            if report["ledger"]:
                assert compare_report(verify(self.folder)[0], report) == []
        elif torn and application.record is not None:
            tear(application.record.entry)
        return error, report

    def judge(self, run, report):
        items = {item["replica_id"]: item for item in report["items"]}
        assert [item["replica_id"] for item in report["items"]] == [
            r["replica_id"] for r in self.plan["delete"]
        ]
        assert sum(report["counts"].values()) == len(self.planned)
        assert set(report["counts"]) == set(OUTCOMES)
        server, ours = self.server, {row["replica_id"] for row in self.sandbox.state()["deletes"]}
        for replica_id, item in items.items():
            if item["outcome"] in GONE:
                assert server[replica_id] is not None, item
            if item["outcome"] == "already_gone" and run.tries > 1 and replica_id in ours:
                assert "by an earlier attempt" in item["detail"], item
            if item["outcome"] == "deleted":
                run.claims.add(replica_id)
        # "confirmed" says that it is gone and not by whom, so only an answer is a claim.
        assert not self.runs[0].claims & self.runs[1].claims
        assert not run.claims & (self.others - ours)


def now():
    return datetime.now(UTC)


def tear(entry):
    """Leave half of the last record, as a process that is killed while it writes does."""
    paths = sorted(entry.folder.iterdir(), key=lambda path: path.name)
    paths[-1].write_bytes(paths[-1].read_bytes()[:-20])


def test_whatever_happens_in_whatever_order_what_is_promised_holds(serve, clock, tmp_path):
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
