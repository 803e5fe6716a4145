"""Execute a plan, or a batch of it, and report the outcome of every replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from tavus_provider.exceptions import TavusError, TavusRetryableError
from tavus_provider.models import check_bool
from tavus_provider.operators import base
from tavus_provider.operators.assets import PRUNED, with_outlet
from tavus_provider.operators.base import (
    TavusOperator,
    check_bool_or_template,
    find_trigger,
    task_identity,
    try_number,
)
from tavus_provider.operators.metrics import send_outcomes, timed
from tavus_provider.operators.reports import emit_pruned, publish_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.execution.executor import PlanExecutor
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.planning.batches import Batch
    from tavus_provider.planning.plan import Plan, PlanRow
    from tavus_provider.planning.report import Report
    from tavus_provider.storage.authority import RunAuthority


class ApplyRetentionOperator(TavusOperator):
    """
    Execute a plan: delete the replicas that it names, except those that changed since it was made.

    Before the first delete, the whole account is read again and evaluated with the policy of the plan. A
    replica that would not be deleted any more is ``skipped``, one that is missing is ``already_gone``. Before
    a permanent delete the replica itself is read once more. After the deletes the list is read again: a
    replica that is still listed is not reported as deleted, whatever the response was. A plan can only get
    smaller here.

    The XCom is the report. It is pushed and logged before the task fails. The task succeeds only if no
    replica is ``failed``, ``unknown`` or ``not_attempted``. The ledger records the intent before the first
    delete is sent. A retry continues from the ledger, also after the worker was killed, and its report keeps
    the outcomes of earlier attempts.

    The XCom ``summary`` is the report in one sentence. A successful run that is not a dry run emits an event
    of the asset ``tavus_replicas_pruned`` with ``counts``, ``hard`` and ``plan_digest``.

    If the policy has ``overdue_after``, the task also fails after its deletes if an older replica is still
    there without a legal hold. A batch leaves that to :class:`.SummarizeRetentionOperator`.

    On SIGTERM and ``execution_timeout`` no further delete begins. Requests in progress have three seconds for
    their responses; then their connections are closed, and their replicas are ``unknown``. The report is
    pushed before the ledger is closed.

    Only the digest is taken from the XCom of the plan. The plan itself is read from the plan store. The
    ledger must show that a plan task of the same run made it, and if ``hard``, that a person approved it
    there (:class:`.ApproveRetentionOperator`). Limits count what earlier attempts of the same run deleted.

    :param plan: the output of a plan task; templated
    :param hard: also delete the training footage; must be as in the plan, which must be
        approved; default: False; not templated
    :param dry_run: report every replica as ``skipped`` and send no delete; default: False; templated
    :param concurrency: maximum number of deletes at the same time; default: that of the connection. If the
        connection sets a smaller one, that is used
    :param requests_per_second: maximum request rate; default: that of the connection. If the connection sets
        a smaller one, that is used
    :param batch: execute only a part of the plan: one of the mappings of :class:`.SplitRetentionOperator`;
        limits, approval and digest are still those of the whole plan
    :param parallel_tasks: number of tasks like this one that may run at the same time; each one uses an equal
        part of ``requests_per_second``; default: 1
    :param tavus_conn_id: id of the Airflow connection, the same as in the plan; templated
    :raises TavusValidationError: if an argument is invalid
    """

    template_fields: Sequence[str] = ("plan", "dry_run", "tavus_conn_id")

    def __init__(
        self,
        *,
        plan: Any,
        hard: bool = False,
        dry_run: bool | str = False,
        concurrency: int | None = None,
        requests_per_second: float | None = None,
        batch: Mapping[str, Any] | None = None,
        parallel_tasks: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_outlet(PRUNED, kwargs))
        self.plan = plan
        self.batch = batch
        self.parallel_tasks = parallel_tasks
        self.hard = check_bool("hard", hard)
        # Hides a method of BaseOperator that nothing uses.
        self.dry_run = check_bool_or_template("dry_run", dry_run)  # type: ignore[assignment, method-assign]
        self.concurrency = concurrency
        self.requests_per_second = requests_per_second
        self._executor: PlanExecutor | None = None
        self._recorded_before: Mapping[str, str | None] = {}
        given = {"concurrency": concurrency, "requests_per_second": requests_per_second}
        options = {name: value for name, value in given.items() if value is not None}
        if parallel_tasks is True or parallel_tasks != 1:
            options["parallel_tasks"] = parallel_tasks
        if options:
            from tavus_provider.client.config import check_option

            for name, value in options.items():
                check_option(name, value)

    @cached_property
    def hook(self) -> TavusHook:
        """The hook of this task, limited by the arguments of the operator and by the connection."""
        from tavus_provider.hooks.tavus import TavusHook

        return TavusHook(
            self.tavus_conn_id,
            concurrency=self.concurrency,
            requests_per_second=self.requests_per_second,
            parallel_tasks=self.parallel_tasks,
        )

    def execute(self, context: Context) -> Report:
        """Delete the replicas of the plan, and return the report."""
        from tavus_provider.planning.batches import Batch
        from tavus_provider.planning.overdue import find_overdue, overdue_message
        from tavus_provider.planning.report import dry_run_report

        with self.running(context, label="{{ task.tavus_conn_id }}"):
            dry_run = check_bool("dry_run", self.dry_run)
            authority = self.authority(context)
            plan = self.check_plan(self.plan, hard=self.hard, authority=authority, dry_run=dry_run)
            batch = None if self.batch is None else Batch.parse(self.batch, plan=plan)
            rows: Sequence[PlanRow] = plan["delete"]
            if batch is not None:
                rows = batch.rows(plan)
                label = batch.label(plan)
                self.set_label(context, label)
                self.log.info("Batch %d of %d: replicas %s", batch.number, batch.of, label)
            if dry_run:
                if batch is None and (overdue := overdue_message(plan, find_overdue(plan))):
                    self.log.warning("%s", overdue)
                return publish_report(self, context, lambda: dry_run_report(plan, rows), plan=plan)
            report = self._run(context, plan, batch, rows, authority=authority)
            if batch is None:
                emit_pruned(context, report)
            return report

    def on_kill(self) -> None:
        """Begin no further delete, end all waits, and send no further request; see :class:`TavusOperator`."""
        if self._executor is not None:
            self._executor.stop("the task received a request to stop")
        super().on_kill()

    def _run(
        self,
        context: Context,
        plan: Plan,
        batch: Batch | None,
        rows: Sequence[PlanRow],
        *,
        authority: RunAuthority,
    ) -> Report:
        from tavus_provider.planning.overdue import find_overdue, overdue_message
        from tavus_provider.planning.report import STOPPED_EARLY, unfinished_message, unread_report

        executor: PlanExecutor | None = None
        reason = STOPPED_EARLY

        def make_report() -> Report:
            if executor is None:
                return unread_report(plan, rows, reason, retried=try_number(context) > 1)
            return executor.report()

        try:
            executor = self._executor = self._make_executor(context, plan, batch, rows, authority=authority)
            if self._stop_requested:  # before the executor existed
                self.on_kill()
            if rows:
                with timed("delete", tavus_conn_id=self.tavus_conn_id):
                    executor.run()
        except TavusError as error:
            reason = str(error)
            raise
        finally:
            # The report is pushed first, whatever happens. Only then may recording it fail.
            try:
                report = publish_report(self, context, make_report, plan=plan)
            finally:
                if executor is not None:
                    executor.close()
            # What an earlier attempt recorded was counted by that attempt.
            complete = make_report()
            outcomes = [
                item["outcome"]
                for item in complete["items"]
                if self._recorded_before.get(item["replica_id"]) != item["outcome"]
            ]
            send_outcomes(outcomes, hard=self.hard, tavus_conn_id=self.tavus_conn_id)
        message = unfinished_message(report)
        if batch is None:
            rows_left = find_overdue(plan, complete, listed=executor.listed, held=executor.held)
            overdue = overdue_message(plan, rows_left)
            if overdue is not None and message is None:
                raise AirflowFailException(overdue)
            message = message if overdue is None else f"{message}. {overdue}"
        if message:
            raise (
                TavusRetryableError(message) if executor.may_succeed_later else AirflowFailException(message)
            )
        return report

    def _make_executor(
        self,
        context: Context,
        plan: Plan,
        batch: Batch | None,
        rows: Sequence[PlanRow],
        *,
        authority: RunAuthority,
    ) -> PlanExecutor:
        from tavus_provider.execution.executor import PlanExecutor
        from tavus_provider.planning.attempts import PriorAttempts
        from tavus_provider.planning.plan import ids_by_rule
        from tavus_provider.retention.policy import Policy
        from tavus_provider.storage.binding_holds import read_binding_holds
        from tavus_provider.storage.history import deleted_ids, read_history
        from tavus_provider.storage.known_use_store import USE_FILE, read_known_use
        from tavus_provider.storage.ledger import job_name

        ledger, task, policy = self.ledger, task_identity(context), Policy.parse(plan["policy"])
        ledger.require_shared("a permanent delete" if self.hard else "a run that is not a dry run")
        job = job_name("plan", plan["digest"])
        batch_fields: dict[str, Any] = {} if batch is None else {"batch": batch.to_json()}

        other_plans = authority.attempts_of_other_plans(plan)
        single_deletes = authority.single_deletes()

        def read_prior() -> PriorAttempts:
            return PriorAttempts.from_ledger(
                ledger.attempts(job),
                task=task,
                replica_ids={row["replica_id"] for row in rows},
                batch=batch_fields.get("batch"),
                retried=try_number(context) > 1,
                other_plans=other_plans,
                single_deletes=single_deletes,
            )

        known_use = None
        if policy.asks_about_past:
            recorded = authority.find_beside(plan, USE_FILE)
            known_use = read_known_use(plan["digest"], recorded=recorded)
        prior = read_prior()
        self._recorded_before = prior.own
        return PlanExecutor(
            plan,
            self.hook,
            concurrency=self.hook.client.options.concurrency,
            now=base.now,
            clock=base.monotonic,
            log=lambda line: self.log.info("%s", line),
            begin=lambda **fields: ledger.begin_attempt(
                job,
                **task,
                hard=self.hard,
                plan_digest=plan["digest"],
                policy_digest=plan["policy_digest"],
                policy=policy.name,
                rules=ids_by_rule(rows),
                triggered_by=find_trigger(context).user,
                prior_attempts={**authority.heads, **prior.last_digests},
                **batch_fields,
                **fields,
            ),
            history=lambda now: read_history(ledger, policy),
            held=lambda now: read_binding_holds(policy.legal_holds, now=now),
            known_use=known_use,
            prior=prior,
            reread_prior=read_prior,
            deleted_before=lambda: deleted_ids(ledger),
            rows=rows,
        )
