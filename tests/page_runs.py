"""Runs in the states that the Tavus page shows, for its tests."""

from __future__ import annotations

from datetime import timedelta

from fake_airflow import NOW, POLICY, Run, company, erasure, many, replicas

from tavus_provider.outcomes import Outcome

HOUR = timedelta(hours=1)


WIDE = {**POLICY, "limits": {"max_deletions": 20, "max_deletion_percent": 50}}
UNLIMITED = {**POLICY, "limits": {"max_deletions": 6_000, "max_deletion_percent": 100}}


def run(state: str = "success", *, dag: str = "tavus_purge_replicas", hard: bool = True, **fields) -> Run:
    fields = {"user": "jo.fischer", "when": NOW - HOUR, **fields}
    return Run(dag, fields.pop("run_id", "manual__1"), state=state, hard=hard, **fields)


def scheduled(state: str = "success", **fields) -> Run:
    return run(state, **{"dag": "tavus_prune_replicas", "hard": False, "user": None, **fields})


def failed_apply() -> Run:
    made = run("failed").planned(policy=WIDE).asked("Approve")
    unknown = (Outcome.UNKNOWN, "DELETE returned 500; it is still listed")
    return made.applied("failed", made.report(a=unknown, b=unknown))


def stopped() -> Run:
    made = scheduled("failed").planned(policy=WIDE)
    left = (Outcome.NOT_ATTEMPTED, "the task received a request to stop")
    return made.applied("failed", made.report(a=left))


def over_the_limit() -> Run:
    low = {**POLICY, "limits": {"max_deletions": 5, "max_deletion_percent": 25}}
    return scheduled("failed").planned(policy=low, state="failed").add("apply", "upstream_failed")


def refused_key() -> Run:
    made = scheduled("failed").add("plan", "failed").add("apply", "upstream_failed")
    message = "Tavus rejected the API key of connection tavus_default (401)"
    made.push("plan", {"version": 1, "kind": "TavusAuthError", "message": message}, "error")
    return made


def timed_out() -> Run:
    return run("failed").planned(policy=WIDE).asked(state="failed").add("apply", "upstream_failed")


def batched(state: str = "success", *, batches: int = 115, summary: str | None = "success", **fields) -> Run:
    fields = {"dag": "tavus_prune_replicas_batched", "hard": False, **fields}
    made = run(state, **fields).planned(policy=WIDE).add("split")
    for number in range(batches):
        made.add("apply", map_index=number, minutes=5)
    if summary:
        made.add("summary", summary, minutes=9)
        made.push("summary", made.report())
    return made


def batch_failed() -> Run:
    made = batched("failed", summary="failed")
    for task in made.tasks:
        if task["map_index"] == 111:
            task["state"] = "failed"
    made.push("summary", made.report(a=(Outcome.FAILED, "DELETE returned 429")))
    return made


def look_failed() -> Run:
    made = run("failed", dag="tavus_delete_replica").add("look", "failed")
    for task in ("choose", "delete", "approve"):
        made.add(task, "upstream_failed")
    made.push("look", {"version": 1, "kind": "X", "message": "replica r1 does not exist"}, "error")
    return made


def split_failed() -> Run:
    made = batched("failed", batches=0, summary=None)
    made.tasks[-1]["state"] = "failed"
    return made.add("apply", "upstream_failed").add("summary", "upstream_failed")


def other_task_failed() -> Run:
    return scheduled("failed").planned(policy=WIDE).add("announce", "failed").add("apply", "upstream_failed")


def nothing_to_delete() -> Run:
    none = {**POLICY, "expire": [{"rule": "old", "older_than": "900d"}]}
    return run().planned(policy=none).add("approve", "skipped").add("apply", "skipped")


def marked_by_hand() -> Run:
    made = scheduled().planned(policy=WIDE)
    return made.add("apply")


def waiting(*, when=NOW - HOUR) -> Run:
    made = run("running", when=when)
    return made.planned(policy=WIDE).asked(state="awaiting_input").add("apply", None)


RUNS = {
    "approved": (
        lambda: run().planned(policy=WIDE).asked("Approve").applied(),
        "Success",
        "8 of 8 deleted permanently, 1 undetermined, 15 kept",
        "8 deleted",
    ),
    "rejected": (
        lambda: run().planned(policy=WIDE).asked("Reject").add("apply", "skipped"),
        "Success",
        "Rejected, nothing deleted, 8 had been planned",
        "rejected by maria.santos, ",
    ),
    "timeout": (timed_out, "Failed", "Nothing deleted, 8 had been", "!Not approved: nobody answered"),
    "waiting": (
        waiting,
        "Awaiting Input",
        "8 to delete permanently, 1 undetermined",
        "waits for approval until",
    ),
    "dry run": (
        lambda: scheduled().planned(policy=WIDE).applied(dry_run=True),
        "Success",
        "Dry run: 8 would be deleted, 1 undetermined",
        "dry run: 8 replicas would be deleted",
    ),
    "nothing": (
        nothing_to_delete,
        "Success",
        "This run found nothing to delete, 1 undetermined",
        "nothing to delete",
    ),
    "apply": (failed_apply, "Failed", "6 of 8 deleted", "!2 of 8 replicas may still exist"),
    "stopped": (stopped, "Failed", "7 of 8 deleted", "!The task received a request to stop"),
    "limit": (over_the_limit, "Failed", "Nothing deleted, 8 had been planned", "!Over the limit"),
    "key": (refused_key, "Failed", "Plan failed: API key refused", "!Tavus rejected the API key"),
    "look": (look_failed, "Failed", "Look failed", "!Replica r1 does not exist"),
    "split": (split_failed, "Failed", "Nothing deleted, 8 had been planned", "!Split failed"),
    "batched": (batched, "Success", "8 of 8 deleted", "8 deleted"),
    "batch": (batch_failed, "Failed", "7 of 8 deleted", "!1 of 8 replicas may still exist"),
    "other task": (other_task_failed, "Failed", "Nothing deleted", "!Announce failed"),
    "time limit": (
        lambda: scheduled("failed").planned(policy=WIDE).add("apply", "skipped"),
        "Failed",
        "Nothing deleted",
        "!Failed before all its tasks had run",
    ),
    "marked by hand": (marked_by_hand, "Success", "No report, 8 had been planned", "!No report"),
}


def one_old_replica(age: int, *, when=NOW, **fields) -> Run:
    """Return a run with one replica, which expires after 90 days."""
    policy = {**WIDE, "expire": [{"rule": "old", "older_than": "90d"}]}
    return scheduled(when=when, **fields).planned(replicas(when, [("a", age, "completed")]), policy=policy)


def two_accounts() -> list[Run]:
    eu = scheduled(
        dag="tavus_prune_eu", run_id="scheduled__eu", connection="tavus_eu", origin="https://eu.example.com"
    )
    return [*company(), eu.planned(replicas()[:14], policy=WIDE).applied()]


def failed_since_yesterday() -> list[Run]:
    before = scheduled(run_id="s1", when=NOW - 25 * HOUR).planned(policy=WIDE).applied()
    failed = refused_key()
    return [before, failed]


def with_erasures() -> list[Run]:
    found = {
        "what": "Videos that still exist",
        "count": 2,
        "subjects": [],
        "next_step": "Trigger the DAG again",
    }
    folder = "s3://company-airflow/tavus-ledger/_certificates"
    return [
        *company(),
        erasure("DSR-2026-0151", "running", when=NOW - 2 * HOUR, due="2099-01-31"),
        erasure(
            "DSR-2026-0148",
            "failed",
            when=NOW - 3 * HOUR,
            due="2026-01-31",
            certificate={"state": "incomplete", "open": [found]},
            summary=f"Erasure DSR-2026-0148: incomplete; certificate 1 is at {folder}/DSR-2026-0148/1.json",
        ),
        erasure(
            "DSR-2026-0142",
            when=NOW - 9 * HOUR,
            due="2026-01-31",
            certificate={"state": "complete", "open": []},
            summary=f"Erasure DSR-2026-0142: complete; certificate 1 is at {folder}/DSR-2026-0142/1.json",
        ),
    ]


def nightly() -> list[Run]:
    """Return the runs of a DAG that deletes each night, with one replica that expires tomorrow."""
    runs: list[Run] = []
    for nights in (2, 1):
        when = NOW - 24 * HOUR * nights + 12 * HOUR
        names = [*many(3), ("webinar-q2_emil-strand", 180 - nights, "completed")]
        if nights == 2:
            names.append(("sales-2025_ida-holm", 181, "completed"))
        made = scheduled(run_id=f"s{nights}", when=when)
        before = runs[-1] if runs else None
        runs.append(made.planned(replicas(when, names), policy=WIDE, before=before, used=()).applied())
    return runs


def real_deletes_beside_a_purge() -> list[Run]:
    """Return the runs of a company whose next nightly run deletes, while a purge waits for an approval."""
    runs = company()
    for made in runs:
        made.is_dry = False
    return runs
