"""
### Trigger makes a plan now for each of several accounts and deletes it permanently once a person approves it

Does what `tavus_purge_replicas` does, for each account in `CONNECTIONS`. Every account has its own plan and
its own approval under *Required Actions*, as one instance of the mapped task group `account`. To approve or
reject one account decides nothing about the others. **A permanent delete cannot be undone.**

Add the ids of your connections to `CONNECTIONS`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.configuration import conf
from airflow.sdk import DAG, get_current_context, task, task_group

from tavus_provider.dag_params import accounts_param, narrow_from_params, retention_params
from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    ApproveRetentionOperator,
    PlanRetentionOperator,
)

# Ids of Airflow connections of type tavus, one for each account. The trigger form can leave some out.
CONNECTIONS = ["tavus_default"]
# If the deployment sets a policy file ([tavus] policy), it replaces the policy below.
POLICY_FILE = conf.get("tavus", "policy", fallback="")
# Age from which a replica has expired. The trigger form can raise it, and cannot lower it.
OLDER_THAN = "90d"

with DAG(
    dag_id="tavus_purge_accounts",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    default_args={"owner": "tavus"},
    owner_links={"tavus": "https://docs.tavus.io/"},
    tags=["tavus", "retention", "irrevocable"],
    params={
        **retention_params(policy_file=POLICY_FILE, older_than=OLDER_THAN, dry_run=False, approval=True),
        "accounts": accounts_param(CONNECTIONS),
    },
) as dag:

    @task(doc_md="The ids of the connections that were chosen in the trigger form. Default: all.")
    def accounts() -> list[str]:
        return list(get_current_context()["params"]["accounts"])

    @task_group(group_id="account", prefix_group_id=False)
    def purge_account(tavus_conn_id: str) -> None:
        plan = PlanRetentionOperator(
            task_id="plan",
            strict_conf=True,
            tavus_conn_id=tavus_conn_id,
            # Written here and not in the form: permanent deletes are the choice of the DAG's author.
            hard=True,
            doc_md="""
Reads all replicas of one account and what uses them, and decides about each under the policy in the DAG file.
**Deletes nothing.**

The first line of the log names the account. XCom has the plan (`return_value`) and all verdicts (`verdicts`).
Fails if the plan exceeds a limit of the policy; then nobody is asked for an approval.
""",
            policy=POLICY_FILE
            or {
                "name": "purge",
                "expire": [{"rule": "stale", "older_than": OLDER_THAN}],
                "scope": {"include": ["*"], "exclude": []},
                # A plan above one of the limits is not cut to fit: nothing is deleted in this account.
                "limits": {"max_deletions": 10, "max_deletion_percent": 25},
            },
            # The form can only reduce the number of replicas that are deleted.
            narrow=narrow_from_params(),
        )
        approve = ApproveRetentionOperator(
            task_id="approve",
            plan=plan.output,
            map_index_template="{{ task.plan['tavus_conn_id'] }}",
            doc_md="""
Shows the plan of one account under *Required Actions* and waits for a person.

*Approve* allows exactly this plan, *Reject* ends this account, and no answer within 24 hours fails the run.
""",
        )
        apply = ApplyRetentionOperator(
            task_id="apply",
            hard=True,
            plan=plan.output,
            tavus_conn_id=tavus_conn_id,
            doc_md="""
Reads the account again and deletes its approved replicas that are still expired
**permanently, with their training footage**.

XCom `return_value` is the report of the account. The task fails if one of its planned replicas may still
exist.
""",
        )
        # Without the approval of this plan in the ledger, `apply` deletes nothing.
        plan >> approve >> apply

    purge_account.expand(tavus_conn_id=accounts())
