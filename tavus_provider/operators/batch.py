"""Split a plan into batches for mapped tasks, and make one report of their reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import BaseOperator

from tavus_provider.exceptions import TavusError
from tavus_provider.operators import base
from tavus_provider.operators.assets import PRUNED, with_outlet
from tavus_provider.operators.base import fail_without_retry, load_plan
from tavus_provider.operators.policy_templates import is_template
from tavus_provider.operators.reports import emit_pruned, publish_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.planning.plan import Plan
    from tavus_provider.planning.report import Report


class SplitRetentionOperator(BaseOperator):
    """
    Split a plan into batches for mapped tasks.

    Use it with ``ApplyRetentionOperator.partial(...).expand_kwargs(split.output)``.
    The XCom is a list of mappings. Each one identifies a batch by its number and the digest of the plan; it
    has no replica ids, because only the plan says what is deleted. The list is empty if the plan deletes
    nothing. It has at most as many entries as Airflow maps a task over: if ``batch_size`` would make more,
    the batches are larger, and the log says so. Each batch reads the whole account again, so fewer and
    larger batches send fewer requests.

    :param plan: the output of a plan task; templated
    :param batch_size: maximum number of replicas per batch, 1 to 100,000; default: 1,000; templated
    :raises TavusValidationError: if ``batch_size`` is not in this range
    """

    template_fields: Sequence[str] = ("plan", "batch_size")

    def __init__(self, *, plan: Any, batch_size: int | str = 1_000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.batch_size = batch_size
        if not is_template(batch_size):
            from tavus_provider.planning.batches import check_batch_size

            check_batch_size(batch_size)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the batches."""
        from airflow.configuration import conf

        from tavus_provider.planning.batches import MAX_BATCHES, check_batch_size, split

        with fail_without_retry(context):
            plan, _ = load_plan(self.plan, context)
            batch_size = check_batch_size(self.batch_size)
            max_batches = min(MAX_BATCHES, conf.getint("core", "max_map_length", fallback=MAX_BATCHES))
            batches = split(plan, batch_size=batch_size, max_batches=max_batches)
            largest = max((len(batch.rows(plan)) for batch in batches), default=0)
            if largest > batch_size:
                self.log.warning(
                    "batch_size %d would make more than %d batches, so batches have up to %d replicas",
                    batch_size,
                    max_batches,
                    largest,
                )
            self.log.info("%d replicas in %d batches of up to %d", len(plan["delete"]), len(batches), largest)
            return [{"batch": batch.to_json()} for batch in batches]


class SummarizeRetentionOperator(BaseOperator):
    """
    Make one report from the reports of all batches. Fail if a replica of the plan may still exist.

    Fail also if the policy has ``overdue_after``, and an older replica is still there without a legal hold.

    Use it with ``trigger_rule="all_done_min_one_success"``, so that it runs whatever the result of the
    batches. Outcomes are taken from the ledger, because users can change XComs: the reports only add details.
    A replica that the ledger does not have is ``not_attempted``, unless the run was a dry run: then ``plan``
    and ``apply`` both had ``dry_run``. The XCom is the report of the whole plan. If it is too large for an
    XCom, ``items`` is cut and ``items_left_out`` is the number of missing items; ``counts`` include them.

    A successful summary emits an event of the asset ``tavus_replicas_pruned``, as
    :class:`.ApplyRetentionOperator` does for a plan without batches.

    :param plan: the output of the plan task; templated
    :param reports: the output of the mapped apply task; templated
    """

    template_fields: Sequence[str] = ("plan", "reports")

    def __init__(self, *, plan: Any, reports: Any, **kwargs: Any) -> None:
        super().__init__(**with_outlet(PRUNED, kwargs))
        self.plan = plan
        self.reports = reports

    def execute(self, context: Context) -> Report:
        """Return the report of the whole plan."""
        from tavus_provider.planning.attempts import last_outcomes
        from tavus_provider.planning.overdue import find_overdue, overdue_message
        from tavus_provider.planning.report import summarize, unfinished_message
        from tavus_provider.storage.attempts import head_of
        from tavus_provider.storage.ledger import Ledger, job_name

        with fail_without_retry(context):
            plan, authority = load_plan(self.plan, context)
            ledger = Ledger(plan["origin"], plan["tavus_conn_id"])
            job = job_name("plan", plan["digest"])
            attempts = ledger.attempts(job)
            complete = summarize(
                plan,
                self.reports or (),
                recorded=last_outcomes(attempts),
                is_dry_run=authority.is_dry_run(plan),
                ledger=f"{ledger.account_folder}/{job}",
                ledger_head=head_of(attempts),
            )
            done = None if complete["dry_run"] else complete
            overdue = overdue_message(plan, find_overdue(plan, done, held=self._read_held(plan)))
            report = publish_report(self, context, lambda: complete, plan=plan)
            if overdue is not None and report["dry_run"]:
                self.log.warning("%s", overdue)
                overdue = None
            if problems := [one for one in (unfinished_message(report), overdue) if one is not None]:
                raise AirflowFailException(". ".join(problems))
            if not report["dry_run"]:
                emit_pruned(context, report)
            return report

    def _read_held(self, plan: Plan) -> frozenset[str]:
        """Return the ids under legal hold now, if an overdue replica fails the run; none if unreadable."""
        from tavus_provider.retention.policy import Policy
        from tavus_provider.storage.binding_holds import read_binding_holds

        policy = Policy.parse(plan["policy"])
        if policy.overdue_after is None:
            return frozenset()
        try:
            return read_binding_holds(policy.legal_holds, now=base.now())
        except TavusError as error:
            self.log.warning("It is not known which replicas are under legal hold by now: %s", error)
        return frozenset()
