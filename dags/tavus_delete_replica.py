"""
### Delete one Tavus replica by hand

`look` reads the replica and refuses it if it is a stock replica or in use. A permanent delete, which
takes the training footage too, passes an approval first. **Neither can be undone.**
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
    # What has no section stands in one that is open from the start.
    params={
        "replica_id": Param(
            "",
            type="string",
            pattern="^[A-Za-z0-9][A-Za-z0-9_-]{1,63}$",
            minLength=2,
            maxLength=64,
            title="Replica",
            description="Id of the replica, such as rf4e9d9790f0: letters, digits, - and _.",
        ),
        "permanent": Param(
            False,
            type="boolean",
            title="Permanently, with its training footage",
            description_md="**Cannot be undone:** the replica and the footage it was trained on are gone for "
            "ever. Somebody has to approve it first, under *Required Actions*. Off: a soft delete; Tavus "
            "documents no undo for that either.",
        ),
        "ignore_if_missing": Param(
            False,
            type="boolean",
            section="If it is not there",
            title="Fine if it is gone already",
            description="Otherwise an id that Tavus does not know fails the run: it may be mistyped.",
        ),
    },
) as dag:
    look = LookUpReplicaOperator(
        task_id="look",
        replica_id="{{ params.replica_id }}",
        ignore_if_missing="{{ params.ignore_if_missing }}",
        doc_md="""
Reads the replica and what uses it. Red for a stock replica, for one in use, and for an id that Tavus does not
know.
""",
    )

    @task.branch(doc_md="Goes to `approve` for a permanent delete, else to `delete`.")
    def choose(permanent: bool) -> str:
        return "approve" if permanent else "delete"

    chosen = choose("{{ params.permanent }}")
    delete = DeleteReplicaOperator(
        task_id="delete",
        replica_id="{{ params.replica_id }}",
        hard=False,
        ignore_if_missing="{{ params.ignore_if_missing }}",
        doc_md="Deletes the replica softly. **There is no undelete.** XCom `return_value` says how it went.",
    )
    approve = ApproveRetentionOperator(
        task_id="approve",
        plan=look.output,
        doc_md="""
Shows the replica under *Required Actions* and waits for a person.

*Approve* lets it be deleted for ever, *Reject* ends the run, and no answer within 24 hours fails it.
""",
    )
    delete_permanently = DeleteReplicaOperator(
        task_id="delete_permanently",
        # There is no such id unless a person has approved it, whatever the state of the task says.
        replica_id=approve.output["approved_replica_id"],
        hard=True,
        ignore_if_missing="{{ params.ignore_if_missing }}",
        plan=look.output,
        approved_digest=approve.output["approved_digest"],
        doc_md="""
Deletes the approved replica **for ever, with its training footage**, if it is still as it was shown, is not
in use by now, and was looked at within the last 24 hours.
""",
    )
    look >> chosen >> [delete, approve]
    approve >> delete_permanently
