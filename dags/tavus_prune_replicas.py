"""
### Trigger deletes now: expired Tavus replicas, by soft delete

Runs every day. `plan` reads the account and decides under the policy in the DAG file which replicas have
expired; `apply` deletes them. The deletes are soft, but Tavus documents no undelete. Replicas that are in
use, in training, protected or undetermined are kept. The log of `plan` names each replica that would be
deleted, and why.

If a run would delete more than 10 replicas, or more than 25 % of the account, it deletes nothing and fails.
Expect this on the first clean-up of an old account; docs/quickstart.md says what to do then.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.configuration import conf
from airflow.sdk import DAG

from tavus_provider.dag_params import narrow_from_params, retention_params
from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

# If the deployment sets a policy file ([tavus] policy), it replaces the policy below.
POLICY_FILE = conf.get("tavus", "policy", fallback="")
# Age from which a replica has expired. The trigger form can raise it, and cannot lower it.
OLDER_THAN = "90d"

with DAG(
    dag_id="tavus_prune_replicas",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    default_args={"owner": "tavus"},
    owner_links={"tavus": "https://docs.tavus.io/"},
    tags=["tavus", "retention"],
    params=retention_params(policy_file=POLICY_FILE, older_than=OLDER_THAN, dry_run=True, scheduled=True),
) as dag:
    plan = PlanRetentionOperator(
        task_id="plan",
        strict_conf=True,
        doc_md="""
Reads all replicas and what uses them, and decides about each under the policy in the DAG file.
**Deletes nothing.**

The log says what goes, and why. XCom has the plan (`return_value`) and all verdicts (`verdicts`).
Fails if the plan exceeds a limit of the policy.
""",
        policy=POLICY_FILE
        or {
            "name": "prune",
            "expire": [{"rule": "stale", "older_than": OLDER_THAN}],
            "scope": {"include": ["*"], "exclude": []},
            # A plan above one of the limits is not cut to fit: nothing is deleted.
            "limits": {"max_deletions": 10, "max_deletion_percent": 25},
        },
        # The form can only reduce the number of replicas that are deleted.
        narrow=narrow_from_params(),
        dry_run="{{ params.dry_run }}",
    )
    ApplyRetentionOperator(
        task_id="apply",
        plan=plan.output,
        dry_run="{{ params.dry_run }}",
        doc_md="""
Reads the account again and soft-deletes the planned replicas that are still expired.
**There is no undelete.**

XCom `return_value` is the report: one outcome for each planned replica. The task succeeds if each of them is
gone or was skipped for a reason; it fails if one of them may still exist.
""",
    )
