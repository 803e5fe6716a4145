"""The operators as tasks: how the tests create them, and how they execute them as Airflow does."""

from __future__ import annotations

import copy
import json

from tavus_provider.digest import digest_of
from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    DeleteReplicaOperator,
    LookUpReplicaOperator,
    PlanRetentionOperator,
    SplitRetentionOperator,
    SummarizeRetentionOperator,
)

KEY = "sandbox-key-8f2b6c91"
OLD = "r1a0c5e8f3b2"
"""A replica of the built-in seed that ``POLICY`` deletes."""
EXPIRED = {"r1a0c5e8f3b2", "r2b9d41c07ae", "r3f6a2e9d815", "r4c81b7f0d3e", "r5e27d9a6c40", "r6d3b8f1e5a7"}
"""All replicas of the built-in seed that ``POLICY`` deletes."""
POLICY = {"expire": [{"rule": "old", "older_than": "90d"}]}


class Ti:
    """A task instance with its XComs in a dictionary."""

    def __init__(self, try_number: int = 1, run_id: str = "manual__1", map_index: int = -1) -> None:
        self.try_number = try_number
        self.dag_id = "dag"
        self.run_id = run_id
        self.map_index = map_index
        self.id = "0197-ti"
        self.task_id = "task"
        self.pushed: dict[str, object] = {}

    def xcom_push(self, key, value):
        self.pushed[key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids=None, key="return_value", **kwargs):
        assert task_ids == self.task_id
        return self.pushed.get(key)

    def get_previous_dagrun(self):
        return None


def run(operator, ti=None, **context):
    """Execute an operator, and return what it returns."""
    ti = ti or Ti()
    ti.task_id = operator.task_id
    return operator.execute({"ti": ti, "task_instance": ti, "task": operator} | context)


def delete(replica_id=OLD, **arguments):
    return DeleteReplicaOperator(task_id="delete", replica_id=replica_id, **arguments)


def look_up(replica_id=OLD, **arguments):
    return LookUpReplicaOperator(task_id="look", replica_id=replica_id, **arguments)


def plan_task(policy=POLICY, **arguments):
    return PlanRetentionOperator(task_id="plan", policy=policy, **arguments)


def apply_task(plan, **arguments):
    return ApplyRetentionOperator(task_id="apply", plan=plan, **arguments)


def planned(**arguments):
    """Run a plan task, and return its XCom as another task gets it."""
    return json.loads(json.dumps(run(plan_task(**arguments))))


def with_digest(plan, **changes):
    """Return a changed copy of a plan with the digest of its content."""
    changed = copy.deepcopy(plan) | changes
    return changed | {"digest": digest_of(changed)}


def split(plan, batch_size):
    mappings = run(SplitRetentionOperator(task_id="split", plan=plan, batch_size=batch_size))
    return [mapping["batch"] for mapping in json.loads(json.dumps(mappings))]


def apply_batch(plan, batch, ti=None, **arguments):
    return run(apply_task(plan, batch=batch, **arguments), ti or Ti(map_index=batch["number"] - 1))


def summarize(plan, reports, ti=None):
    return run(SummarizeRetentionOperator(task_id="summary", plan=plan, reports=reports), ti)


def requests(sandbox, method=None):
    """Return the requests that a sandbox received, such as ``DELETE /v2/replicas/r1``."""
    rows = sandbox.state()["requests"]
    return [f"{row['method']} {row['path']}" for row in rows if method in (None, row["method"])]
