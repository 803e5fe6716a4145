"""
### Trigger makes a plan now and deletes it permanently once a person approves it

For expired Tavus replicas. `plan` decides which replicas have expired, `approve` shows exactly that plan
under *Required Actions*, and `apply` deletes the replicas together with their training footage.
**This cannot be undone.**

*Reject* ends the run. Without an answer the run fails. A plan is valid for 24 hours. Only the plan that was
shown is carried out, and replicas that changed since then are skipped.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.configuration import conf
from airflow.sdk import DAG

from tavus_provider.dag_params import narrow_from_params, retention_params
from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    ApproveRetentionOperator,
    PlanRetentionOperator,
)

# If the deployment sets a policy file ([tavus] policy), it replaces the policy below.
POLICY_FILE = conf.get("tavus", "policy", fallback="")
# Age from which a replica has expired. The trigger form can raise it, and cannot lower it.
OLDER_THAN = "90d"

with DAG(
    dag_id="tavus_purge_replicas",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    default_args={"owner": "tavus"},
    owner_links={"tavus": "https://docs.tavus.io/"},
    tags=["tavus", "retention", "irrevocable"],
    params=retention_params(policy_file=POLICY_FILE, older_than=OLDER_THAN, dry_run=False, approval=True),
) as dag:
    plan = PlanRetentionOperator(
        task_id="plan",
        strict_conf=True,
        # Written here and not in the form: permanent deletes are the choice of the DAG's author.
        hard=True,
        doc_md="""
Reads all replicas and what uses them, and decides about each under the policy in the DAG file.
**Deletes nothing.**

The log says what goes, and why. XCom has the plan (`return_value`) and all verdicts (`verdicts`).
Fails if the plan exceeds a limit of the policy; then nobody is asked for an approval.
""",
        policy=POLICY_FILE
        or {
            "name": "purge",
            "expire": [{"rule": "stale", "older_than": OLDER_THAN}],
            "scope": {"include": ["*"], "exclude": []},
            # A plan above one of the limits is not cut to fit: nothing is deleted.
            "limits": {"max_deletions": 10, "max_deletion_percent": 25},
        },
        # The form can only reduce the number of replicas that are deleted.
        narrow=narrow_from_params(),
    )
    approve = ApproveRetentionOperator(
        task_id="approve",
        plan=plan.output,
        doc_md="""
Shows the plan under *Required Actions* and waits for a person.

*Approve* allows exactly this plan, *Reject* ends the run, and no answer within 24 hours fails it. Clearing
this task does not ask again: trigger a new run.
""",
    )
    apply = ApplyRetentionOperator(
        task_id="apply",
        hard=True,
        plan=plan.output,
        doc_md="""
Reads the account again and deletes the approved replicas that are still expired
**permanently, with their training footage**.

XCom `return_value` is the report: one outcome for each planned replica. The task fails if one of them may
still exist.
""",
    )
    # Without the approval of this plan in the ledger, `apply` deletes nothing.
    plan >> approve >> apply
