"""A batch among faults: a plan carried out by its operator, one at a time and sixteen at once."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from faults.bench import AFTER, ALWAYS
from faults.judge import GONE, harm_done, lies_about_a_delete
from faults.kinds import BY_NAME, KINDS, Kind, ends
from faults.server import Misdeed

from tavus_provider.exceptions import TavusRetryableError
from tavus_provider.execution.executor import RED
from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

pytestmark = pytest.mark.cell

BATCH = [f"b{number:02}" for number in range(8)]
CONCURRENCY = pytest.mark.parametrize("concurrency", [1, 16])
POLICY = {
    "name": "old",
    "expire": [{"rule": "old", "older_than": "90d"}],
    "limits": {"max_deletions": 99, "max_deletion_percent": 100},
}


def each_at_once(kinds):
    """One test for each of these kinds, alone and sixteen at a time; who drips has time for one only."""
    cells = [(kind, many) for kind in ends(kinds) for many in ([1] if kind.timed else [1, 16])]
    ids = [f"{many}-{kind.name}" for kind, many in cells]
    return pytest.mark.parametrize(("kind", "concurrency"), cells, ids=ids)


class Ti:
    """A task instance that keeps what is pushed."""

    def __init__(self) -> None:
        self.try_number = 1
        self.pushed: dict[str, object] = {}

    def xcom_push(self, key, value):
        self.pushed[key] = json.loads(json.dumps(value))


def run(operator):
    """Execute an operator; return what it pushed and whether it was green."""
    ti = Ti()
    try:
        ti.xcom_push("return_value", operator.execute({"ti": ti, "task_instance": ti, "task": operator}))
    except (AirflowFailException, TavusRetryableError) as error:
        return ti.pushed.get("return_value"), str(error)
    return ti.pushed["return_value"], None


@pytest.fixture
def apply(bench):
    """Plan, then carry the plan out among faults: the outcome of each replica, judged by the log."""

    def do(ids, *misdeeds, concurrency=1, hard=False, timed=False):
        one = bench(ids, timed=timed, extra={"concurrency": 16})
        one.tavus.page_length = 100
        plan, _ = run(PlanRetentionOperator(task_id="plan", policy=POLICY, hard=hard))
        assert [row["replica_id"] for row in plan["delete"]] == ids
        one.tavus.misdeed(*misdeeds)
        approved = {"hard": True, "approved_digest": plan["digest"]} if hard else {}
        report, error = run(
            ApplyRetentionOperator(task_id="apply", plan=plan, concurrency=concurrency, **approved)
        )
        one.show([report, error])
        outcomes = {item["replica_id"]: item["outcome"] for item in report["items"]}
        judge(one.tavus, ids, report, error)
        return one, outcomes

    return do


def judge(tavus, ids, report, error) -> None:
    """The report is a partition of the plan, nothing in it is false, and green means done."""
    outcomes = {item["replica_id"]: item["outcome"] for item in report["items"]}
    assert list(outcomes) == ids
    assert {word: count for word, count in report["counts"].items() if count} == Counter(outcomes.values())
    lies = [lie for one in ids for lie in lies_about_a_delete(tavus, outcomes[one], one)]
    assert lies == []
    assert harm_done(tavus, ids) == []
    assert bool(error) == any(outcome in RED for outcome in outcomes.values())
    if not error:
        assert tavus.living == []


@each_at_once([kind for kind in KINDS if kind.before])
def test_a_fault_of_one_is_the_fault_of_that_one_only(apply, kind: Kind, concurrency):
    misdeed = Misdeed(kind.says, "DELETE", only="b03", times=ALWAYS)
    _, outcomes = apply(BATCH, misdeed, concurrency=concurrency, hard=True, timed=kind.timed)
    outcome = kind.before.split()[1]
    assert outcomes["b03"] == outcome
    others = {outcomes[other] for other in BATCH if other != "b03"}
    assert others <= ({"deleted", "not_attempted"} if "F20" in kind.name else {"deleted"})


@each_at_once([kind for kind in KINDS if kind.after])
def test_a_fault_of_every_delete_that_had_its_effect_hides_nothing(apply, kind: Kind, concurrency):
    misdeed = Misdeed(kind.says, "DELETE", after=True, times=ALWAYS)
    one, outcomes = apply(BATCH, misdeed, concurrency=concurrency, timed=kind.timed)
    assert set(outcomes.values()) == {kind.after.split()[1]}
    assert one.tavus.count("DELETE") == len(BATCH)


@each_at_once([kind for kind in KINDS if kind.before])
def test_a_fault_of_every_delete_that_had_no_effect_claims_nothing(apply, kind: Kind, concurrency):
    misdeed = Misdeed(kind.says, "DELETE", times=ALWAYS)
    one, outcomes = apply(BATCH, misdeed, concurrency=concurrency, timed=kind.timed)
    assert set(outcomes.values()) <= {kind.before.split()[1], "not_attempted"}
    assert one.tavus.living == BATCH


@each_at_once([kind for kind in KINDS if kind.before])
def test_a_fault_that_passes_leaves_nothing_behind(apply, kind: Kind, concurrency):
    misdeed = Misdeed(kind.says, "DELETE", times=2)
    _, outcomes = apply(BATCH, misdeed, concurrency=concurrency, timed=kind.timed)
    left = [replica_id for replica_id in BATCH if outcomes[replica_id] not in GONE]
    if not kind.final:
        assert left == []
    elif "F20" not in kind.name:
        assert len(left) == 2


# -- what stops a batch

MANY = [f"m{number:02}" for number in range(40)]


@pytest.mark.parametrize("name", ["F20 401", "F20 403"])
@CONCURRENCY
@pytest.mark.parametrize("to", ["DELETE", "GET"])
def test_a_refused_key_stops_the_batch(apply, name, concurrency, to):
    misdeed = Misdeed(BY_NAME[name].says, to, times=ALWAYS)
    one, outcomes = apply(MANY, misdeed, concurrency=concurrency, hard=True)
    assert one.tavus.count(to) <= concurrency
    assert one.tavus.count("DELETE") <= (concurrency if to == "DELETE" else 0)
    counts = Counter(outcomes.values())
    assert counts["failed"] == one.tavus.count("DELETE")
    assert counts["failed"] + counts["not_attempted"] == len(MANY)


@each_at_once([kind for kind in KINDS if kind.doubtful and not kind.timed])
def test_five_in_a_row_in_doubt_stop_the_batch(apply, kind: Kind, concurrency):
    one, outcomes = apply(MANY, Misdeed(kind.says, "DELETE", times=ALWAYS), concurrency=concurrency)
    counts = Counter(outcomes.values())
    assert set(counts) == {"unknown", "not_attempted"}
    assert 5 <= counts["unknown"] < 5 + concurrency
    # Ten retries for the batch, so that a server that is down is not asked three times for each replica.
    assert one.tavus.count("DELETE") <= counts["unknown"] + 10


@AFTER
@CONCURRENCY
def test_a_server_that_answers_all_and_does_nothing_is_found_out(apply, concurrency, after):
    says = BY_NAME["F41 204"].says
    _, outcomes = apply(
        MANY, Misdeed(says, "DELETE", times=ALWAYS, after=after), concurrency=concurrency, hard=True
    )
    assert set(outcomes.values()) == {"deleted" if after else "unknown"}
