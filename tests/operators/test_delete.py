"""Delete one replica, and look it up before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from erasures import plan_erasure
from operators.tasks import OLD, Ti, delete, look_up, requests, run
from plans import approve_plan

from tavus_provider.client import rate_limiter
from tavus_provider.exceptions import TavusOutcomeUnknownError, TavusRetryableError
from tavus_provider.operators import base
from tavus_provider.storage.attempts import read_attempts
from tavus_provider.storage.ledger import ledger_root, list_jobs


@pytest.mark.parametrize(("hard", "query"), [(False, ""), (True, "?hard=true")])
def test_replica_is_deleted(sandbox, hard, query):
    assert run(delete(hard=hard)) == {
        "replica_id": OLD,
        "hard": hard,
        "outcome": "deleted",
        "detail": f"DELETE /v2/replicas/{OLD}{query} returned 200",
    }
    assert sandbox.state()["deletes"] == [{"replica_id": OLD, "hard": hard}]
    assert requests(sandbox) == [f"DELETE /v2/replicas/{OLD}"]


@pytest.mark.parametrize(
    "bad",
    [
        *("", " ", "..", "x?hard=true", "None", "none", "null", "a/b", "r1\n", "{{ x }}", "r" * 65),
        *("['r1', 'r2']", None, True, 1000, 1e5, ["r1"], {"id": "r1"}, b"r1"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("make", [delete, look_up])
def test_invalid_id_fails_without_retry(sandbox, make, bad):
    with pytest.raises(AirflowFailException) as caught:
        run(make(bad))
    message = str(caught.value)
    assert message.startswith("replica_id: ")
    assert message.endswith("such as 'rf4e9d9790f0'; nothing was sent")
    assert "\n" not in message
    assert requests(sandbox) == []


@pytest.mark.parametrize("unknown_id", ["400-error", "400-message", "404"])
def test_missing_replica_fails_with_possible_causes(sandbox, unknown_id):
    sandbox.switch(unknown_id=unknown_id)
    with pytest.raises(AirflowFailException) as caught:
        run(delete("r404"))
    message = str(caught.value)
    assert message.startswith("DELETE /v2/replicas/r404 returned 40")
    assert message.endswith(
        "; it does not exist, was already deleted, or belongs to another account. "
        "To accept a missing replica, set ignore_if_missing=True"
    )


def test_missing_replica_is_already_gone_if_ignored(sandbox):
    done = run(delete("r404", ignore_if_missing=True))
    assert (done["outcome"], done["hard"]) == ("already_gone", False)
    assert done["detail"].endswith("; it does not exist, was already deleted, or belongs to another account")


def test_missing_replica_on_retry_names_the_earlier_attempt(sandbox):
    done = run(delete("r404", ignore_if_missing=True), Ti(try_number=2))
    assert done["detail"].endswith("Invalid replica_id; possibly deleted by an earlier attempt of this task")
    with pytest.raises(
        AirflowFailException, match=r"possibly deleted by an earlier attempt of this task. To accept a"
    ):
        run(delete("r404"), Ti(try_number=2))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 409])
def test_rejected_delete_fails_without_retry(sandbox, status):
    sandbox.switch(faults=[{"method": "DELETE", "status": status, "times": None}])
    with pytest.raises(AirflowFailException, match=f"^DELETE /v2/replicas/{OLD} returned {status}: "):
        run(delete())
    assert len(requests(sandbox, "DELETE")) == (2 if status == 401 else 1)  # a single 401 proves nothing


@pytest.mark.parametrize(
    ("fault", "error", "sent"),
    [
        pytest.param({"status": 500}, TavusOutcomeUnknownError, 3, id="500"),
        pytest.param({"close": True}, TavusOutcomeUnknownError, 3, id="closed connection"),
        pytest.param({"status": 429}, TavusRetryableError, 3, id="429"),
        pytest.param(
            {"status": 429, "retry_after": "99999"}, TavusRetryableError, 1, id="Retry-After of a day"
        ),
    ],
)
def test_failure_that_a_retry_may_fix_is_retried(sandbox, fault, error, sent):
    sandbox.switch(faults=[{"method": "DELETE", "times": None, **fault}])
    with pytest.raises(error):
        run(delete())
    assert len(requests(sandbox, "DELETE")) == sent
    assert sandbox.state()["deletes"] == []


def test_mapped_deletes_have_one_task_and_label_per_replica(sandbox, run_dag, tmp_path):
    (tmp_path / "mapped.py").write_text(
        "from airflow.sdk import DAG\n"
        "from tavus_provider.operators.tavus import DeleteReplicaOperator\n"
        "with DAG('mapped', schedule=None):\n"
        "    task = DeleteReplicaOperator.partial(task_id='delete', hard=True)\n"
        f"    task.expand(replica_id=['{OLD}', 'r404', 'r2b9d41c07ae'])\n"
    )
    ran = run_dag("mapped", folder=tmp_path)
    assert ran.states == {("delete", 0): "success", ("delete", 1): "failed", ("delete", 2): "success"}
    labels = [ran.instances["delete", at].rendered_map_index for at in range(3)]
    assert labels == [OLD, "r404", "r2b9d41c07ae"]
    assert sorted(sandbox.state()["deletes"], key=lambda d: d["replica_id"]) == [
        {"replica_id": OLD, "hard": True},
        {"replica_id": "r2b9d41c07ae", "hard": True},
    ]


# -- legal holds of the deployment


def test_held_replica_is_not_deleted(sandbox, held):
    for task in (look_up(), delete(), delete(hard=True)):
        with pytest.raises(
            AirflowFailException, match=f"^replica {OLD} is under legal hold; nothing was deleted$"
        ):
            run(task)
    assert requests(sandbox, "DELETE") == []
    assert run(look_up("r2b9d41c07ae"))["delete"]
    assert run(delete("r2b9d41c07ae"))["outcome"] == "deleted"


def test_hold_after_an_unknown_outcome_does_not_claim_that_nothing_was_deleted(sandbox, held):
    held.write_text("[]")
    deleted_without_a_response = [
        {"method": "DELETE", "status": 500, "when": "after", "times": None},
        {"method": "GET", "path": f"/v2/replicas/{OLD}", "status": 500, "times": None},
    ]
    sandbox.switch(faults=deleted_without_a_response)
    with pytest.raises(TavusOutcomeUnknownError):
        run(delete(), Ti(try_number=1))
    sent = len(requests(sandbox, "DELETE"))
    held.write_text(f"[{OLD}]")
    with pytest.raises(
        AirflowFailException,
        match=r"this attempt deleted nothing, but an earlier attempt may have deleted it$",
    ):
        run(delete(), Ti(try_number=2))
    assert len(requests(sandbox, "DELETE")) == sent


def test_nothing_is_deleted_if_the_legal_holds_cannot_be_read(sandbox, held):
    held.unlink()
    for task in (look_up("r2b9d41c07ae"), delete("r2b9d41c07ae")):
        with pytest.raises(AirflowFailException, match=r"holds\.yaml"):
            run(task)
    assert requests(sandbox, "DELETE") == []


# -- with the plan that was approved


def approved(replica_id=OLD, **more):
    """Return a task that deletes a replica permanently with the plan that was approved."""
    plan = approve_plan(run(look_up(replica_id)))
    return delete(replica_id, hard=True, plan=plan, **more)


def test_approved_replica_is_deleted_permanently(sandbox):
    assert run(approved())["outcome"] == "deleted"
    assert [(row["replica_id"], row["hard"]) for row in sandbox.state()["deletes"]] == [(OLD, True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda tavus, _: tavus.put("personas", {"persona_id": "p1", "default_replica_id": OLD}),
            "cannot be deleted by hand: is the default of persona p1",
            id="in use",
        ),
        pytest.param(
            lambda tavus, _: tavus.put("replicas", {"replica_id": OLD, "replica_name": "another"}),
            "replica_name changed since the plan was made",
            id="renamed",
        ),
        pytest.param(
            lambda _, task: setattr(task, "replica_id", "r2b9d41c07ae"),
            "replica r2b9d41c07ae is not in the plan",
            id="another id",
        ),
        pytest.param(
            lambda _, task: setattr(task, "plan", run(look_up())),
            "the ledger has no record of an approval of this plan in this run",
            id="not approved",
        ),
        pytest.param(
            lambda _, task: setattr(task, "plan", None),
            "it is of type NoneType",
            id="missing plan",
        ),
        pytest.param(
            lambda _, task: task.plan.update(listed=7), "was changed after it was made", id="changed plan"
        ),
    ],
)
def test_approved_replica_that_changed_is_not_deleted(sandbox, change, message):
    task = approved()
    change(sandbox, task)
    with pytest.raises(AirflowFailException, match=message):
        run(task)
    assert requests(sandbox, "DELETE") == []


def test_approval_expires_with_its_plan(sandbox, monkeypatch):
    task = approved()
    monkeypatch.setattr(base, "now", lambda: datetime.now(UTC) + timedelta(hours=25))
    with pytest.raises(AirflowFailException, match="it expired at"):
        run(task)
    assert requests(sandbox, "DELETE") == []


# -- look up


def test_look_up_returns_a_plan_for_one_permanent_delete(sandbox):
    plan = run(look_up())
    assert [(row["replica_id"], row["reason"]) for row in plan["delete"]] == [(OLD, "chosen by hand")]
    assert plan["hard"] is True
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize(
    ("replica_id", "reason"),
    [
        pytest.param("rb1f8c4d6e0a", "replica_type is 'system', not 'user'", id="stock"),
        pytest.param("rf8c6e5b1a20", "is the default of persona p1c2d3e4f5a6", id="persona"),
        pytest.param("r09d7f2c4b6a", "is in active conversation c0eaa60a267274af", id="conversation"),
        pytest.param("r1ae8b0d3c5f", "is in video 1e30440cf9, which is generating", id="video"),
    ],
)
@pytest.mark.parametrize("ignore", [False, True])
def test_look_up_fails_for_a_stock_replica_or_one_in_use(sandbox, replica_id, reason, ignore):
    with pytest.raises(AirflowFailException) as caught:
        run(look_up(replica_id, ignore_if_missing=ignore))
    assert (
        str(caught.value) == f"replica {replica_id} cannot be deleted by hand: {reason}; nothing was deleted"
    )


def test_look_up_fails_for_a_missing_replica_unless_ignored(sandbox):
    with pytest.raises(
        AirflowFailException, match=r"^GET /v2/replicas/r404 returned 400: Invalid replica_id"
    ):
        run(look_up("r404"))
    (row,) = run(look_up("r404", ignore_if_missing=True))["delete"]
    assert row["replica_id"] == "r404"
    assert row["reason"].endswith("it may be soft-deleted already")


# -- a wait between what is read and the delete


@pytest.fixture
def wait_for(sandbox, clock, monkeypatch):
    """
    Reject the first delete with a Retry-After, and let something happen meanwhile.

    ``wait_for(70, change)``
    """

    def arrange(seconds, change):
        run(look_up())  # creates the rate limiter
        (limiter,) = rate_limiter._shared.values()
        changes = [change]

        def sleep(duration, stop):
            if duration > 5 and changes:
                changes.pop()()
            return clock.sleep(duration, stop)

        monkeypatch.setattr(limiter, "sleep", sleep)
        monkeypatch.setattr(base, "monotonic", clock)
        sandbox.switch(faults=[{"method": "DELETE", "status": 429, "retry_after": str(seconds)}])

    return arrange


def test_hold_that_begins_while_the_delete_waits_counts(sandbox, held, wait_for):
    held.write_text("[]")
    wait_for(70, lambda: held.write_text(f'["{OLD}"]'))
    with pytest.raises(
        AirflowFailException, match=f"^replica {OLD} is under legal hold; nothing was deleted$"
    ):
        run(delete())
    assert len(requests(sandbox, "DELETE")) == 1
    (attempt,) = read_attempts(ledger_root(), list_jobs(ledger_root()))[-1:]
    assert attempt.outcomes == {OLD: "not_attempted"}


def test_erasure_that_begins_while_the_delete_waits_counts(sandbox, wait_for):
    wait_for(70, lambda: plan_erasure(replica_ids=[OLD]))
    with pytest.raises(AirflowFailException, match=f"^replica {OLD} belongs to the erasure DSR-2026-0142"):
        run(delete())
    assert len(requests(sandbox, "DELETE")) == 1


@pytest.mark.parametrize("spell", [str, str.upper])
def test_replica_of_an_open_erasure_is_not_deleted_in_any_letter_case(sandbox, spell):
    plan_erasure(replica_ids=[OLD])
    with pytest.raises(AirflowFailException, match="belongs to the erasure DSR-2026-0142"):
        run(delete(replica_id=spell(OLD)))
    assert requests(sandbox, "DELETE") == []


def test_use_that_begins_while_an_approved_delete_waits_counts(sandbox, wait_for):
    task = approved()
    persona = {"persona_id": "p1", "default_replica_id": OLD}
    wait_for(70, lambda: sandbox.put("personas", persona))
    with pytest.raises(AirflowFailException, match="cannot be deleted by hand: is the default of persona p1"):
        run(task)
    assert len(requests(sandbox, "DELETE")) == 1


def test_holds_that_cannot_be_read_again_are_retried(sandbox, held, wait_for):
    held.write_text("[]")
    wait_for(70, held.unlink)
    with pytest.raises(TavusRetryableError, match="what is held and in use could not be read again"):
        run(delete())
    assert len(requests(sandbox, "DELETE")) == 1


def test_plan_that_expires_while_the_delete_waits_is_not_carried_out(sandbox, wait_for, monkeypatch):
    hours = [0]
    monkeypatch.setattr(base, "now", lambda: datetime.now(UTC) + timedelta(hours=sum(hours)))
    task = approved()
    wait_for(70, lambda: hours.append(25))
    with pytest.raises(TavusRetryableError, match="the plan expired at"):
        run(task)
    assert len(requests(sandbox, "DELETE")) == 1


def test_delete_is_sent_after_a_wait_that_changed_nothing(sandbox, held, wait_for):
    held.write_text("[]")
    wait_for(70, lambda: None)
    assert run(delete())["outcome"] == "deleted"
    assert len(requests(sandbox, "DELETE")) == 2


def test_approved_replica_is_not_read_again_after_a_short_wait(sandbox, wait_for):
    task, before = approved(), []
    wait_for(20, lambda: before.append(len(requests(sandbox))))
    assert run(task)["outcome"] == "deleted"
    assert requests(sandbox)[before[0] :] == [f"DELETE /v2/replicas/{OLD}"]
