"""
Attempts that are stopped at any moment, by SIGKILL or by a signal that they handle, and run again.

Each attempt is a process, forked from one that has imported everything. It is stopped when the sandbox has
received a given number of its requests. The state of the sandbox is read only after it has finished every
request of the stopped process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from plans import approve_plan

from tavus_provider.operators.tavus import PlanRetentionOperator
from tavus_provider.outcomes import ORDER
from tavus_provider.storage.ledger import ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

SIZE = 12
POLICY = {
    "name": "stale",
    "expire": [{"rule": "old", "older_than": "90d"}],
    "limits": {"max_deletions": 100, "max_deletion_percent": 100},
}

RUNNER = """
import json, os, signal, sys, traceback
from airflow.sdk.execution_time.timeout import timeout
from tavus_provider.execution import executor
from tavus_provider.planning import report
from tavus_provider.rendering import tables
from tavus_provider.storage import history as known
from tavus_provider.storage import ledger
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.operators.tavus import ApplyRetentionOperator

class Ti:
    def __init__(self, job):
        self.dag_id, self.task_id, self.map_index = "dag", "apply", -1
        self.run_id, self.try_number, self.place = job["run_id"], job["try_number"], job["report"]
    def xcom_push(self, key, value):
        if key == "return_value":
            with open(self.place, "w") as file:
                json.dump(value, file)

def run(job):
    os.environ.update(job["env"])
    plan, hard = job["plan"], job["plan"]["hard"]
    operator = ApplyRetentionOperator(task_id="apply", plan=plan, hard=hard,
        concurrency=job["concurrency"])
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())  # as the task runner of Airflow does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if job["signal_while_reading"]:
        read = TavusHook.list_personas
        def list_personas(hook):
            os.kill(os.getpid(), job["signal_while_reading"])
            return read(hook)
        TavusHook.list_personas = list_personas
    ti = Ti(job)
    with timeout(3600):  # as execution_timeout does: SIGALRM raises in the main thread
        operator.execute({"ti": ti, "task_instance": ti, "task": operator})

def warm_up():  # import what is imported late, so that no fork has to
    try:
        ledger.Ledger("x", "x").begin_attempt("x").close()
        job = {"env": {}, "plan": {"hard": False, "digest": ""}, "concurrency": 1, "run_id": "x",
               "signal_while_reading": 0}
        run(job | {"try_number": 1, "report": "x"})
    except BaseException:
        pass

warm_up()
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            run(job)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=open(job["report"] + ".error", "w"))
            code = 1
        os._exit(code)
    print(f"pid {pid}", flush=True)
    print(f"exit {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}", flush=True)
"""


class Runner:
    """Starts attempts as processes, one at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER],
            env=os.environ | {"AIRFLOW__TAVUS__LEDGER": f"{os.environ['AIRFLOW_HOME']}/warm"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.read("ready")

    def read(self, word):
        for line in iter(self.process.stdout.readline, ""):
            if line.split()[0:1] == [word]:
                return line.split()[1:]
        pytest.fail("the runner ended")

    def start(self, job) -> int:
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.read("pid")[0])

    def exit_code(self) -> int:
        return int(self.read("exit")[0])


@pytest.fixture(scope="module")
def runner():
    running = Runner()
    yield running
    running.process.kill()
    running.process.wait()


class Batch:
    """One plan of one sandbox, executed by processes that are stopped."""

    def __init__(self, sandbox, runner, run_task, folder, *, hard) -> None:
        self.sandbox, self.runner, self.folder, self.run_id = sandbox, runner, folder, str(folder)
        operator = PlanRetentionOperator(task_id="plan", policy=POLICY, hard=hard)
        ti = run_task(operator, run_id=str(folder))
        assert ti.error is None
        self.plan = ti.pushed["return_value"]
        if hard:
            approve_plan(self.plan, run_id=str(folder))
        self.planned = {row["replica_id"] for row in self.plan["delete"]}
        self.reads = self.seen  # an attempt reads the same lists before its first delete
        self.attempts = 0

    @property
    def seen(self) -> int:
        return len(self.sandbox.state()["requests"])

    def run(
        self, *, concurrency, stop_after=None, when=lambda: True, by=signal.SIGKILL, signal_while_reading=0
    ):
        """
        Run one more attempt and return its exit code.

        :param stop_after: send a signal when the sandbox has received this number of requests and ``when()``
        """
        self.attempts += 1
        self.report_file = self.folder / f"report-{self.attempts}"
        env = {name: value for name, value in os.environ.items() if name.startswith(("AIRFLOW", "no_"))}
        job = {"plan": self.plan, "env": env, "concurrency": concurrency, "run_id": self.run_id}
        job |= {"try_number": self.attempts, "report": str(self.report_file)}
        before = self.seen
        pid = self.runner.start(job | {"signal_while_reading": signal_while_reading})
        if stop_after is not None:
            until(lambda: self.seen >= before + stop_after and when())
            os.kill(pid, by)
        code = self.runner.exit_code()
        self.sandbox.wait_until_idle()
        return code

    @property
    def report(self):
        return json.loads(self.report_file.read_text())

    @property
    def error(self):
        return (self.folder / f"report-{self.attempts}.error").read_text()

    @property
    def outcomes(self):
        return {item["replica_id"]: item["outcome"] for item in self.report["items"]}

    def deletes(self):
        return [row["replica_id"] for row in self.sandbox.state()["deletes"]]

    def check_truth(self):
        """Check what holds for every report and the ledger, whatever happened."""
        report, deleted = self.report, self.deletes()
        assert [item["replica_id"] for item in report["items"]] == [
            r["replica_id"] for r in self.plan["delete"]
        ]
        assert sum(report["counts"].values()) == len(self.planned)
        assert set(report["counts"]) == set(ORDER)
        assert set(deleted) <= self.planned
        assert max(Counter(deleted).values(), default=1) == 1
        for item in report["items"]:
            if item["outcome"] in ("deleted", "confirmed", "already_gone"):
                assert item["replica_id"] in deleted
            if item["outcome"] == "not_attempted":
                assert item["replica_id"] not in deleted
            if item["outcome"] == "already_gone":  # only attempts of this task delete here
                assert "possibly deleted by an earlier attempt of this task" in item["detail"]
        assert compare_report(verify(ledger_root())[0], report) == []


def applied():
    """Return the attempts that were about to delete, without the record of the plan."""
    return [attempt for attempt in verify(ledger_root())[0] if attempt.intended]


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def batch(serve, clock, runner, run_task, tmp_path):
    def start(size=SIZE, *, hard=False, **switches):
        rows = [{"replica_id": f"old{n:02}", "replica_name": f"old {n}", "age": "200d"} for n in range(size)]
        rows += [{"replica_id": f"new{n}", "replica_name": f"new {n}", "age": "5d"} for n in range(3)]
        sandbox = serve({"replicas": rows})
        made = Batch(sandbox, runner, run_task, tmp_path, hard=hard)
        sandbox.switch(**switches)
        return made

    return start


# -- SIGKILL


@pytest.mark.parametrize("seed", range(15))
def test_attempt_killed_at_any_request_is_completed_by_the_next_one(batch, seed):
    chance = random.Random(seed)
    concurrency = (1, 4, 16)[seed % 3]
    hard = chance.random() < 0.5
    listed = chance.choice(["hidden", "listed"])
    running = batch(hard=hard, latency=0.002, soft_deleted=listed)
    reads = running.reads
    total = reads + (2 if hard else 1) * SIZE
    killed = []
    for _ in range(chance.choice([1, 1, 2, 3])):
        left = total - len(running.deletes()) * (2 if hard else 1)
        after = (
            chance.randint(1, reads)
            if chance.random() < 0.1
            else chance.randint(reads + 1, max(left, reads + 1))
        )
        code = running.run(concurrency=concurrency, stop_after=min(after, max(left, reads)))
        killed.append(code == -signal.SIGKILL)
    assert any(killed)
    before = set(running.deletes())
    assert running.run(concurrency=concurrency) == 0
    running.check_truth()
    assert set(running.deletes()) == running.planned
    assert {i for i, outcome in running.outcomes.items() if outcome == "deleted"} >= running.planned - before
    assert set(running.outcomes.values()) <= {"deleted", "confirmed", "already_gone"}
    attempts, findings = verify(ledger_root())
    assert attempts[-1].is_closed
    assert all("record" in finding and attempts[-1].name not in finding for finding in findings)
    count = running.seen
    assert running.run(concurrency=concurrency) == 0  # cleared again, it deletes nothing
    assert [r["method"] for r in running.sandbox.state()["requests"][count:]].count("DELETE") == 0
    running.check_truth()


def test_recorded_deletes_of_a_killed_attempt_stay_deleted_and_unrecorded_ones_are_already_gone(batch):
    running = batch(size=8, latency=0.0)
    # At old03 a second has passed, so the outcomes so far are recorded. old07 is deleted without a response.
    late = {"method": "DELETE", "path": "/v2/replicas/old03", "delay": 1.1}
    never = {"method": "DELETE", "path": "/v2/replicas/old07", "delay": 50, "when": "after"}
    running.sandbox.switch(faults=[late, never])
    code = running.run(
        concurrency=1,
        stop_after=running.reads + 8,
        when=lambda: any("old03" in attempt.outcomes for attempt in applied()),
    )
    assert code == -signal.SIGKILL
    until(lambda: set(running.deletes()) == running.planned)
    (killed,) = applied()
    recorded = set(killed.outcomes)
    assert running.run(concurrency=1) == 0
    running.check_truth()
    for item in running.report["items"]:
        expected = "deleted" if item["replica_id"] in recorded else "already_gone"
        assert item["outcome"] == expected
        assert "by an earlier attempt of this task" in item["detail"]
    assert {"old00", "old01", "old02", "old03"} <= recorded
    assert "old07" not in recorded


def test_two_processes_with_one_plan_succeed_and_each_replica_is_claimed_once(batch, tmp_path):
    running = batch(size=30, latency=0.002)
    other = Runner()
    try:
        second = Batch.__new__(Batch)
        second.__dict__ |= running.__dict__ | {"runner": other, "folder": tmp_path / "other"}
        second.folder.mkdir()
        codes = []
        threads = [
            threading.Thread(target=lambda one=one: codes.append(one.run(concurrency=4)))
            for one in (running, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        other.process.kill()
        other.process.wait()
    assert codes == [0, 0]
    assert Counter(running.deletes()) == Counter(running.planned)
    # The one that starts later may find what the other one recorded, and repeats it.
    claims = Counter(
        item["replica_id"]
        for one in (running, second)
        for item in one.report["items"]
        if item["outcome"] in ("deleted", "confirmed") and "by an earlier attempt" not in item["detail"]
    )
    assert claims == Counter(running.planned)
    assert verify(ledger_root())[1] == []


# -- signals that the task handles


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(
    ("by", "error"),
    [
        pytest.param(signal.SIGTERM, "TavusRetryableError", id="SIGTERM"),
        pytest.param(signal.SIGALRM, "AirflowTaskTimeout", id="execution_timeout"),
        pytest.param(signal.SIGINT, "KeyboardInterrupt", id="SIGINT"),
    ],
)
def test_stopped_task_starts_no_further_delete_and_pushes_a_correct_report(batch, by, error, concurrency):
    # If the signal comes late, the deletes in progress wait for it here.
    long = {"method": "DELETE", "path": "/v2/replicas/old[3-5]", "delay": 20, "times": concurrency}
    running = batch(size=60, latency=0.005, faults=[long])
    code = running.run(concurrency=concurrency, stop_after=running.reads + 6, by=by)
    assert code == 1
    assert running.error.startswith(error)
    running.check_truth()
    counts = running.report["counts"]
    assert counts["not_attempted"] >= 60 - 30 - concurrency
    assert counts["deleted"] + counts["unknown"] + counts["not_attempted"] == 60
    assert set(running.deletes()) == {i for i, o in running.outcomes.items() if o != "not_attempted"}
    assert verify(ledger_root())[1] == []
    running.sandbox.switch(faults=[])
    assert running.run(concurrency=concurrency) == 0
    running.check_truth()
    assert set(running.deletes()) == running.planned


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGALRM])
def test_task_stopped_while_it_reads_deletes_nothing(batch, by):
    running = batch()
    assert running.run(concurrency=4, signal_while_reading=by) == 1
    assert running.deletes() == []
    assert [r["method"] for r in running.sandbox.state()["requests"]].count("DELETE") == 0
    assert running.report["counts"]["not_attempted"] == SIZE
    assert running.run(concurrency=4) == 0
    assert set(running.deletes()) == running.planned
