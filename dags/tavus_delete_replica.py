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
    tags=["tavus", "irrevocable"],
    params={
        "replica_id": Param(
            "",
            type="string",
            pattern="^[A-Za-z0-9][A-Za-z0-9_-]{1,63}$",
            title="Replica",
            description="Id of the replica, such as `rf4e9d9790f0`.",
        ),
        "permanent": Param(
            False,
            type="boolean",
            title="Permanently, with its training footage",
            description="Somebody has to approve it first.",
        ),
        "ignore_if_missing": Param(
            False,
            type="boolean",
            title="Fine if it is gone already",
            description="Otherwise an id that Tavus does not know fails the run.",
        ),
    },
) as dag:
    look = LookUpReplicaOperator(
        task_id="look",
        replica_id="{{ params.replica_id }}",
        ignore_if_missing="{{ params.ignore_if_missing }}",
    )

    @task.branch
    def choose(permanent: bool) -> str:
        return "approve" if permanent else "delete"

    chosen = choose("{{ params.permanent }}")
    delete = DeleteReplicaOperator(
        task_id="delete",
        replica_id="{{ params.replica_id }}",
        hard=False,
        ignore_if_missing="{{ params.ignore_if_missing }}",
    )
    approve = ApproveRetentionOperator(task_id="approve", plan=look.output)
    delete_permanently = DeleteReplicaOperator(
        task_id="delete_permanently",
        # There is no such id unless a person has approved it, whatever the state of the task says.
        replica_id=approve.output["approved_replica_id"],
        hard=True,
        ignore_if_missing="{{ params.ignore_if_missing }}",
    )
    look >> chosen >> [delete, approve]
    approve >> delete_permanently
