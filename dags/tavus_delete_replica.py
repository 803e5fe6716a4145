"""
### Trigger deletes one Tavus replica now; a permanent delete waits for an approval

`look` reads the replica and fails if it is a stock replica or in use. A permanent delete, which includes the
training footage, must be approved first. **Neither delete can be undone.**
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from tavus_provider.operators.tavus import (
    ApproveRetentionOperator,
    DeleteReplicaOperator,
    LookUpReplicaOperator,
)

with DAG(
    dag_id="tavus_delete_replica",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    default_args={"owner": "tavus"},
    owner_links={"tavus": "https://docs.tavus.io/"},
    tags=["tavus", "irrevocable"],
    # Params without a section are in the part of the form that is open from the start.
    params={
        "replica_id": Param(
            "",
            type="string",
            pattern="^[A-Za-z0-9][A-Za-z0-9_-]{1,63}$",
            minLength=2,
            maxLength=64,
            title="Replica",
            description_md="**Trigger deletes this replica now**, unless *Permanently* is on.\n\n"
            "Id of the replica, for example rf4e9d9790f0: letters, digits, - and _.",
        ),
        "permanent": Param(
            False,
            type="boolean",
            title="Permanently, with its training footage",
            description_md="**Cannot be undone:** the replica and the footage it was trained on are deleted "
            "permanently. A person has to approve this first, under *Required Actions*. Off: a soft delete; "
            "Tavus documents no undo for that either.",
        ),
        "ignore_if_missing": Param(
            False,
            type="boolean",
            section="If the replica does not exist",
            title="Succeed if it is already gone",
            description="Off: an id that Tavus does not know fails the run, because it may be mistyped.",
        ),
    },
) as dag:
    look = LookUpReplicaOperator(
        task_id="look",
        # A mistyped key, such as "hard" for "permanent", must not be ignored.
        strict_conf=True,
        replica_id="{{ params.replica_id }}",
        permanent="{{ params.permanent }}",
        ignore_if_missing="{{ params.ignore_if_missing }}",
        doc_md="""
Reads the replica and what uses it. Fails for a stock replica, for a replica in use, and for an id that Tavus
does not know.
""",
    )

    @task.branch(doc_md="Continues with `approve` for a permanent delete, otherwise with `delete`.")
    def choose(permanent: bool) -> str:
        return "approve" if permanent else "delete"

    chosen = choose("{{ params.permanent }}")  # type: ignore[arg-type]  # rendered as a bool
    delete = DeleteReplicaOperator(
        task_id="delete",
        strict_conf=True,
        replica_id="{{ params.replica_id }}",
        hard=False,
        ignore_if_missing="{{ params.ignore_if_missing }}",
        plan=look.output,
        doc_md="""
Reads the replica again and soft-deletes it if it is unchanged and not in use. **There is no undelete.**

XCom `return_value` has the outcome.
""",
    )
    approve = ApproveRetentionOperator(
        task_id="approve",
        plan=look.output,
        doc_md="""
Shows the replica under *Required Actions* and waits for a person.

*Approve* allows the permanent delete, *Reject* ends the run, and no answer within 24 hours fails it.
""",
    )
    delete_permanently = DeleteReplicaOperator(
        task_id="delete_permanently",
        replica_id="{{ params.replica_id }}",
        # Needs the approval in the ledger, so marking `approve` as success deletes nothing.
        hard=True,
        ignore_if_missing="{{ params.ignore_if_missing }}",
        plan=look.output,
        doc_md="""
Deletes the approved replica **permanently, with its training footage**, if it is unchanged since it was
shown, is not in use, and was read within the last 24 hours.
""",
    )
    look >> chosen >> [delete, approve]
    approve >> delete_permanently
