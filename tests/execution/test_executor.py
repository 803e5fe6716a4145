from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tavus_provider.exceptions import (
    PlanRejectedError,
    ReplicaNotFoundError,
    TavusAuthError,
    TavusError,
    TavusRetryableError,
)
from tavus_provider.execution.executor import OUTCOMES, Application, decide_one, dry_report, read_account
from tavus_provider.planning.plan import make_plan
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.storage.ledger import Ledger, job_name, ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

POLICY = {
    "name": "stale",
    "expire": [{"rule": "old", "older_than": "90d"}],
    "limits": {"max_deletions": 50, "max_deletion_percent": 50},
}
FOREVER = {"times": None}


def now():
    return datetime.now(UTC)


def world(old=3, young=None):
    """So many replicas that have expired, and at least as many that have not."""
    young = old + 2 if young is None else young
    rows = [
        {"replica_id": f"{kind}{n:02}", "replica_name": f"{kind} {n}", "age": age}
        for kind, age, many in (("old", "200d", old), ("young", "5d", young))
        for n in range(many)
    ]
    return {"replicas": rows}


class Account:
    """A Tavus of its own, a hook on it, and what is needed to plan and to apply."""

    def __init__(self, sandbox) -> None:
        from tavus_provider.hooks.tavus import TavusHook

        self.sandbox = sandbox
        self.hook = TavusHook()
        self.lines: list[str] = []
        self.planned_at = 0

    def plan(self, *, hard=False, policy=POLICY):
        policy = Policy.parse(policy)
        plan = make_plan(
            evaluate(policy, read_account(self.hook, policy, now=now), now=now(), hard=hard),
            policy,
            now=now(),
            hard=hard,
            tavus_conn_id="tavus_default",
            origin=self.hook.origin,
        )
        self.planned_at = len(self.sandbox.state()["requests"])
        return plan

    def application(self, plan, **more):
        ledger = Ledger(self.hook.origin, "tavus_default")
        begin = partial(ledger.begin_attempt, job_name("plan", plan["digest"]), hard=plan["hard"])
        more = {"concurrency": 1, "now": now, "log": self.lines.append, "begin": begin} | more
        return Application(plan, self.hook, **more)

    def apply(self, plan, **more):
        application = self.application(plan, **more)
        application.run()
        report = application.close()
        assert_partition(report, plan)
        assert application.record is None or compare_report(verify(ledger_root())[0], report) == []
        return {item["replica_id"]: (item["outcome"], item["detail"]) for item in report["items"]}

    @property
    def deletes(self):
        return self.sandbox.state()["deletes"]

    def asked(self, method=None):
        """The requests since the plan was made."""
        seen = self.sandbox.state()["requests"][self.planned_at :]
        return [f"{r['method']} {r['path']}" for r in seen if method in (None, r["method"])]


def assert_partition(report, plan):
    assert [item["replica_id"] for item in report["items"]] == [row["replica_id"] for row in plan["delete"]]
    assert set(report["counts"]) == set(OUTCOMES)
    assert sum(report["counts"].values()) == len(plan["delete"])
    assert {k: v for k, v in report["counts"].items() if v} == Counter(i["outcome"] for i in report["items"])
    assert all(item["detail"] and "\n" not in item["detail"] for item in report["items"])
    assert set(report) == {"plan_digest", "hard", "dry_run", "counts", "items", "ledger"}
    assert (report["plan_digest"], report["hard"]) == (plan["digest"], plan["hard"])
    json.dumps(report)


@pytest.fixture
def account(serve, clock):
    opened = []

    def open_(seed=None) -> Account:
        opened.append(Account(serve(world() if seed is None else seed)))
        return opened[-1]

    yield open_
    for one in opened:
        one.hook.close()


# -- what is deleted


@pytest.mark.parametrize("hard", [False, True])
def test_what_was_planned_is_deleted_once_and_nothing_else(account, hard):
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


def test_the_account_is_read_again_completely_before_the_first_delete_and_once_after_the_last(account):
    tavus = account()
    tavus.apply(tavus.plan())
    assert tavus.asked() == [
        *(f"GET /v2/{kind}" for kind in ("replicas", "personas", "conversations", "videos")),
        *(f"DELETE /v2/replicas/old{n:02}" for n in range(3)),
        "GET /v2/replicas",
    ]


def test_each_replica_is_read_right_before_its_permanent_delete(account):
    tavus = account()
    tavus.apply(tavus.plan(hard=True))
    assert tavus.asked()[4:-1] == [
        f"{method} /v2/replicas/old{n:02}" for n in range(3) for method in ("GET", "DELETE")
    ]


def test_a_plan_without_deletes_deletes_nothing(account):
    tavus = account(world(old=0))
    assert tavus.apply(tavus.plan()) == {}
    assert tavus.asked("DELETE") == []


def test_replicas_that_came_after_the_plan_are_not_deleted_although_they_have_expired(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.put("replicas", {"replica_id": "newcomer", "replica_name": "n", "age": "900d"})
    tavus.apply(plan)
    assert "newcomer" not in {d["replica_id"] for d in tavus.deletes}
    assert len(tavus.deletes) == 3


# -- what changed since the plan


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
        id="name-gone",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "age": "300d"},
        "created_at changed since the plan was made",
        id="created-another-time",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "age": "2d"},
        "created_at changed since the plan was made",
        id="created-anew",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "replica_type": "user'"},
        'its type is now "user\'"',
        id="type-in-doubt",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "status": "started"},
        "no longer expired: is still in training, and no rule names status 'started'",
        id="in-training",
    ),
    pytest.param(
        "replicas",
        {"replica_id": "old00", "status": "archived"},
        "no longer expired: status is 'archived', not one of started, completed, error",
        id="status-in-doubt",
    ),
    pytest.param(
        "personas",
        {"persona_id": "p1", "default_replica_id": "old00", "age": "1d"},
        "no longer expired: is the default of persona p1",
        id="default-of-a-persona",
    ),
    pytest.param(
        "conversations",
        {"conversation_id": "c1", "replica_id": "old00", "status": "active", "age": "1h"},
        "no longer expired: is in active conversation c1",
        id="in-a-conversation",
    ),
    pytest.param(
        "videos",
        {"video_id": "v1", "replica_id": "old00", "status": "generating", "age": "1h"},
        "no longer expired: is in video v1, which is generating",
        id="in-a-video",
    ),
]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("kind", "row", "reason"), CHANGES)
def test_what_is_no_longer_so_is_skipped_with_the_reason_and_the_rest_is_deleted(
    account, kind, row, reason, hard
):
    tavus = account()
    plan = tavus.plan(hard=hard)
    tavus.sandbox.put(kind, row)
    items = tavus.apply(plan)
    assert items["old00"] == ("skipped", reason)
    assert [d["replica_id"] for d in tavus.deletes] == ["old01", "old02"]


def test_a_replica_that_turned_into_a_stock_one_is_not_deleted(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.put("replicas", {"replica_id": "old00", "replica_type": "system"})
    items = tavus.apply(plan)
    assert items["old00"] == ("already_gone", "is no longer listed")
    assert [d["replica_id"] for d in tavus.deletes] == ["old01", "old02"]


@pytest.mark.parametrize(
    ("earlier_tries", "detail"),
    [
        (False, "is no longer listed"),
        (True, "is no longer listed; possibly deleted by an earlier attempt of this task"),
    ],
)
def test_what_is_missing_is_already_gone_and_a_second_try_says_that_it_may_have_been_us(
    account, earlier_tries, detail
):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.put("replicas", {"replica_id": "old00", "deleted": "hard"})
    items = tavus.apply(plan, earlier_tries=earlier_tries)
    assert items["old00"] == ("already_gone", detail)
    assert "DELETE /v2/replicas/old00" not in tavus.asked()


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        pytest.param({"replica_name": "another"}, ("skipped", "its name is another"), id="renamed"),
        pytest.param({"age": "250d"}, ("skipped", "its created_at is another"), id="created-anew"),
        pytest.param({"replica_type": "system"}, ("skipped", "its type is now 'system'"), id="stock"),
        pytest.param({"deleted": "hard"}, ("already_gone", "GET /v2/replicas/old01 returned 400"), id="gone"),
    ],
)
def test_a_change_between_the_fresh_look_and_a_permanent_delete_is_seen(account, monkeypatch, change, ended):
    tavus = account()
    plan = tavus.plan(hard=True)
    real = tavus.hook.get_replica

    def get_replica(replica_id):
        if replica_id == "old02":  # everything was read again, and now it is about to be deleted
            tavus.sandbox.put("replicas", {"replica_id": "old02", **change})
        return real(replica_id)

    monkeypatch.setattr(tavus.hook, "get_replica", get_replica)
    items = tavus.apply(plan)
    assert items["old02"][0] == ended[0]
    assert items["old02"][1].startswith(ended[1].replace("old01", "old02"))
    assert "old02" not in {d["replica_id"] for d in tavus.deletes}


def test_what_was_deleted_meanwhile_by_somebody_else_is_already_gone_also_when_tavus_says_404(account):
    tavus = account()
    plan = tavus.plan()
    answer = json.dumps({"error": "not there"})
    fault = {"method": "DELETE", "path": "/v2/replicas/old01", "status": 404, "body": answer}
    tavus.sandbox.switch(faults=[fault])

    def gone(line):
        tavus.sandbox.put("replicas", {"replica_id": "old01", "deleted": "hard"})

    items = tavus.apply(plan, log=gone)
    assert items["old01"] == ("already_gone", "DELETE /v2/replicas/old01 returned 404: not there")


def test_what_tavus_does_not_know_and_lists_all_the_same_is_unknown(account):
    tavus = account()
    plan = tavus.plan()
    fault = {"method": "DELETE", "path": "/v2/replicas/old01", "status": 404}
    tavus.sandbox.switch(faults=[fault])
    items = tavus.apply(plan)
    assert items["old01"] == (
        "unknown",
        "DELETE /v2/replicas/old01 returned 404: Not Found; it is still listed",
    )


# -- limits


def test_a_limit_that_the_plan_passes_only_now_stops_it_before_the_first_delete(account):
    tavus = account()
    plan = tavus.plan()  # 3 of 8, the limit is 50 %
    for n in range(4):
        tavus.sandbox.put("replicas", {"replica_id": f"young{n:02}", "deleted": "hard"})
    application = tavus.application(plan)
    with pytest.raises(
        PlanRejectedError, match=r"^3 of 4 replicas would be deleted, max_deletion_percent is 50"
    ):
        application.run()
    assert tavus.asked("DELETE") == []
    report = application.report()
    assert_partition(report, plan)
    assert report["counts"]["not_attempted"] == 3
    assert report["items"][0]["detail"].startswith("not attempted: 3 of 4 replicas would be deleted")


def test_what_is_skipped_does_not_count_against_the_limits(account):
    tavus = account(world(old=2, young=3))
    policy = POLICY | {"limits": {"max_deletions": 1, "max_deletion_percent": 100}}
    plan = tavus.plan(policy=policy)
    tavus.sandbox.put("replicas", {"replica_id": "old00", "replica_name": "another"})
    assert tavus.apply(plan)["old01"][0] == "deleted"


@pytest.mark.parametrize("limit", [{"max_deletions": 0}, {"max_deletion_percent": 0}], ids=repr)
def test_a_limit_of_none_allows_none(account, limit):
    tavus = account()
    plan = tavus.plan(policy=POLICY | {"limits": limit})
    with pytest.raises(PlanRejectedError, match=f"{next(iter(limit))} is 0"):
        tavus.application(plan).run()
    assert tavus.asked("DELETE") == []


# -- faults before


@pytest.mark.parametrize("kind", ["replicas", "personas", "conversations", "videos"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param({"status": 500, **FOREVER}, TavusError, id="500"),
        pytest.param({"status": 401, **FOREVER}, TavusAuthError, id="401"),
        pytest.param({"status": 200, "html": True, **FOREVER}, TavusError, id="html"),
        pytest.param({"status": 200, "body": '{"data": null, "total_count": 0}'}, TavusError, id="no-list"),
        pytest.param({"status": 200, "body": '{"data": [], "total_count": 9}'}, TavusError, id="incomplete"),
        pytest.param({"close": True, **FOREVER}, TavusRetryableError, id="hung-up"),
    ],
)
def test_a_list_that_cannot_be_read_again_deletes_nothing(account, kind, fault, error):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "GET", "path": f"/v2/{kind}", **fault}])
    application = tavus.application(plan)
    with pytest.raises(error) as caught:
        application.run()
    assert f"/v2/{kind}" in str(caught.value)
    assert tavus.asked("DELETE") == []
    assert application.report()["counts"]["not_attempted"] == 3
    assert application.report()["items"][0]["detail"] == f"not attempted: {caught.value}"


@pytest.mark.parametrize("off", [-301, 330, 86_400])  # a Date has whole seconds, and the test takes some
def test_a_clock_that_is_five_minutes_off_stops_before_anything_is_decided(account, off):
    tavus = account()
    plan = tavus.plan()
    with pytest.raises(
        PlanRejectedError, match=r"clock and this worker's differ by (3[0-3]\d|863\d\d|86400) s"
    ):
        skewed(tavus, off).run()
    assert tavus.asked("DELETE") == []
    assert plan["delete"]


@pytest.mark.parametrize("off", [-270, 0, 290])
def test_a_clock_that_is_less_than_five_minutes_off_stops_nothing(account, off):
    tavus = account()
    tavus.plan()
    skewed(tavus, off).run()
    assert len(tavus.asked("DELETE")) == 3


def skewed(tavus, seconds):
    plan = tavus.plan()
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    fault = {
        "path": "/v2/videos",
        "status": 200,
        "body": '{"data": [], "total_count": 0}',
        "headers": {"Date": f"{moment:%a, %d %b %Y %H:%M:%S} GMT"},
    }
    tavus.sandbox.switch(faults=[fault])
    return tavus.application(plan)


# -- faults during


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_the_batch_and_the_rest_is_not_attempted(account, status):
    tavus = account(world(old=6))
    plan = tavus.plan()
    tavus.sandbox.switch(
        faults=[{"method": "DELETE", "path": "/v2/replicas/old02", "status": status, **FOREVER}]
    )
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["deleted"] * 2 + ["failed"] + ["not_attempted"] * 3
    assert items["old02"][1].startswith(f"DELETE /v2/replicas/old02 returned {status}")
    assert items["old05"][1].startswith(
        "not attempted: Tavus refused the key before (DELETE /v2/replicas/old02"
    )
    assert len(tavus.asked("DELETE")) == 3


def test_a_refused_key_at_the_look_before_a_permanent_delete_stops_the_batch_too(account):
    tavus = account()
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(faults=[{"method": "GET", "path": "/v2/replicas/old01", "status": 401, **FOREVER}])
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["deleted", "not_attempted", "not_attempted"]
    assert tavus.asked("DELETE") == ["DELETE /v2/replicas/old00"]


@pytest.mark.parametrize("status", [400, 402, 409, 422])
def test_another_refusal_is_that_of_one_replica_only(account, status):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/old00", "status": status}])
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["failed", "deleted", "deleted"]
    assert items["old00"][1].startswith(f"DELETE /v2/replicas/old00 returned {status}")


def test_a_look_before_a_permanent_delete_that_fails_deletes_nothing_of_that_replica(account):
    tavus = account()
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(
        faults=[{"method": "GET", "path": "/v2/replicas/old01", "status": 200, "html": True, **FOREVER}]
    )
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["deleted", "not_attempted", "deleted"]
    assert "the body is not JSON" in items["old01"][1]


def test_five_deletes_in_a_row_put_off_by_the_rate_limit_stop_the_batch(account):
    tavus = account(world(old=9))
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 429, **FOREVER}])
    application = tavus.application(plan)
    application.run()
    items = {item["replica_id"]: item for item in application.report()["items"]}
    assert [item["outcome"] for item in items.values()] == ["failed"] * 5 + ["not_attempted"] * 4
    assert items["old08"]["detail"] == "not attempted: 5 deletes in a row were put off by Tavus's rate limit"
    assert len(set(tavus.asked("DELETE"))) == 5
    assert application.may_heal


def test_five_deletes_in_a_row_in_doubt_stop_the_batch(account):
    tavus = account(world(old=9))
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 500, **FOREVER}])
    items = tavus.apply(plan)
    assert [outcome for outcome, _ in items.values()] == ["unknown"] * 5 + ["not_attempted"] * 4
    assert items["old08"][1] == "not attempted: 5 deletes in a row were left in doubt"
    assert items["old00"][1].endswith("it may have been applied; it is still listed")
    assert {request.rsplit("/", 1)[1] for request in tavus.asked("DELETE")} == {
        f"old{n:02}" for n in range(5)
    }


def test_four_in_a_row_in_doubt_do_not_stop_it(account):
    tavus = account(world(old=9))
    plan = tavus.plan()
    path = "/v2/replicas/old0[01235678]"
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": path, "status": 202, **FOREVER}])
    items = tavus.apply(plan)
    assert items["old04"][0] == "deleted"
    assert [outcome for outcome, _ in items.values()].count("unknown") == 8


def test_a_delete_that_was_applied_without_an_answer_is_confirmed(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(
        faults=[{"method": "DELETE", "path": "/v2/replicas/old00", "close": True, "when": "after"}]
    )
    items = tavus.apply(plan)
    assert items["old00"][0] == "confirmed"
    assert len(tavus.deletes) == 3


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_never_more_requests_are_under_way_than_the_setting_says(account, concurrency):
    tavus = account(world(old=12))
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(latency=0.01)
    tavus.apply(plan, concurrency=concurrency)
    seen = tavus.sandbox.state()["requests"][tavus.planned_at :]
    assert max(request["in_flight"] for request in seen) <= concurrency
    assert len(tavus.deletes) == 12


def test_progress_is_told_as_it_goes(account):
    tavus = account()
    tavus.apply(tavus.plan())
    assert [line.split("; ")[-1].split(",")[0] for line in tavus.lines] == [
        f"{n} of 3 done" for n in (1, 2, 3)
    ]
    assert tavus.lines[0].startswith("deleted: old00 (DELETE /v2/replicas/old00 returned 200); 1 of 3 done, ")
    assert tavus.lines[-1].endswith("/s, 0 s left")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_starts_no_further_delete_and_leaves_a_true_report(account, monkeypatch, error):
    tavus = account(world(old=8))
    plan = tavus.plan()
    under_way = threading.Event()

    def log(line):
        assert under_way.wait(60)
        raise error

    application = tavus.application(plan, log=log)
    real = tavus.hook.delete_replica

    def delete_replica(replica_id, *, hard):
        # The interruption comes while the first is reported and the second is under way.
        if replica_id != "old00":
            under_way.set()
            assert application._stop.wait(60)
        return real(replica_id, hard=hard)

    monkeypatch.setattr(tavus.hook, "delete_replica", delete_replica)
    with pytest.raises(error):
        application.run()
    report = application.report()
    assert_partition(report, plan)
    assert [d["replica_id"] for d in tavus.deletes] == ["old00", "old01"]
    assert [item["outcome"] for item in report["items"]] == ["deleted"] * 2 + ["not_attempted"] * 6
    assert {item["detail"] for item in report["items"][2:]} == {"the run was stopped"}


def test_a_task_that_is_told_to_stop_starts_no_further_delete_and_another_try_goes_on(account):
    tavus = account(world(old=8))
    plan = tavus.plan()
    application = tavus.application(plan, log=lambda line: application.stop("told so"))
    application.run()
    report = application.close()
    assert_partition(report, plan)
    done = [item["replica_id"] for item in report["items"] if item["outcome"] == "deleted"]
    assert done == [d["replica_id"] for d in tavus.deletes]
    assert 0 < len(done) < 4
    assert report["items"][-1] == {
        "replica_id": "old07",
        "outcome": "not_attempted",
        "detail": "not attempted: told so",
    }
    assert application.may_heal


def test_what_was_done_is_recorded_before_the_account_is_read_once_more(account, monkeypatch):
    tavus = account()
    plan = tavus.plan()
    application = tavus.application(plan)
    real = tavus.hook.list_replicas

    def list_replicas(*, while_deleting):
        if tavus.deletes:
            raise KeyboardInterrupt  # killed while it looks what is left
        return real(while_deleting=while_deleting)

    monkeypatch.setattr(tavus.hook, "list_replicas", list_replicas)
    with pytest.raises(KeyboardInterrupt):
        application.run()
    (one,) = verify(ledger_root())[0]
    assert one.outcomes == {f"old0{n}": "deleted" for n in range(3)}


def test_while_a_delete_is_under_way_the_report_calls_it_unknown(account, monkeypatch):
    tavus = account()
    plan = tavus.plan()
    application = tavus.application(plan)
    real, seen = tavus.hook.delete_replica, []

    def delete_replica(replica_id, *, hard):
        seen.append([item["outcome"] for item in application.report()["items"]])
        return real(replica_id, hard=hard)

    monkeypatch.setattr(tavus.hook, "delete_replica", delete_replica)
    application.run()
    assert seen[1] == ["deleted", "unknown", "not_attempted"]


def test_a_report_before_anything_was_done_says_that_nothing_was(account):
    tavus = account()
    plan = tavus.plan()
    report = tavus.application(plan).report()
    assert_partition(report, plan)
    assert {item["outcome"] for item in report["items"]} == {"not_attempted"}


# -- the look afterwards


def test_a_permanent_delete_that_was_answered_and_not_done_is_unknown(account):
    tavus = account()
    plan = tavus.plan(hard=True)
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 200, **FOREVER}])
    items = tavus.apply(plan)
    assert set(items.values()) == {
        ("unknown", f"DELETE /v2/replicas/old0{n}?hard=true returned 200; it is still listed")
        for n in range(3)
    }
    assert tavus.deletes == []


def test_soft_deletes_of_an_account_that_lists_them_are_done_and_said_to_be_unseen(account):
    tavus = account()
    tavus.sandbox.switch(soft_deleted="listed")
    items = tavus.apply(tavus.plan())
    assert len(tavus.deletes) == 3
    assert items["old00"] == (
        "deleted",
        "DELETE /v2/replicas/old00 returned 200; this account lists soft-deleted replicas, so its absence could not be seen",
    )
    assert {outcome for outcome, _ in items.values()} == {"deleted"}


@pytest.mark.parametrize("hard", [False, True])
def test_what_tavus_says_it_does_not_know_and_still_lists_is_unknown(account, hard):
    tavus = account()
    plan = tavus.plan(hard=hard)
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 404, **FOREVER}])
    items = tavus.apply(plan)
    assert {outcome for outcome, _ in items.values()} == {"unknown"}
    assert all(detail.endswith("; it is still listed") for _, detail in items.values())
    assert tavus.deletes == []


def test_not_known_and_still_listed_is_said_to_be_unseen_where_soft_deletes_are_listed(account):
    tavus = account()
    tavus.sandbox.switch(soft_deleted="listed")
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/old01", "status": 404}])
    outcome, detail = tavus.apply(plan)["old01"]
    assert outcome == "already_gone"
    assert detail.endswith("; this account lists soft-deleted replicas, so its absence could not be seen")


def test_what_a_killed_try_has_begun_softly_may_be_gone_and_listed(account):
    tavus = account()
    tavus.sandbox.switch(soft_deleted="listed")
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "status": 404, **FOREVER}])
    items = tavus.apply(plan, earlier={"old00": None}, begun_before=True)
    assert items["old00"][0] == "already_gone"
    assert items["old00"][1].endswith("unseen")
    assert {items["old01"][0], items["old02"][0]} == {"unknown"}


def test_what_was_found_gone_and_listed_after_a_kill_is_so_for_the_next_try_too(account):
    tavus = account()
    tavus.sandbox.switch(soft_deleted="listed")
    plan = tavus.plan()
    ids = [row["replica_id"] for row in plan["delete"]]
    tavus.sandbox.put("replicas", *({"replica_id": one, "deleted": "soft"} for one in ids))
    earlier: dict[str, str | None] = dict.fromkeys(ids)
    for _ in range(3):
        items = tavus.apply(plan, earlier=earlier, begun_before=True)
        earlier = {one: outcome for one, (outcome, _) in items.items()}
        assert set(earlier.values()) == {"already_gone"}
        assert all(detail.endswith("unseen") for _, detail in items.values())


def test_a_soft_delete_that_is_still_listed_although_others_have_left_is_unknown(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/old01", "status": 200}])
    items = tavus.apply(plan)
    assert items["old01"] == ("unknown", "DELETE /v2/replicas/old01 returned 200; it is still listed")
    assert [items[i][0] for i in ("old00", "old02")] == ["deleted", "deleted"]


def test_where_the_list_cannot_be_read_afterwards_absence_is_not_claimed(account):
    tavus = account()
    plan = tavus.plan()

    def break_it(line):
        tavus.lines.append(line)
        tavus.sandbox.switch(faults=[{"method": "GET", "path": "/v2/replicas", "status": 403, **FOREVER}])

    items = tavus.apply(plan, log=break_it)
    assert items["old00"] == ("deleted", "DELETE /v2/replicas/old00 returned 200; absence was not seen")
    assert tavus.lines[-1].startswith(
        "What is left could not be read afterwards, so absence was not seen: GET"
    )


def test_nothing_that_was_left_alone_is_looked_at_afterwards(account):
    tavus = account()
    plan = tavus.plan()
    for n in range(3):
        tavus.sandbox.put("replicas", {"replica_id": f"old0{n}", "replica_name": "another"})
    tavus.apply(plan)
    assert tavus.asked() == [
        f"GET /v2/{kind}" for kind in ("replicas", "personas", "conversations", "videos")
    ]


def test_planning_again_after_applying_finds_nothing(account):
    tavus = account()
    tavus.apply(tavus.plan())
    assert tavus.plan()["delete"] == []


def test_applying_the_same_plan_twice_deletes_each_replica_once(account):
    tavus = account()
    plan = tavus.plan()
    tavus.apply(plan)
    items = tavus.apply(plan, earlier_tries=True)
    assert set(items.values()) == {
        ("already_gone", "is no longer listed; possibly deleted by an earlier attempt of this task")
    }
    assert len(tavus.deletes) == 3


# -- dry


def test_a_dry_report_skips_everything_and_says_why(account):
    tavus = account()
    plan = tavus.plan()
    report = dry_report(plan)
    assert_partition(report, plan)
    assert report["dry_run"] is True
    assert {(item["outcome"], item["detail"]) for item in report["items"]} == {("skipped", "dry run")}
    assert tavus.asked() == []


# -- one replica, chosen by hand


HAND = [
    pytest.param("r1a0c5e8f3b2", "chosen by hand", id="old"),
    pytest.param("rd6a1c3f7e82", "chosen by hand", id="young"),
    pytest.param(
        "r9d6a2b4f8e1",
        "chosen by hand although status is 'archived', not one of started, completed, error",
        id="status-in-doubt",
    ),
    pytest.param("r6a3d9e1c5b8", "chosen by hand although created_at is not given", id="no-date"),
    pytest.param(
        "r4d1e7a9c3f6",
        "chosen by hand although failed 20 hours ago, "
        "a delete within 72h can lose the refund of the training",
        id="failed-recently",
    ),
]


@pytest.mark.parametrize(("replica_id", "reason"), HAND)
def test_a_replica_chosen_by_hand_may_go_whatever_its_age_and_doubt_is_said(hook, replica_id, reason):
    verdict = decide_one(hook, replica_id, now=now)
    assert (verdict.status, verdict.rule, verdict.reason) == ("expired", "by hand", reason)


@pytest.mark.parametrize(
    ("replica_id", "reason"),
    [
        pytest.param("rb1f8c4d6e0a", "replica_type is 'system', not 'user'", id="stock"),
        pytest.param("rae7b3c5a9f2", "replica_type is 'user'', not 'user'", id="type-in-doubt"),
        pytest.param("rf8c6e5b1a20", "is the default of persona p1c2d3e4f5a6", id="persona"),
        pytest.param("r09d7f2c4b6a", "is in active conversation c0eaa60a267274af", id="conversation"),
        pytest.param("r1ae8b0d3c5f", "is in video 1e30440cf9, which is generating", id="video"),
    ],
)
def test_a_stock_replica_and_one_in_use_are_refused_although_a_person_chose_them(hook, replica_id, reason):
    with pytest.raises(PlanRejectedError) as caught:
        decide_one(hook, replica_id, now=now)
    assert str(caught.value) == (
        f"replica {replica_id} cannot be deleted by hand: {reason}; nothing was deleted"
    )


def test_a_replica_that_tavus_does_not_know_is_chosen_only_if_that_is_fine(hook):
    with pytest.raises(ReplicaNotFoundError, match="GET /v2/replicas/r404 returned 400: Invalid replica_id"):
        decide_one(hook, "r404", now=now)
    verdict = decide_one(hook, "r404", now=now, ignore_if_missing=True)
    assert verdict.reason.endswith("returned 400: Invalid replica_id; it may be soft-deleted already")
