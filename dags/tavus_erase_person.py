"""
### Trigger finds everything of one person at Tavus, and deletes it permanently once a person approves it

`plan` finds the replicas, videos and conversations of the request, `approve` shows them by kind under
*Required Actions*, `apply` ends and deletes them and looks again, and `certify` writes the certificate.
**This cannot be undone.**

*Reject* ends the run, and the request stays open. If something is open afterwards, the certificate is
`incomplete` and the run fails: **trigger it again with the same reference** until it is complete. Legal holds
bind this DAG. `tavus_erasures` watches the due date.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from tavus_provider.dag_params import erasure_params
from tavus_provider.operators.tavus import (
    ApplyErasureOperator,
    ApproveRetentionOperator,
    CertifyErasureOperator,
    PlanErasureOperator,
)

# Ids of Airflow connections of type tavus, one for each account. The trigger form chooses one of them.
CONNECTIONS = ["tavus_default"]

with DAG(
    dag_id="tavus_erase_person",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # Several requests may wait for their approval at the same time.
    max_active_runs=16,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    default_args={"owner": "tavus"},
    owner_links={"tavus": "https://docs.tavus.io/"},
    tags=["tavus", "erasure", "irrevocable"],
    params=erasure_params(CONNECTIONS),
) as dag:
    plan = PlanErasureOperator(
        task_id="plan",
        strict_conf=True,
        doc_md="""
Reads all replicas, videos, conversations and personas, and keeps what belongs to the request.
**Deletes nothing.** From now on the request is open: prune and purge keep its replicas.

Fails if an id is unknown, if a persona names one of the replicas (change the persona in Tavus first), or if a
limit in the DAG file is exceeded. XCom `return_value` is the plan, without names.
""",
        tavus_conn_id="{{ params.account }}",
        request="{{ params.request }}",
        received_on="{{ params.received_on }}",
        due_on="{{ params.due_on }}",
        ground="{{ params.ground }}",
        replica_ids="{{ params.replica_ids }}",
        conversation_ids="{{ params.conversation_ids }}",
        video_ids="{{ params.video_ids }}",
        kinds="{{ params.kinds }}",
        # Written here and not in the form: a form cannot raise them.
        max_replicas=5,
        max_items=10_000,
        # "leave": go on although a persona names a replica that will not exist any more.
        on_reference="fail",
        # "leave": rows that name no replica do not make the request incomplete.
        on_undetermined="incomplete",
    )
    approve = ApproveRetentionOperator(
        task_id="approve",
        plan=plan.output,
        # Reject skips `certify` too, whatever its trigger rule.
        ignore_downstream_trigger_rules=True,
        doc_md="""
Shows the plan by kind under *Required Actions* and waits for a person. Skipped if nothing is left to delete.

*Approve* allows exactly this plan, *Reject* ends the run, and no answer within 24 hours fails it. Clearing
this task does not ask again: trigger a new run.
""",
    )
    apply = ApplyErasureOperator(
        task_id="apply",
        tavus_conn_id="{{ params.account }}",
        plan=plan.output,
        # Also if `approve` was skipped: then it only looks whether something is left.
        trigger_rule="none_failed_min_one_success",
        # A retry continues from the ledger.
        retries=2,
        doc_md="""
Ends active conversations, deletes replicas, videos and conversations **permanently**, in this order, and then
asks for each of them and reads all lists again. Legal holds are read again before each kind.

XCom `return_value` is the report. The task fails if something is open.
""",
    )
    certify = CertifyErasureOperator(
        task_id="certify",
        plan=plan.output,
        # Also after an apply task that failed: the certificate says what is open.
        trigger_rule="all_done_min_one_success",
        doc_md="""
Writes the certificate, as JSON and as a page to print, into the folder of the ledger, and records its digest.
Fails if the request is `incomplete`: trigger a new run with the same reference.

XCom `return_value` is the certificate. A green task emits an event of the asset `tavus_person_erased`.
""",
    )
    # Without the approval of this plan in the ledger, `apply` deletes nothing.
    plan >> approve >> apply >> certify
