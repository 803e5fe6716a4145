"""Apply: carry out a plan, whole or in batches, and make one report of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import Asset, AssetAlias, BaseOperator

from tavus_provider.exceptions import TavusRetryableError
from tavus_provider.models import check_bool
from tavus_provider.operators import base
from tavus_provider.operators.base import (
    TavusOperator,
    final_errors_do_not_retry,
    is_template,
    opened,
    push,
    switch,
    task_identity,
    try_number,
    unchanged,
    with_outlet,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.execution.executor import PlanExecutor
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.planning.batches import Batch
    from tavus_provider.planning.plan import Plan, PlanRow
    from tavus_provider.planning.report import Report

PRUNED = "tavus_replicas_pruned"
"""Asset with an event for each green apply that was no dry run, with the counts of its report."""


class ApplyRetentionOperator(TavusOperator):
    """
    Carry out a plan: delete what it names and what is still so.

    Before the first delete the account is read again, completely, and decided again with the plan's own
    policy; what is no longer to go is ``skipped``, what is missing is ``already_gone``. Before a permanent
    delete each replica is read once more. Afterwards the list is read again: what is still listed is not
    deleted, whatever was answered. The plan may get smaller here, never larger.

    The XCom is the report; it is pushed and logged before the task fails. The task is green only if no
    replica is ``failed``, ``unknown`` or ``not_attempted``. The intent is in the ledger before the first
    delete is sent; a retry, or a rerun after the worker was killed, goes on from there, and its report
    keeps the outcomes of earlier tries.

    XCom ``summary`` is the report in one sentence. A green run that was no dry run is an event of the asset
    ``tavus_replicas_pruned``, with ``counts``, ``hard`` and ``plan_digest``.

    :param plan: the output of a plan task; templated
    :param approved_digest: ``approve.output["approved_digest"]``, without which ``hard=True`` is refused;
        templated
    :param hard: delete the training footage too; must be as in the plan; not templated
    :param dry_run: report every replica as ``skipped`` and send no delete; templated
    :param concurrency: the most deletes at once; that of the connection (8) unless set, and never above it
    :param requests_per_second: the most requests a second; never above that of the connection
    :param batch: carry out a part of the plan only: one of the mappings that :class:`SplitRetentionOperator`
        returns; limits, approval and digest stay those of the whole plan
    :param parallel_tasks: how many tasks like this one may run at once; each keeps to its share of the
        ``requests_per_second``
    :param tavus_conn_id: id of the Airflow connection, the same as in the plan; templated
    """

    template_fields: Sequence[str] = ("plan", "approved_digest", "dry_run", "tavus_conn_id")

    def __init__(
        self,
        *,
        plan: Any,
        approved_digest: Any = None,
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
        self.approved_digest = approved_digest
        self.hard = check_bool("hard", hard)
        # Hides a method of BaseOperator that nothing uses.
        self.dry_run = switch("dry_run", dry_run)  # type: ignore[assignment, method-assign]
        self.concurrency = concurrency
        self.requests_per_second = requests_per_second
        self._executing: PlanExecutor | None = None
        self._killed = False
        if (
            (concurrency, requests_per_second) != (None, None)
            or parallel_tasks is True
            or parallel_tasks != 1
        ):
            from tavus_provider.client.config import check_option

            check_option("parallel_tasks", parallel_tasks)
            if concurrency is not None:
                check_option("concurrency", concurrency)
            if requests_per_second is not None:
                check_option("requests_per_second", requests_per_second)

    @cached_property
    def hook(self) -> TavusHook:
        """The hook of this task, as fast as its operator and its connection allow."""
        from tavus_provider.hooks.tavus import TavusHook

        return TavusHook(
            self.tavus_conn_id,
            concurrency=self.concurrency,
            requests_per_second=self.requests_per_second,
            parallel_tasks=self.parallel_tasks,
        )

    def execute(self, context: Context) -> Report:
        """Delete, and return the report."""
        from tavus_provider.planning.batches import Batch
        from tavus_provider.planning.report import dry_run_report, unfinished_message

        with final_errors_do_not_retry(), contextlib.closing(self.hook):
            context["map_index_template"] = "{{ task.tavus_conn_id }}"
            dry_run = check_bool("dry_run", self.dry_run)
            plan = self.good_plan(self.plan, hard=self.hard, approved_digest=self.approved_digest)
            batch = None if self.batch is None else Batch.parse(self.batch, plan=plan)
            rows: Sequence[PlanRow] = plan["delete"]
            if batch is not None:
                rows = batch.rows(plan)
                context["map_index_template"] = label = batch.label(plan)
                self.log.info("Batch %d of %d: replicas %s", batch.number, batch.of, label)
            if dry_run:
                return _say(self.log, context, dry_run_report(plan, rows), plan)
            self._executing = executor = self._executor(context, plan, batch, rows)
            if self._killed:
                self.on_kill()
            try:
                if rows:
                    executor.run()
            finally:
                # Whatever happens, the report is pushed first; only then may recording it fail.
                report = _say(self.log, context, executor.report(), plan)
                push(context, "return_value", report)
                executor.close()
            if message := unfinished_message(report):
                if executor.may_succeed_later:
                    raise TavusRetryableError(message)
                raise AirflowFailException(message)
            if batch is None:
                _announce(context, report)
            return report

    def on_kill(self) -> None:
        """Start no further delete; Airflow calls this on SIGTERM, and lets ``execute`` go on."""
        self._killed = True
        if self._executing is not None:
            self._executing.stop("the task received a request to stop")

    def _executor(
        self, context: Context, plan: Plan, batch: Batch | None, rows: Sequence[PlanRow]
    ) -> PlanExecutor:
        from tavus_provider.execution.executor import PlanExecutor
        from tavus_provider.planning.attempts import PriorAttempts
        from tavus_provider.retention.policy import Policy
        from tavus_provider.storage.history import read_history
        from tavus_provider.storage.ledger import job_name
        from tavus_provider.storage.policy_files import read_legal_holds

        ledger, who, policy = self.ledger, task_identity(context), Policy.parse(plan["policy"])
        if self.hard:
            ledger.require_shared("a permanent delete")
        job = job_name("plan", plan["digest"])
        batch_fields = {} if batch is None else {"batch": batch.to_json()}

        def read_prior() -> PriorAttempts:
            return PriorAttempts.from_ledger(
                ledger.attempts(job),
                task=who,
                replica_ids={row["replica_id"] for row in rows},
                batch=batch_fields.get("batch"),
                retried=try_number(context) > 1,
            )

        prior = read_prior()
        return PlanExecutor(
            plan,
            self.hook,
            concurrency=self.hook.client.options.concurrency,
            now=base.now,
            log=lambda line: self.log.info("%s", line),
            begin=lambda **fields: ledger.begin_attempt(
                job,
                **who,
                hard=self.hard,
                plan_digest=plan["digest"],
                policy_digest=plan["policy_digest"],
                approved_digest=self.approved_digest,
                prior_attempts=prior.last_digests,
                **batch_fields,
                **fields,
            ),
            history=lambda now: read_history(ledger, policy),
            held=lambda now: read_legal_holds(policy.legal_holds, now=now),
            prior=prior,
            reread_prior=read_prior,
            rows=rows,
        )


class SplitRetentionOperator(BaseOperator):
    """
    Split a plan into batches, for as many tasks side by side: ``.expand_kwargs(split.output)``.

    Each mapping names a part of the plan by its number and the plan by its digest, and no replica: only
    the plan does. The XCom is a list of them, empty where nothing is to be deleted, at most as long as
    Airflow maps a task; a ``batch_size`` that would make more is enlarged, and the log says so. Each
    batch reads the whole account again, so fewer and larger ones cost less.

    :param plan: the output of a plan task; templated
    :param batch_size: the most replicas in a batch, 1 to 100,000; templated
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

        with final_errors_do_not_retry():
            plan = unchanged(opened(self.plan))
            size = check_batch_size(self.batch_size)
            allowed = min(MAX_BATCHES, conf.getint("core", "max_map_length", fallback=MAX_BATCHES))
            batches = split(plan, batch_size=size, max_batches=allowed)
            largest = max((len(batch.rows(plan)) for batch in batches), default=0)
            if largest > size:
                self.log.warning(
                    "Batches of %d would be more than %d, so they are of up to %d", size, allowed, largest
                )
            self.log.info("%d replicas in %d batches of up to %d", len(plan["delete"]), len(batches), largest)
            return [{"batch": batch.to_json()} for batch in batches]


class SummarizeRetentionOperator(BaseOperator):
    """
    Make one report of those of all batches, and fail if one replica of the plan may still be there.

    Let it run whatever became of the batches: ``trigger_rule="all_done_min_one_success"``. What no report
    tells of, because its task was killed for good or its report was too long, is taken from the ledger. The
    XCom is the report of the whole plan; where that is larger than an XCom should be, its ``items`` are cut,
    ``items_left_out`` says how many are missing, and ``counts`` are those of all.

    :param plan: the output of the plan task; templated
    :param reports: the output of the mapped apply task; templated
    """

    template_fields: Sequence[str] = ("plan", "reports")

    def __init__(self, *, plan: Any, reports: Any, **kwargs: Any) -> None:
        super().__init__(**with_outlet(PRUNED, kwargs))
        self.plan = plan
        self.reports = reports

    def execute(self, context: Context) -> Report:
        """Return the report."""
        from tavus_provider.planning.attempts import last_outcomes
        from tavus_provider.planning.report import summarize, unfinished_message
        from tavus_provider.storage.ledger import Ledger, job_name

        with final_errors_do_not_retry():
            plan = unchanged(opened(self.plan))
            ledger = Ledger(plan["origin"], plan["tavus_conn_id"])
            work = job_name("plan", plan["digest"])
            report = summarize(
                plan,
                self.reports or (),
                recorded=last_outcomes(ledger.attempts(work)),
                ledger=f"{ledger.account_folder}/{work}",
            )
            report = _say(self.log, context, report, plan)
            push(context, "return_value", report)
            if message := unfinished_message(report):
                raise AirflowFailException(message)
            if not report["dry_run"]:
                _announce(context, report)
            return report


def _say(log: Any, context: Context, report: Report, plan: Plan) -> Report:
    """Log a report, push its sentence, and return it as it fits into an XCom."""
    from tavus_provider.planning.report import truncate_report
    from tavus_provider.rendering.tables import report_lines, report_sentence

    for line in report_lines(report, plan):
        log.info("%s", line)
    summary = report_sentence(report)
    log.info("%s", summary)
    push(context, "summary", summary)
    return truncate_report(report)


def _announce(context: Context, report: Report) -> None:
    """Make the event that a green run leaves behind."""
    if (events := context.get("outlet_events")) is not None:
        extra: dict[str, Any] = {
            "counts": report["counts"],
            "hard": report["hard"],
            "plan_digest": report["plan_digest"],
        }
        events[AssetAlias(PRUNED)].add(Asset(PRUNED), extra=extra)
