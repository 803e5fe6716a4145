"""
### Daily: which requests for erasures need somebody

Red if a request is due within 7 days, overdue or incomplete, if a legal hold has ended because of which it
was partly refused, or if something that was erased is listed again. Green otherwise, with a line in the log
for each open request. **Deletes nothing.**
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from tavus_provider.operators.tavus import CheckErasuresOperator

# Ids of Airflow connections of type tavus, one for each account: those of tavus_erase_person.
CONNECTIONS = ["tavus_default"]

with DAG(
    dag_id="tavus_erasures",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    default_args={"owner": "tavus"},
    owner_links={"tavus": "https://docs.tavus.io/"},
    tags=["tavus", "erasure"],
) as dag:
    CheckErasuresOperator.partial(
        task_id="check",
        warn_days=7,
        doc_md="""
Reads what the ledger has about each request, and looks in the account for what was erased.

To stop watching a request that ended otherwise, add `connection_id/reference` to `closed_erasures` in section
`[tavus]` of the configuration. XCom `return_value` has one entry for each request that is open or has a
problem.
""",
    ).expand(tavus_conn_id=CONNECTIONS)
