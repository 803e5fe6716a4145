"""The executor against the sandbox: what is deleted, skipped, stopped and verified."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tavus_provider.exceptions import (
    PlanRejectedError,
    TavusAuthError,
    TavusError,
    TavusRetryableError,
)
from tavus_provider.execution.executor import PlanExecutor
from tavus_provider.execution.inventory import read_inventory
from tavus_provider.outcomes import ORDER, Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.plan import make_plan
from tavus_provider.planning.report import dry_run_report
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.storage.ledger import Ledger, job_name, ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

POLICY = {
    "name": "stale",
    "expire": [{"rule": "old", "older_than": "90d"}],
    "limits": {"max_deletions": 50, "max_deletion_percent": 50},
}
ALWAYS = {"times": None}


def now():
    return datetime.now(UTC)


def seed(old=3, young=None):
    """Return a seed with expired replicas, and by default with more that have not expired."""
    young = old + 2 if young is None else young
    rows = [
        {"replica_id": f"{kind}{n:02}", "replica_name": f"{kind} {n}", "age": age}
        for kind, age, count in (("old", "200d", old), ("young", "5d", young))
        for n in range(count)
    ]
    return {"replicas": rows}


class Account:
    """A sandbox, a hook that is connected to it, and what is needed to plan and to execute."""

    def __init__(self, sandbox) -> None:
        from tavus_provider.hooks.tavus import TavusHook

        self.sandbox = sandbox
        self.hook = TavusHook()
        self.lines: list[str] = []
        self.planned_at = 0

    def plan(self, *, hard=False, policy=POLICY):
        policy = Policy.parse(policy)
        plan = make_plan(
            evaluate(policy, read_inventory(self.hook, policy, now=now), now=now(), hard=hard),
            policy,
            now=now(),
            hard=hard,
            tavus_conn_id="tavus_default",
            origin=self.hook.origin,
        )
        self.planned_at = len(self.sandbox.state()["requests"])
        return plan

    def executor(self, plan, **arguments):
        ledger = Ledger(self.hook.origin, "tavus_default")
        begin = partial(ledger.begin_attempt, job_name("plan", plan["digest"]), hard=plan["hard"])
        arguments = {"concurrency": 1, "now": now, "log": self.lines.append, "begin": begin} | arguments
        return PlanExecutor(plan, self.hook, **arguments)

    def apply(self, plan, **arguments):
        executor = self.executor(plan, **arguments)
        executor.run()
        report = executor.close()
        assert_partition(report, plan)
        assert executor.writer is None or compare_report(verify(ledger_root())[0], report) == []
        return {item["replica_id"]: (item["outcome"], item["detail"]) for item in report["items"]}

    @property
    def deletes(self):
        return self.sandbox.state()["deletes"]

    def requests(self, method=None):
        """Return the requests since the plan was made."""
        seen = self.sandbox.state()["requests"][self.planned_at :]
        return [f"{r['method']} {r['path']}" for r in seen if method in (None, r["method"])]


READS = [
    "GET /v2/replicas",
    "GET /v2/personas",
    *["GET /v2/conversations"] * 7,  # counted six times, then the active ones
    "GET /v2/videos",
]
"""The requests that read a small account for a policy that does not ask about the past."""


def assert_partition(report, plan):
    """Check that a report has one outcome for each replica of its plan."""
    assert [item["replica_id"] for item in report["items"]] == [row["replica_id"] for row in plan["delete"]]
    assert set(report["counts"]) == set(ORDER)
    assert sum(report["counts"].values()) == len(plan["delete"])
    assert {k: v for k, v in report["counts"].items() if v} == Counter(i["outcome"] for i in report["items"])
    assert all(item["detail"] and "\n" not in item["detail"] for item in report["items"])
    fields = {"version", "plan_digest", "tavus_conn_id", "origin", "hard", "dry_run", "counts", "items"}
    assert set(report) - {"ledger_head"} == {*fields, "ledger"}
    assert (report["plan_digest"], report["hard"]) == (plan["digest"], plan["hard"])
    json.dumps(report)


@pytest.fixture
def account(serve, clock):
    opened = []

    def open_(rows=None) -> Account:
        opened.append(Account(serve(seed() if rows is None else rows)))
        return opened[-1]

    yield open_
    for account in opened:
        account.hook.close()


# -- deletes


@pytest.mark.parametrize("hard", [False, True])
def test_planned_replicas_are_deleted_once_and_nothing_else(account, hard):
    tavus = account()
    items = tavus.apply(tavus.plan(hard=hard))
    assert sorted(d["replica_id"] for d in tavus.deletes) == ["old00", "old01", "old02"]
    assert {d["hard"] for d in tavus.deletes} == {hard}
    query = "?hard=true" if hard else ""
    assert items["old00"] == (
        "deleted",
        f"DELETE /v2/replicas/old00{query} returned 200; it is no longer listed",
    )
    assert {outcome for outcome, _ in items.values()} == {"deleted"}


def test_account_is_read_before_the_first_delete_and_listed_after_the_last(account):
    tavus = account()
    tavus.apply(tavus.plan())
    assert tavus.requests() == [
        *READS,
        *(f"DELETE /v2/replicas/old{n:02}" for n in range(3)),
        "GET /v2/replicas",
    ]


def test_each_replica_is_read_right_before_its_permanent_delete(account):
    tavus = account()
    tavus.apply(tavus.plan(hard=True))
    assert tavus.requests()[len(READS) : -1] == [
        f"{method} /v2/replicas/old{n:02}" for n in range(3) for method in ("GET", "DELETE")
    ]


def test_plan_without_deletes_deletes_nothing(account):
    tavus = account(seed(old=0))
    assert tavus.apply(tavus.plan()) == {}
    assert tavus.requests("DELETE") == []


def test_replica_created_after_the_plan_is_not_deleted_although_it_expired(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.put("replicas", {"replica_id": "newcomer", "replica_name": "n", "age": "900d"})
    tavus.apply(plan)
    assert "newcomer" not in {d["replica_id"] for d in tavus.deletes}
    assert len(tavus.deletes) == 3


# -- changes since the plan was made


CHANGES = [
    pytest.param(
        "replicas",
        {"replica_id": "old00", "replica_name": "another"},
        "replica_name changed since the plan was made",
        id="renamed",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "replica_name": None},
        "replica_name changed since the plan was made",
        id="name removed",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "age": "300d"},
        "created_at changed since the plan was made",
        id="other created_at",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "age": "2d"},
        "created_at changed since the plan was made",
        id="recreated",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "replica_type": "user'"},
        'replica_type is now "user\'"',
        id="unknown type",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "status": "started"},
        "no longer expired: is still in training, and no rule names status 'started'",
        id="in training",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "status": "archived"},
        "no longer expired: status is 'archived', not one of started, completed, error",
        id="unknown status",
    ),
    pytest.param(
        "personas",
        {"persona_id": "p1", "default_replica_id": "old00", "age": "1d"},
        "no longer expired: is the default of persona p1",
        id="default of a persona",
    ),
    pytest.param(
        "conversations",
        {"conversation_id": "c1", "replica_id": "old00", "status": "active", "age": "1h"},
        "no longer expired: is in active conversation c1",
        id="in a conversation",
    ),
    pytest.param(
        "videos",
        {"video_id": "v1", "replica_id": "old00", "status": "generating", "age": "1h"},
        "no longer expired: is in video v1, which is generating",
        id="in a video",
    ),
]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("kind", "row", "reason"), CHANGES)
def test_changed_replica_is_skipped_with_the_reason_and_the_others_are_deleted(
    account, kind, row, reason, hard
):
    tavus = account()
    plan = tavus.plan(hard=hard)
    tavus.sandbox.put(kind, row)
    items = tavus.apply(plan)
    assert items["old00"] == ("skipped", reason)
    assert [d["replica_id"] for d in tavus.deletes] == ["old01", "old02"]


def test_replica_that_became_a_stock_replica_is_not_deleted(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.put("replicas", {"replica_id": "old00", "replica_type": "system"})
    items = tavus.apply(plan)
    assert items["old00"] == ("skipped", "replica_type is now 'system'")
    assert [d["replica_id"] for d in tavus.deletes] == ["old01", "old02"]


@pytest.mark.parametrize(
    ("retried", "detail"),
    [
        (False, "is no longer listed"),
        (True, "is no longer listed; possibly deleted by an earlier attempt of this task"),
    ],
)
def test_missing_replica_is_already_gone_on_first_attempt_and_on_retry(account, retried, detail):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.put("replicas", {"replica_id": "old00", "deleted": "hard"})
    items = tavus.apply(plan, prior=PriorAttempts(retried=retried))
    assert items["old00"] == ("already_gone", detail)
    assert "DELETE /v2/replicas/old00" not in tavus.requests()


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        pytest.param({"replica_name": "another"}, ("skipped", "replica_name changed"), id="renamed"),
        pytest.param({"age": "250d"}, ("skipped", "created_at changed"), id="recreated"),
        pytest.param({"replica_type": "system"}, ("skipped", "replica_type is now 'system'"), id="stock"),
        pytest.param({"deleted": "hard"}, ("already_gone", "GET /v2/replicas/old01 returned 400"), id="gone"),
    ],
)
def test_change_between_revalidation_and_permanent_delete_is_noticed(account, monkeypatch, change, ended):
    tavus = account()
    plan = tavus.plan(hard=True)
    real = tavus.hook.get_replica

    def get_replica(replica_id):
        if replica_id == "old02":  # after revalidation, right before its delete
            tavus.sandbox.put("replicas", {"replica_id": "old02", **change})
        return real(replica_id)

    monkeypatch.setattr(tavus.hook, "get_replica", get_replica)
    items = tavus.apply(plan)
    assert items["old02"][0] == ended[0]
    assert items["old02"][1].startswith(ended[1].replace("old01", "old02"))
    assert "old02" not in {d["replica_id"] for d in tavus.deletes}


def test_replica_deleted_by_others_meanwhile_is_already_gone_on_404(account):
    tavus = account()
    plan = tavus.plan()
    answer = json.dumps({"error": "not there"})
    fault = {"method": "DELETE", "path": "/v2/replicas/old01", "status": 404, "body": answer}
    tavus.sandbox.switch(faults=[fault])

    def gone(line):
        tavus.sandbox.put("replicas", {"replica_id": "old01", "deleted": "hard"})

    items = tavus.apply(plan, log=gone)
    assert items["old01"] == ("already_gone", "DELETE /v2/replicas/old01 returned 404: not there")


def test_replica_that_returns_404_but_is_still_listed_is_unknown(account):
    tavus = account()
    plan = tavus.plan()
    fault = {"method": "DELETE", "path": "/v2/replicas/old01", "status": 404}
    tavus.sandbox.switch(faults=[fault])
    items = tavus.apply(plan)
    assert items["old01"] == (
        "unknown",
        "DELETE /v2/replicas/old01 returned 404: Not Found; it is still listed",
    )


# -- wrong account


def test_plan_is_rejected_if_most_replicas_are_missing_and_no_task_began(account):
    tavus = account(seed(old=5))
    plan = tavus.plan()
    tavus.sandbox.put("replicas", *({"replica_id": f"old{n:02}", "deleted": "hard"} for n in range(5)))
    executor = tavus.executor(plan)
    with pytest.raises(PlanRejectedError, match=r"^5 of 5 planned replicas are no longer listed"):
        executor.run()
    assert executor.report()["counts"]["not_attempted"] == 5
    assert executor.writer is None


@pytest.mark.parametrize(
    ("prior", "reread"),
    [
        pytest.param(PriorAttempts(begun=True), None, id="a task began before"),
        pytest.param(
            PriorAttempts(),
            PriorAttempts(recorded=frozenset(f"old{n:02}" for n in range(5))),
            id="a task deleted them meanwhile",
        ),
    ],
)
def test_missing_replicas_are_already_gone_if_a_task_began_to_delete_them(account, prior, reread):
    tavus = account(seed(old=5))
    plan = tavus.plan()
    tavus.sandbox.put("replicas", *({"replica_id": f"old{n:02}", "deleted": "hard"} for n in range(5)))
    items = tavus.apply(plan, prior=prior, reread_prior=None if reread is None else lambda: reread)
    assert {outcome for outcome, _ in items.values()} == {"already_gone"}


def test_attempts_are_not_read_again_if_no_replica_is_missing(account):
    tavus = account()

    def reread_prior():
        raise AssertionError

    assert tavus.apply(tavus.plan(), reread_prior=reread_prior)


# -- limits


def test_limit_that_is_exceeded_only_now_stops_the_plan_before_the_first_delete(account):
    tavus = account()
    plan = tavus.plan()  # 3 of 8, the limit is 50 %
    for n in range(4):
        tavus.sandbox.put("replicas", {"replica_id": f"young{n:02}", "deleted": "hard"})
    executor = tavus.executor(plan)
    with pytest.raises(
        PlanRejectedError, match=r"^3 of 4 replicas would be deleted, max_deletion_percent is 50"
    ):
        executor.run()
    assert tavus.requests("DELETE") == []
    report = executor.report()
    assert_partition(report, plan)
    assert report["counts"]["not_attempted"] == 3
    assert report["items"][0]["detail"].startswith("not attempted: 3 of 4 replicas would be deleted")


def test_skipped_replicas_do_not_count_against_the_limits(account):
    tavus = account(seed(old=2, young=3))
    policy = POLICY | {"limits": {"max_deletions": 1, "max_deletion_percent": 100}}
    plan = tavus.plan(policy=policy)
    tavus.sandbox.put("replicas", {"replica_id": "old00", "replica_name": "another"})
    assert tavus.apply(plan)["old01"][0] == "deleted"


@pytest.mark.parametrize("limit", [{"max_deletions": 0}, {"max_deletion_percent": 0}], ids=repr)
def test_limit_of_zero_allows_no_delete(account, limit):
    tavus = account()
    plan = tavus.plan(policy=POLICY | {"limits": limit})
    with pytest.raises(PlanRejectedError, match=f"{next(iter(limit))} is 0"):
        tavus.executor(plan).run()
    assert tavus.requests("DELETE") == []


# -- faults before the deletes


@pytest.mark.parametrize("kind", ["replicas", "personas", "conversations", "videos"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param({"status": 500, **ALWAYS}, TavusError, id="500"),
        pytest.param({"status": 401, **ALWAYS}, TavusAuthError, id="401"),
        pytest.param({"status": 200, "html": True, **ALWAYS}, TavusError, id="html"),
        pytest.param(
            {"status": 200, "body": '{"data": null, "total_count": 0}', **ALWAYS}, TavusError, id="no list"
        ),
        pytest.param(
            {"status": 200, "body": '{"data": [], "total_count": 9}', **ALWAYS}, TavusError, id="incomplete"
        ),
        pytest.param({"close": True, **ALWAYS}, TavusRetryableError, id="connection closed"),
    ],
)
def test_unreadable_list_deletes_nothing(account, kind, fault, error):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "GET", "path": f"/v2/{kind}", **fault}])
    executor = tavus.executor(plan)
    with pytest.raises(error) as caught:
        executor.run()
    assert f"/v2/{kind}" in str(caught.value)
    assert tavus.requests("DELETE") == []
    assert executor.report()["counts"]["not_attempted"] == 3
    assert executor.report()["items"][0]["detail"] == f"not attempted: {caught.value}"


@pytest.mark.parametrize("off", [-301, 330, 86_400])  # with a margin, as a Date header has whole seconds
def test_clock_difference_of_more_than_five_minutes_deletes_nothing(account, off):
    tavus = account()
    plan = tavus.plan()
    with pytest.raises(
        PlanRejectedError,
        match=r"the clocks of Tavus and of this worker differ by (3[0-3]\d|863\d\d|86400) s",
    ):
        skewed(tavus, off).run()
    assert tavus.requests("DELETE") == []
    assert plan["delete"]


@pytest.mark.parametrize("off", [-270, 0, 290])
def test_clock_difference_below_five_minutes_is_accepted(account, off):
    tavus = account()
    tavus.plan()
    skewed(tavus, off).run()
    assert len(tavus.requests("DELETE")) == 3


def skewed(tavus, seconds):
    """Return an executor whose Tavus has another clock."""
    plan = tavus.plan()
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    fault = {
        "path": "/v2/videos",
        "status": 200,
        "body": '{"data": [], "total_count": 0}',
        "headers": {"Date": f"{moment:%a, %d %b %Y %H:%M:%S} GMT"},
    }
    tavus.sandbox.switch(faults=[fault])
    return tavus.executor(plan)


# -- faults during the deletes


@pytest.mark.parametrize(("status", "sent"), [(401, 2), (403, 1)])
def test_rejected_key_stops_the_deletes(account, status, sent):
    tavus = account(seed(old=6))
    plan = tavus.plan()
    tavus.sandbox.switch(
        faults=[{"method": "DELETE", "path": "/v2/replicas/old02", "status": status, **ALWAYS}]
    )
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["deleted"] * 2 + ["failed"] + ["not_attempted"] * 3
    assert items["old02"][1].startswith(f"DELETE /v2/replicas/old02 returned {status}")
    assert items["old02"][1].endswith("; 2 deletes with this key had worked before")
    assert items["old05"][1] == f"not attempted: Tavus rejected the API key earlier ({items['old02'][1]})"
    assert tavus.requests("DELETE")[2:] == ["DELETE /v2/replicas/old02"] * sent


def test_single_401_does_not_stop_the_deletes(account):
    tavus = account(seed(old=6))
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/old02", "status": 401}])
    assert {outcome for outcome, _ in tavus.apply(plan).values()} == {"deleted"}


def test_403_of_a_firewall_concerns_one_replica_and_not_the_key(account):
    tavus = account(seed(old=6))
    plan = tavus.plan()
    firewall = {"method": "DELETE", "path": "/v2/replicas/old02", "status": 403, "html": True, **ALWAYS}
    tavus.sandbox.switch(faults=[firewall])
    executor = tavus.executor(plan)
    executor.run()
    items = executor.report()["items"]
    assert [item["outcome"] for item in items] == ["deleted"] * 2 + ["unknown"] + ["deleted"] * 3
    assert "key" not in items[2]["detail"]
    assert executor.may_succeed_later


def test_rejected_key_on_the_read_before_a_permanent_delete_stops_the_deletes(account):
    tavus = account()
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(faults=[{"method": "GET", "path": "/v2/replicas/old01", "status": 401, **ALWAYS}])
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["deleted", "not_attempted", "not_attempted"]
    assert tavus.requests("DELETE") == ["DELETE /v2/replicas/old00"]


@pytest.mark.parametrize("status", [400, 402, 409, 422])
def test_other_rejections_concern_one_replica_only(account, status):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/old00", "status": status}])
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["failed", "deleted", "deleted"]
    assert items["old00"][1].startswith(f"DELETE /v2/replicas/old00 returned {status}")


def test_failed_read_before_a_permanent_delete_leaves_the_replica_alone(account):
    tavus = account()
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(
        faults=[{"method": "GET", "path": "/v2/replicas/old01", "status": 200, "html": True, **ALWAYS}]
    )
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["deleted", "not_attempted", "deleted"]
    assert "the body is not JSON" in items["old01"][1]


def test_five_consecutive_rate_limited_deletes_stop_the_deletes(account):
    tavus = account(seed(old=9))
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 429, **ALWAYS}])
    executor = tavus.executor(plan)
    executor.run()
    items = {item["replica_id"]: item for item in executor.report()["items"]}
    assert [item["outcome"] for item in items.values()] == ["failed"] * 5 + ["not_attempted"] * 4
    assert items["old08"]["detail"] == "not attempted: 5 consecutive deletes were rate limited"
    assert len(set(tavus.requests("DELETE"))) == 5
    assert executor.may_succeed_later


def test_five_consecutive_unknown_outcomes_stop_the_deletes(account):
    tavus = account(seed(old=9))
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 500, **ALWAYS}])
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["unknown"] * 5 + ["not_attempted"] * 4
    assert items["old08"][1] == "not attempted: 5 consecutive deletes have an unknown outcome"
    assert items["old00"][1].endswith("it may have been applied; it is still listed")
    assert {request.rsplit("/", 1)[1] for request in tavus.requests("DELETE")} == {
        f"old{n:02}" for n in range(5)
    }


def test_four_consecutive_unknown_outcomes_do_not_stop_the_deletes(account):
    tavus = account(seed(old=9))
    plan = tavus.plan()
    path = "/v2/replicas/old0[01235678]"
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": path, "status": 202, **ALWAYS}])
    items = tavus.apply(plan)
    assert items["old04"][0] == "deleted"
    assert [outcome for outcome, _ in items.values()].count("unknown") == 8


def test_delete_that_was_applied_without_a_response_is_confirmed(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(
        faults=[{"method": "DELETE", "path": "/v2/replicas/old00", "close": True, "when": "after"}]
    )
    items = tavus.apply(plan)
    assert items["old00"][0] == "confirmed"
    assert len(tavus.deletes) == 3


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_requests_in_flight_never_exceed_the_concurrency(account, concurrency):
    tavus = account(seed(old=12))
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(latency=0.01)
    tavus.apply(plan, concurrency=concurrency)
    seen = tavus.sandbox.state()["requests"][tavus.planned_at :]
    assert max(request["in_flight"] for request in seen) <= concurrency
    assert len(tavus.deletes) == 12


def test_each_result_of_a_small_plan_is_logged_with_the_progress(account):
    tavus = account()
    tavus.apply(tavus.plan())
    assert [line.split("; ")[-1].split(",")[0] for line in tavus.lines] == [
        f"{n} of 3 done" for n in (1, 2, 3)
    ]
    assert tavus.lines[0].startswith("deleted: old00 (DELETE /v2/replicas/old00 returned 200); 1 of 3 done, ")
    assert tavus.lines[-1].endswith("/s, 0 s left")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_interruption_starts_no_further_delete_and_leaves_a_correct_report(account, monkeypatch, error):
    tavus = account(seed(old=8))
    plan = tavus.plan()
    in_progress, stopped = threading.Event(), threading.Event()

    def log(line):
        assert in_progress.wait(60)
        raise error

    executor = tavus.executor(plan, log=log)
    real = tavus.hook.delete_replica

    def delete_replica(replica_id, *, hard, before_send=None):
        # The interruption comes while the first result is logged and the second delete is in progress.
        if replica_id != "old00":
            in_progress.set()
            assert stopped.wait(60)
        return real(replica_id, hard=hard)

    monkeypatch.setattr(tavus.hook, "delete_replica", delete_replica)
    monkeypatch.setattr(tavus.hook, "stop", stopped.set)
    with pytest.raises(error):
        executor.run()
    report = executor.report()
    assert_partition(report, plan)
    assert [d["replica_id"] for d in tavus.deletes] == ["old00", "old01"]
    assert [item["outcome"] for item in report["items"]] == ["deleted"] * 2 + ["not_attempted"] * 6
    assert {item["detail"] for item in report["items"][2:]} == {"not attempted: the task was stopped"}


def test_stop_starts_no_further_delete_and_another_attempt_may_continue(account, monkeypatch):
    tavus = account(seed(old=8))
    plan = tavus.plan()
    executor = tavus.executor(plan)
    real = tavus.hook.delete_replica

    def delete_replica(replica_id, **options):
        # In the thread that deletes: a stop from another one may come after more deletes.
        try:
            return real(replica_id, **options)
        finally:
            executor.stop("received SIGTERM")

    monkeypatch.setattr(tavus.hook, "delete_replica", delete_replica)
    executor.run()
    report = executor.close()
    assert_partition(report, plan)
    done = [item["replica_id"] for item in report["items"] if item["outcome"] == "deleted"]
    assert done == [d["replica_id"] for d in tavus.deletes] == ["old00"]
    assert report["items"][-1] == {
        "replica_id": "old07",
        "outcome": "not_attempted",
        "detail": "not attempted: received SIGTERM",
    }
    assert executor.may_succeed_later


def test_outcomes_are_recorded_before_the_list_is_read_again(account, monkeypatch):
    tavus = account()
    plan = tavus.plan()
    executor = tavus.executor(plan)
    real = tavus.hook.list_replicas

    def list_replicas(*, while_deleting):
        if tavus.deletes:
            raise KeyboardInterrupt  # killed before it lists what is left
        return real(while_deleting=while_deleting)

    monkeypatch.setattr(tavus.hook, "list_replicas", list_replicas)
    with pytest.raises(KeyboardInterrupt):
        executor.run()
    (one,) = verify(ledger_root())[0]
    assert one.outcomes == {f"old0{n}": "deleted" for n in range(3)}


def test_delete_in_progress_is_unknown_in_the_report(account, monkeypatch):
    tavus = account()
    plan = tavus.plan()
    executor = tavus.executor(plan)
    real, seen = tavus.hook.delete_replica, []

    def delete_replica(replica_id, *, hard, before_send=None):
        seen.append([item["outcome"] for item in executor.report()["items"]])
        return real(replica_id, hard=hard)

    monkeypatch.setattr(tavus.hook, "delete_replica", delete_replica)
    executor.run()
    assert seen[1] == ["deleted", "unknown", "not_attempted"]


def test_report_before_run_has_attempted_nothing(account):
    tavus = account()
    plan = tavus.plan()
    report = tavus.executor(plan).report()
    assert_partition(report, plan)
    assert {item["outcome"] for item in report["items"]} == {"not_attempted"}


# -- verification


def test_permanent_delete_with_a_response_but_without_effect_is_unknown(account):
    tavus = account()
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 200, **ALWAYS}])
    items = tavus.apply(plan)
    assert set(items.values()) == {
        ("unknown", f"DELETE /v2/replicas/old0{n}?hard=true returned 200; it is still listed")
        for n in range(3)
    }
    assert tavus.deletes == []


def test_account_that_lists_soft_deleted_replicas_cannot_show_their_absence(account):
    tavus = account()
    tavus.sandbox.switch(soft_deleted="listed")
    items = tavus.apply(tavus.plan())
    assert len(tavus.deletes) == 3
    assert items["old00"] == (
        "deleted",
        "DELETE /v2/replicas/old00 returned 200; this account lists soft-deleted replicas, so its absence "
        "could not be seen",
    )
    assert {outcome for outcome, _ in items.values()} == {"deleted"}


@pytest.mark.parametrize("hard", [False, True])
def test_all_replicas_that_return_404_but_are_still_listed_are_unknown(account, hard):
    tavus = account()
    plan = tavus.plan(hard=hard)
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 404, **ALWAYS}])
    items = tavus.apply(plan)
    assert {outcome for outcome, _ in items.values()} == {"unknown"}
    assert all(detail.endswith("; it is still listed") for _, detail in items.values())
    assert tavus.deletes == []


def test_404_of_a_listed_replica_is_already_gone_where_soft_deleted_replicas_are_listed(account):
    tavus = account()
    tavus.sandbox.switch(soft_deleted="listed")
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/old01", "status": 404}])
    outcome, detail = tavus.apply(plan)["old01"]
    assert outcome == "already_gone"
    assert detail.endswith("; this account lists soft-deleted replicas, so its absence could not be seen")


def test_soft_delete_begun_by_a_killed_attempt_may_be_gone_and_still_listed(account):
    tavus = account()
    tavus.sandbox.switch(soft_deleted="listed")
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 404, **ALWAYS}])
    items = tavus.apply(plan, prior=PriorAttempts(own={"old00": None}, begun=True))
    assert items["old00"][0] == "already_gone"
    assert items["old00"][1].endswith("its absence could not be seen")
    assert {items["old01"][0], items["old02"][0]} == {"unknown"}


def test_replica_found_gone_but_listed_after_a_kill_stays_already_gone_in_later_attempts(account):
    tavus = account()
    tavus.sandbox.switch(soft_deleted="listed")
    plan = tavus.plan()
    ids = [row["replica_id"] for row in plan["delete"]]
    tavus.sandbox.put("replicas", *({"replica_id": replica_id, "deleted": "soft"} for replica_id in ids))
    own: dict[str, Outcome | None] = dict.fromkeys(ids)
    for _ in range(3):
        items = tavus.apply(plan, prior=PriorAttempts(own=own, begun=True))
        own = {replica_id: Outcome(outcome) for replica_id, (outcome, _) in items.items()}
        assert set(own.values()) == {Outcome.ALREADY_GONE}
        assert all(detail.endswith("its absence could not be seen") for _, detail in items.values())


def test_soft_deleted_replica_that_is_listed_while_others_are_not_is_unknown(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/old01", "status": 200}])
    items = tavus.apply(plan)
    assert items["old01"] == ("unknown", "DELETE /v2/replicas/old01 returned 200; it is still listed")
    assert [items[i][0] for i in ("old00", "old02")] == ["deleted", "deleted"]


def test_unreadable_list_after_the_deletes_leaves_absence_unverified(account):
    tavus = account()
    plan = tavus.plan()

    def break_it(line):
        tavus.lines.append(line)
        tavus.sandbox.switch(faults=[{"method": "GET", "path": "/v2/replicas", "status": 403, **ALWAYS}])

    items = tavus.apply(plan, log=break_it)
    assert items["old00"] == (
        "deleted",
        "DELETE /v2/replicas/old00 returned 200; its absence could not be verified",
    )
    assert tavus.lines[-1].startswith(
        "The replicas could not be listed after the deletes, so their absence is not verified: GET"
    )


def test_list_is_not_read_again_if_nothing_was_deleted(account):
    tavus = account()
    plan = tavus.plan()
    for n in range(3):
        tavus.sandbox.put("replicas", {"replica_id": f"old0{n}", "replica_name": "another"})
    tavus.apply(plan)
    assert tavus.requests() == READS


def test_new_plan_after_the_deletes_is_empty(account):
    tavus = account()
    tavus.apply(tavus.plan())
    assert tavus.plan()["delete"] == []


def test_same_plan_applied_twice_deletes_each_replica_once(account):
    tavus = account()
    plan = tavus.plan()
    tavus.apply(plan)
    items = tavus.apply(plan, prior=PriorAttempts(retried=True, begun=True))
    assert set(items.values()) == {
        ("already_gone", "is no longer listed; possibly deleted by an earlier attempt of this task")
    }
    assert len(tavus.deletes) == 3


# -- dry run


def test_dry_run_sends_nothing(account):
    tavus = account()
    plan = tavus.plan()
    report = dry_run_report(plan)
    assert_partition(report, plan)
    assert report["dry_run"] is True
    assert {(item["outcome"], item["detail"]) for item in report["items"]} == {("skipped", "dry run")}
    assert tavus.requests() == []


# -- a rule with the name of a key of the policy has no special meaning

NAMED_LIKE_A_KEY = {**POLICY, "expire": [{"rule": "hard_delete_after", "older_than": "90d"}]}


def test_rule_named_hard_delete_after_is_read_once_more_before_its_permanent_delete(account):
    tavus = account()
    plan = tavus.plan(hard=True, policy=NAMED_LIKE_A_KEY)
    assert {(row["rule"], row["source"]) for row in plan["delete"]} == {("hard_delete_after", "rule")}
    assert {outcome for outcome, _ in tavus.apply(plan).values()} == {"deleted"}
    for replica_id in ("old00", "old01", "old02"):
        path = f"/v2/replicas/{replica_id}"
        requests = [request for request in tavus.requests() if request.endswith(path)]
        assert requests == [f"GET {path}", f"DELETE {path}"]


def test_rule_named_hard_delete_after_is_part_of_the_wrong_account_check(account):
    tavus = account(seed(old=6, young=10))
    plan = tavus.plan(hard=True, policy=NAMED_LIKE_A_KEY)
    for row in plan["delete"]:
        tavus.sandbox.put("replicas", {"replica_id": row["replica_id"], "deleted": "hard"})
    with pytest.raises(PlanRejectedError, match="points to another account"):
        tavus.apply(plan)
    assert tavus.deletes == []


# -- lists that lag, or miss a replica


@pytest.mark.parametrize("hard", [False, True])
def test_list_that_lags_behind_the_deletes_is_read_again(account, clock, monkeypatch, hard):
    tavus = account()
    plan = tavus.plan(hard=hard)
    tavus.sandbox.switch(list_lag=600)
    real = clock.sleep

    def sleep(seconds, stop=None):
        if sum(clock.waits) >= 1.5:
            tavus.sandbox.switch(list_lag=0)
        return real(seconds, stop)

    monkeypatch.setattr(tavus.hook.client._transport.rate_limiter, "sleep", sleep)
    executor = tavus.executor(plan)
    executor.run()
    assert {item["outcome"] for item in executor.report()["items"]} == {"deleted"}
    assert clock.waits == [0.5, 1.0, 2.0]
    assert not executor.may_succeed_later


def test_list_that_lags_for_long_is_unknown_and_a_retry_settles_it(account, clock):
    tavus = account()
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(list_lag=600)
    executor = tavus.executor(plan)
    executor.run()
    first = {item["replica_id"]: Outcome(item["outcome"]) for item in executor.close()["items"]}
    assert set(first.values()) == {"unknown"}
    assert executor.may_succeed_later
    assert clock.waits == [0.5, 1.0, 2.0, 4.0]
    tavus.sandbox.switch(list_lag=0)
    items = tavus.apply(plan, prior=PriorAttempts(own=first, retried=True, begun=True))
    assert {outcome for outcome, _ in items.values()} == {"already_gone"}
    assert all(detail.endswith("by an earlier attempt of this task") for _, detail in items.values())
    assert len(tavus.deletes) == 3


MISSED = {"method": "DELETE", "path": "/v2/replicas/old00", "status": 500, **ALWAYS}


def missed_after_the_deletes(tavus):
    """Let lists miss a replica as soon as its delete was tried."""
    real = tavus.hook.delete_replica

    def delete_replica(replica_id, *, hard=False, before_send=None):
        try:
            return real(replica_id, hard=hard)
        finally:
            tavus.sandbox.switch(unlisted=["old00"])

    tavus.hook.delete_replica = delete_replica


@pytest.mark.parametrize(("hard", "outcome"), [(False, "unknown"), (True, "failed")])
def test_list_that_misses_a_replica_does_not_confirm_its_delete(account, hard, outcome):
    tavus = account()
    plan = tavus.plan(hard=hard)
    tavus.sandbox.switch(faults=[MISSED])
    missed_after_the_deletes(tavus)
    executor = tavus.executor(plan)
    executor.run()
    items = {item["replica_id"]: item for item in executor.report()["items"]}
    assert [item["outcome"] for item in items.values()] == [outcome, "deleted", "deleted"]
    assert items["old00"]["detail"].endswith(
        "; it is no longer listed, but Tavus still returns it when it is read"
    )
    assert executor.may_succeed_later
    after = tavus.requests()[-1 - tavus.requests()[::-1].index("GET /v2/replicas") :]
    assert after == ["GET /v2/replicas", "GET /v2/replicas/old00"]  # one read, and only of this replica


def test_unreadable_replica_that_left_the_list_stays_unknown(account):
    tavus = account()
    plan = tavus.plan()
    look_up = {"method": "GET", "path": "/v2/replicas/old00", "status": 503, **ALWAYS}
    tavus.sandbox.switch(faults=[MISSED | {"when": "after"}, look_up])
    items = tavus.apply(plan)
    assert items["old00"][0] == "unknown"
    assert "; it is no longer listed, but it could not be read: GET" in items["old00"][1]


def test_unknown_delete_that_was_applied_is_confirmed_by_list_and_look_up(account):
    tavus = account()
    plan = tavus.plan()
    look_up = {"method": "GET", "path": "/v2/replicas/old00", "status": 403, "times": 3}
    tavus.sandbox.switch(faults=[MISSED | {"when": "after", "times": 1}, MISSED, look_up])
    items = tavus.apply(plan)
    assert items["old00"][0] == "confirmed"
    assert tavus.requests()[-1] == "GET /v2/replicas/old00"


@pytest.mark.parametrize(("hard", "outcome"), [(False, "skipped"), (True, "failed")])
def test_list_that_misses_a_planned_replica_does_not_make_it_already_gone(account, hard, outcome):
    tavus = account()
    plan = tavus.plan(hard=hard)
    tavus.sandbox.switch(unlisted=["old00"])
    executor = tavus.executor(plan)
    executor.run()
    items = {item["replica_id"]: item for item in executor.report()["items"]}
    assert [item["outcome"] for item in items.values()] == [outcome, "deleted", "deleted"]
    assert items["old00"]["detail"].startswith(
        "is no longer listed, but Tavus still returns it when it is read, so no delete was sent"
    )
    assert "DELETE /v2/replicas/old00" not in tavus.requests()
    assert executor.may_succeed_later == hard


def test_unreadable_replica_that_is_not_listed_is_unknown_and_gets_no_delete(account):
    tavus = account()
    plan = tavus.plan()
    look_up = {"method": "GET", "path": "/v2/replicas/old00", "status": 503, **ALWAYS}
    tavus.sandbox.switch(unlisted=["old00"], faults=[look_up])
    executor = tavus.executor(plan)
    executor.run()
    assert executor.report()["counts"]["unknown"] == 1
    assert executor.may_succeed_later
    assert "DELETE /v2/replicas/old00" not in tavus.requests()


def test_missing_replicas_are_read_once_each(account):
    tavus = account(seed(old=6))
    plan = tavus.plan()
    for replica_id in ("old00", "old01"):
        tavus.sandbox.put("replicas", {"replica_id": replica_id, "deleted": "hard"})
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["already_gone"] * 2 + ["deleted"] * 4
    reads = [one for one in tavus.requests("GET") if one.count("/") == 3]
    assert sorted(reads) == ["GET /v2/replicas/old00", "GET /v2/replicas/old01"]
