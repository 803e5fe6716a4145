"""What a plan task pushes for the Tavus page beside the plan: difference to the plan before, and forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tavus_provider.operators.base import push_xcom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from tavus_provider.planning.difference import Difference
    from tavus_provider.planning.forecast import Forecast
    from tavus_provider.planning.plan import Plan
    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.engine import Decision
    from tavus_provider.retention.policy import Policy


def push_page_xcoms(
    operator: BaseOperator,
    context: Context,
    decision: Decision,
    *,
    policy: Policy,
    inventory: Inventory,
    plan: Plan,
) -> None:
    """
    Push the XComs ``difference`` and ``forecast``, before those of this plan.

    They are views: nothing decides by them, and no error here fails the task.
    """
    from tavus_provider.planning.difference import make_difference
    from tavus_provider.planning.forecast import make_forecast

    def difference() -> Difference:
        plan_before, verdicts_before = _pull_before(context, operator.task_id)
        return make_difference(decision, plan, plan_before=plan_before, verdicts_before=verdicts_before)

    def forecast() -> Forecast:
        return make_forecast(policy, inventory, now=inventory.read_at, hard=plan["hard"])

    for make in (difference, forecast):
        try:
            push_xcom(context, make.__name__, make())
        except Exception as error:  # noqa: BLE001  # a view must not fail the plan
            operator.log.warning(
                "The %s is missing on the Tavus page: %s", make.__name__, type(error).__name__
            )


def _pull_before(context: Context, task_id: str) -> tuple[Any, Any]:
    """Return the plan and the verdicts that this task pushed in the run before."""
    ti: Any = context["ti"]
    runs: list[dict[str, Any]] = [{"include_prior_dates": True}]
    # Where databases sort null first, the other look-up prefers runs without a logical date, however old.
    if previous := ti.get_previous_dagrun():
        runs.append({"run_id": previous.run_id})

    def pull(run: dict[str, Any], key: str) -> Any:
        return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=ti.map_index, **run)

    plans = [(plan, run) for run in runs if isinstance(plan := pull(run, "return_value"), dict)]
    if not plans:
        return None, None
    plan, run = max(plans, key=lambda found: str(found[0].get("made_at")))
    return plan, pull(run, "verdicts")
