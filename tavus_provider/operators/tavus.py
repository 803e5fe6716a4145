"""
The operators: delete one replica, and plan, approve and apply a retention policy.

What is heavy (HTTP, pydantic models) is imported when a task runs or a policy is given, not when a
DAG file is parsed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Asset, AssetAlias, BaseOperator

from tavus_provider.exceptions import (
    InvalidInput,
    PlanRefused,
    Refused,
    ReplicaNotFound,
    TavusError,
    TryLater,
)
from tavus_provider.links.tavus import ReplicaLibraryLink, TavusPageLink
from tavus_provider.replica import check_bool, check_replica_id

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.apply import Account, Application, Report
    from tavus_provider.batches import Batch
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.ledger import Ledger, Try
    from tavus_provider.plan import Plan
    from tavus_provider.retention import Decision, RetentionPolicy

_CONN_ID = "tavus_default"
_LINKS = (TavusPageLink(), ReplicaLibraryLink())

PRUNED = "tavus_replicas_pruned"
"""Asset with an event for each green apply that was no dry run, with the counts of its report."""

SCHEDULED = "tavus_replicas_scheduled"
"""Asset with an event whenever a plan schedules replicas whose grace begins now."""


@contextlib.contextmanager
def _final_errors_do_not_retry() -> Iterator[None]:
    """Turn what a retry cannot heal into a failure without retry; let Airflow retry the rest."""
    try:
        yield
    except (InvalidInput, PlanRefused, Refused, ReplicaNotFound) as error:
        message = str(error)
    else:
        return
    raise AirflowFailException(message)


class _TavusOperator(BaseOperator):
    """What the operators that talk to Tavus have in common: the connection."""

    operator_extra_links = _LINKS

    def __init__(self, *, tavus_conn_id: str = _CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tavus_conn_id = tavus_conn_id

    @cached_property
    def hook(self) -> TavusHook:
        """The hook of this task; made on first use, closed at the end of ``execute``."""
        from tavus_provider.hooks.tavus import TavusHook

        return TavusHook(self.tavus_conn_id)

    @property
    def ledger(self) -> Ledger:
        """The ledger of the account that the connection means."""
        from tavus_provider.ledger import Ledger

        return Ledger(self.hook.origin, self.tavus_conn_id)


class DeleteReplicaOperator(_TavusOperator):
    """
    Delete one Tavus replica. There is no undelete, whether ``hard`` or not.

    Retries of the task are safe: a replica is deleted once, and what cannot be healed by a retry
    (a bad id, 400, 401, 403) fails at once. Use ``.expand(replica_id=[...])`` for a few replicas, and
    :class:`PlanRetentionOperator` with :class:`ApplyRetentionOperator` for many.

    The XCom is ``{"replica_id", "hard", "outcome", "detail"}`` with the outcome ``deleted``,
    ``confirmed`` (no clean answer, but a look-up shows it gone) or ``already_gone``.

    .. seealso:: https://docs.tavus.io/api-reference/phoenix-replica-model/delete-replica

    :param replica_id: id of the replica; templated
    :param hard: delete the training footage too; not templated, so that no trigger form can set it
    :param ignore_if_missing: succeed as ``already_gone`` where Tavus does not know the id; otherwise the
        task fails, because a typing error must not look like a success
    :param tavus_conn_id: id of the Airflow connection; templated
    """

    template_fields: Sequence[str] = ("replica_id", "ignore_if_missing", "tavus_conn_id")

    def __init__(
        self, *, replica_id: str, hard: bool = False, ignore_if_missing: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.replica_id = replica_id
        self.hard = check_bool("hard", hard)
        self.ignore_if_missing = ignore_if_missing
        if not isinstance(ignore_if_missing, str):
            check_bool("ignore_if_missing", ignore_if_missing)

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the replica and say what came of it."""
        with _final_errors_do_not_retry(), contextlib.closing(self.hook):
            replica_id = check_replica_id(self.replica_id)
            context["map_index_template"] = "{{ task.replica_id }}"
            ignore = check_bool("ignore_if_missing", self.ignore_if_missing)
            with self._recorded(context, replica_id) as (record, begun_before):
                try:
                    done = self.hook.delete_replica(replica_id, hard=self.hard)
                except ReplicaNotFound as error:
                    detail = f"{error}; the replica does not exist, is gone already, or is another account's"
                    if begun_before or _try_number(context) > 1:
                        detail = f"{error}; gone, perhaps by an earlier try of this task"
                    if not ignore and not begun_before:
                        raise ReplicaNotFound(
                            f"{detail}. If that is fine, set ignore_if_missing=True", status=error.status
                        ) from None
                    outcome = "already_gone"
                else:
                    outcome, detail = done.outcome, done.detail
                record[replica_id] = outcome
            self.log.info("%s: %s (%s)", outcome, replica_id, detail)
            return {"replica_id": replica_id, "hard": self.hard, "outcome": outcome, "detail": detail}

    @contextlib.contextmanager
    def _recorded(self, context: Context, replica_id: str) -> Iterator[tuple[dict[str, str], bool]]:
        """Record the intent before and the outcome after; tell if an earlier try may have sent its delete."""
        from tavus_provider.ledger import work_of

        ledger, who = self.ledger, _who(context)
        if self.hard:
            ledger.demand_shared("a permanent delete")
        work = work_of("delete", who["dag_id"], who["run_id"], who["task_id"], who["map_index"])
        tries = ledger.tries(work)
        begun_before = any(
            replica_id in one.intended
            and one.outcomes.get(replica_id, "unknown") not in ("refused", "already_gone")
            for one in tries
        )
        entry = ledger.begin(
            work,
            **who,
            hard=self.hard,
            intent=[replica_id],
            earlier={one.name: one.last_digest for one in tries},
        )
        outcomes = {replica_id: "unknown"}
        try:
            yield outcomes, begun_before
        except TavusError as error:
            outcomes[replica_id] = error.outcome
            raise
        finally:
            entry.close(outcomes=outcomes)


class PlanRetentionOperator(_TavusOperator):
    """
    Read the whole account and decide under a policy which replicas go; delete nothing.

    The verdict on every replica and the reason stand in the log. The XCom ``return_value`` is the plan, or
    if that is larger than an XCom should be, the place where it lies beside the ledger, its digest and its
    counts; the other operators take both. ``verdicts`` is what was decided on each replica, ``summary`` the
    decision in one sentence. The task fails, after pushing all that, if the plan passes a limit of its
    policy, so that nobody is asked to approve it; in a dry run it only warns.

    Where a rule has ``grace``, what has expired is first scheduled: in the ledger, in the plan, in the log,
    and as an event of the asset ``tavus_replicas_scheduled``. A dry run schedules nothing.

    :param policy: the policy: a mapping, a ``RetentionPolicy``, or the location of a YAML or JSON file (any
        Airflow object storage path), which is read when the task runs. Templates may stand in
        ``older_than``, ``unused_for``, ``scope`` and ``narrow``; everywhere else they are refused.
    :param narrow: what a trigger form says, ``include``, ``exclude`` and ``older_than``; all that goes must
        pass it too, in addition to the policy; templated
    :param hard: whether the plan is for permanent deletes; not templated
    :param dry_run: only show what a run would delete; templated
    :param tavus_conn_id: id of the Airflow connection; templated
    """

    template_fields: Sequence[str] = ("policy", "narrow", "dry_run", "tavus_conn_id")
    template_fields_renderers = {"policy": "json"}  # noqa: RUF012  # read by Airflow, as everywhere

    def __init__(
        self,
        *,
        policy: Mapping[str, Any] | RetentionPolicy | str,
        narrow: Mapping[str, Any] | None = None,
        hard: bool = False,
        dry_run: bool | str = False,
        outlets: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        # An alias, because an asset would have an event whenever the task succeeds.
        super().__init__(outlets=[*outlets, AssetAlias(SCHEDULED)], **kwargs)
        self.policy = policy if isinstance(policy, Mapping | str) else _policy(policy).as_json()
        self.policy_as_written = self.policy
        self.narrow = narrow
        self.narrow_as_written = narrow
        self.hard = check_bool("hard", hard)
        self.dry_run = dry_run  # type: ignore[assignment, method-assign]  # hides an unused BaseOperator method
        if not isinstance(dry_run, str):
            check_bool("dry_run", dry_run)
        templated = [*_templated(self.policy), *_templated(narrow, ("narrow",))]
        if fixed := [path for path in templated if not _may_be_templated(path)]:
            raise InvalidInput(
                f"policy: {'.'.join(fixed[0]) or 'its location'} holds a template: what guards a run is "
                "written in the DAG file"
            )
        if isinstance(self.policy, Mapping):
            checked = _policy(_with_stand_ins(self.policy), _with_stand_ins(narrow))
            if not templated and (found := checked.contradictions()):
                raise InvalidInput(f"policy: {'; '.join(found)}")

    def execute(self, context: Context) -> Plan:
        """Return the plan."""
        from tavus_provider.apply import read_account
        from tavus_provider.known import known_of
        from tavus_provider.page import decision_sentence, decision_table
        from tavus_provider.plan import make_plan, verdict_rows
        from tavus_provider.store import as_xcom

        with _final_errors_do_not_retry(), contextlib.closing(self.hook):
            policy = self._rendered_policy()
            dry_run = check_bool("dry_run", self.dry_run)
            ledger = self.ledger
            for what, asked in (
                ("a permanent delete", self.hard),
                ("grace", policy.has_grace),
                ("hard_delete_after", policy.hard_delete_after is not None),
            ):
                if asked:
                    ledger.demand_shared(what)
            account = read_account(
                self.hook, policy, now=_now, known=lambda now: known_of(policy, ledger, now=now)
            )
            decision = account.decide(policy, hard=self.hard)
            for line in decision_table(decision, now=account.now):
                self.log.info("%s", line)
            summary = f"{'Dry run: ' if dry_run else ''}{decision_sentence(decision)}"
            self.log.info("%s", summary)
            _push(context, "summary", summary)
            plan = make_plan(
                decision,
                policy,
                now=account.now,
                hard=self.hard,
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
            )
            if policy.has_grace and not dry_run:
                self._reschedule(context, policy, account, decision)
            _push(context, "verdicts", verdict_rows(decision))
            pushed = as_xcom(plan)
            if pushed is not plan:
                self.log.info("The plan is too large for an XCom, it lies at %s", pushed["plan_at"])
            if decision.breach and not dry_run:
                _push(context, "return_value", pushed)
                raise PlanRefused(decision.breach)
            if decision.breach:
                self.log.warning("A real run would stop here: %s", decision.breach)
            return pushed

    def _rendered_policy(self) -> RetentionPolicy:
        narrow = _as_written(self.narrow_as_written, self.narrow)
        if isinstance(self.policy_as_written, Mapping):
            return _policy(_as_written(self.policy_as_written, self.policy), narrow)
        from tavus_provider.files import read_policy

        return _policy(read_policy(self.policy_as_written), narrow)

    def _reschedule(
        self, context: Context, policy: RetentionPolicy, account: Account, decision: Decision
    ) -> None:
        from tavus_provider.known import reschedule
        from tavus_provider.policy import Narrow

        unnarrowed = policy.model_copy(update={"narrow": Narrow()})
        new = reschedule(
            self.ledger,
            policy,
            decision,
            unnarrowed=decision if unnarrowed == policy else account.decide(unnarrowed, hard=self.hard),
            known=account.known,
            now=account.now,
            context=_who(context),
        )
        if not new:
            return
        self.log.info(
            "Scheduled now, to be deleted when their grace is over: %s", ", ".join(sorted(new)[:50])
        )
        if events := context.get("outlet_events"):
            ids: list[Any] = sorted(new)[:1_000]
            extra: dict[str, Any] = {"replica_ids": ids, "count": len(new), "policy": policy.name}
            events[AssetAlias(SCHEDULED)].add(Asset(SCHEDULED), extra=extra)


class ApproveRetentionOperator(ApprovalOperator):
    """
    Show a person a plan for permanent deletes, and wait.

    The page, under Required Actions in the Airflow UI, is made of the plan that this task is handed,
    and an approval counts for its digest only: pass ``approve.output["approved_digest"]`` on to
    :class:`ApplyRetentionOperator`, or, where the plan is of one replica, ``approved_replica_id`` to
    :class:`DeleteReplicaOperator`. Reject skips what follows; no answer fails the run; with nothing to
    delete the task is skipped. A second try of this task fails, because Airflow would show the page of
    the first: trigger a new run. Only those named in ``[tavus] approvers`` may answer, if any are.

    :param plan: the output of a plan task with ``hard=True``
    :param response_timeout: how long to wait; 24 hours, as long as a plan is good, unless set
    """

    operator_extra_links = _LINKS
    template_fields = ("plan",)

    def __init__(
        self, *, plan: Any, response_timeout: timedelta = timedelta(hours=24), **kwargs: Any
    ) -> None:
        for fixed in ("defaults", "subject", "body", "assigned_users"):
            if fixed in kwargs:
                raise InvalidInput(
                    f"{fixed} cannot be given: the page is made of the plan, silence fails the run, and who "
                    "may approve is set by approvers in section [tavus] of the configuration"
                )
        super().__init__(
            subject="Delete Tavus replicas permanently?", response_timeout=response_timeout, **kwargs
        )
        self.plan = plan

    def execute(self, context: Context) -> Any:
        """Show the page and wait."""
        from tavus_provider.page import approval_page, approval_subject

        with _final_errors_do_not_retry():
            if _try_number(context) > 1:
                raise PlanRefused(
                    "an approval is asked for once, a second page could show another plan: trigger a new run"
                )
            self.plan = _opened(self.plan)
            digest = self._digest()
            if not self.plan["delete"]:
                raise AirflowSkipException("Nothing to delete, so nobody is asked.")
            self.subject, self.body = approval_subject(self.plan), approval_page(self.plan)
            self.assigned_users = _approvers()
            _push(context, "shown_digest", digest)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Pass the digest on if this very plan was approved."""
        answer = super().execute_complete(context, event)
        if event["chosen_options"] == [self.APPROVE]:
            with _final_errors_do_not_retry():
                self.plan = _opened(self.plan)
                shown = context["ti"].xcom_pull(task_ids=self.task_id, key="shown_digest")
                if shown is None or shown != self._digest():
                    raise PlanRefused("the plan is not the one that was shown: trigger a new run")
                self._record(context, event)
                _push(context, "approved_digest", shown)
                if len(self.plan["delete"]) == 1:
                    _push(context, "approved_replica_id", self.plan["delete"][0]["replica_id"])
        return answer

    def _record(self, context: Context, event: Mapping[str, Any]) -> None:
        from tavus_provider.ledger import Ledger, work_of

        by = event.get("responded_by_user") or {}
        entry = Ledger(self.plan["origin"], self.plan["tavus_conn_id"]).begin(
            work_of("plan", self.plan["digest"]),
            **_who(context),
            hard=True,
            plan_digest=self.plan["digest"],
            policy_digest=self.plan["policy_digest"],
            approved_by=str(by.get("id")),
        )
        entry.close()

    def _digest(self) -> str:
        from tavus_provider.digest import digest_of

        if isinstance(self.plan, dict) and self.plan.get("hard") is True:
            digest = digest_of(self.plan)
            if digest == self.plan.get("digest"):
                return digest
        raise PlanRefused(
            "plan is not the unchanged output of a plan task with hard=True, and only such a plan is approved"
        )


class ApplyRetentionOperator(_TavusOperator):
    """
    Carry out a plan: delete what it names and what is still so.

    Before the first delete the account is read again, completely, and decided again with the plan's own
    policy; what is no longer to go is ``skipped``, what is missing is ``already_gone``. Before a permanent
    delete each replica is read once more. Afterwards the list is read again: what is still listed is not
    deleted, whatever was answered. The plan may get smaller here, never larger.

    The XCom is the report; it is pushed and logged before the task fails. The task is green only if no
    replica is ``refused``, ``unknown`` or ``not_attempted``. The intent is in the ledger before the first
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
    :param side_by_side: how many tasks like this one may run at once; each keeps to its share of the
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
        side_by_side: int = 1,
        **kwargs: Any,
    ) -> None:
        # An alias, because an asset would have an event after a dry run too.
        # Not an argument with a default: Airflow would add that, a tuple, to the lists of a mapped task.
        outlets = [*kwargs.pop("outlets", ()), AssetAlias(PRUNED)]
        super().__init__(outlets=outlets, **kwargs)
        self.plan = plan
        self.batch = batch
        self.side_by_side = side_by_side
        self.approved_digest = approved_digest
        self.hard = check_bool("hard", hard)
        self.dry_run = dry_run  # type: ignore[assignment, method-assign]  # hides an unused BaseOperator method
        if not isinstance(dry_run, str):
            check_bool("dry_run", dry_run)
        self.concurrency = concurrency
        self.requests_per_second = requests_per_second
        self._under_way: Application | None = None
        self._killed = False
        if (concurrency, requests_per_second) != (None, None) or side_by_side is True or side_by_side != 1:
            from tavus_provider.account import check_bounds

            check_bounds("side_by_side", side_by_side)
            if concurrency is not None:
                check_bounds("concurrency", concurrency)
            if requests_per_second is not None:
                check_bounds("requests_per_second", requests_per_second)

    @cached_property
    def hook(self) -> TavusHook:
        """The hook of this task, as fast as its operator and its connection allow."""
        from tavus_provider.hooks.tavus import TavusHook

        return TavusHook(
            self.tavus_conn_id,
            concurrency=self.concurrency,
            requests_per_second=self.requests_per_second,
            side_by_side=self.side_by_side,
        )

    def execute(self, context: Context) -> Report:
        """Delete, and return the report."""
        from tavus_provider.apply import dry_report
        from tavus_provider.batches import Batch
        from tavus_provider.plan import check_plan

        with _final_errors_do_not_retry(), contextlib.closing(self.hook):
            dry_run = check_bool("dry_run", self.dry_run)
            plan = check_plan(
                _opened(self.plan),
                now=_now(),
                hard=self.hard,
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
                approved_digest=self.approved_digest,
            )
            batch = None if self.batch is None else Batch.read(self.batch, plan)
            rows = plan["delete"]
            if batch is not None:
                rows = batch.rows(plan)
                context["map_index_template"] = label = batch.label(plan)
                self.log.info("Batch %d of %d: replicas %s", batch.number, batch.of, label)
            if dry_run:
                return _say(self.log, context, dry_report(plan, rows), plan)
            self._under_way = application = self._application(context, plan, batch, rows)
            if self._killed:
                self.on_kill()
            try:
                if rows:
                    application.run()
            finally:
                # Whatever happens, the report is pushed first; only then may recording it fail.
                report = _say(self.log, context, application.report(), plan)
                _push(context, "return_value", report)
                application.close()
            if message := _red(report):
                if application.may_heal:
                    raise TryLater(message)
                raise AirflowFailException(message)
            if batch is None:
                _announce(context, report)
            return report

    def on_kill(self) -> None:
        """Start no further delete; Airflow calls this on SIGTERM, and lets ``execute`` go on."""
        self._killed = True
        if self._under_way is not None:
            self._under_way.stop("the task was told to stop")

    def _application(
        self, context: Context, plan: Plan, batch: Batch | None, rows: Sequence[Mapping[str, Any]]
    ) -> Application:
        from tavus_provider.apply import Application
        from tavus_provider.known import known_of
        from tavus_provider.ledger import work_of
        from tavus_provider.retention import RetentionPolicy

        ledger, who, policy = self.ledger, _who(context), RetentionPolicy.read(plan["policy"])
        if self.hard:
            ledger.demand_shared("a permanent delete")
        work = work_of("plan", plan["digest"])
        tries = ledger.tries(work)
        ids = {row["replica_id"] for row in rows}
        own = ("dag_id", "run_id", "task_id", "map_index")
        part = {} if batch is None else {"batch": batch.as_json()}
        # Those of other batches go on while this one runs, so they are not what came before it.
        before = [
            one for one in tries if "intent" in one.began and one.began.get("batch") == part.get("batch")
        ]
        earlier = _left_by(one for one in before if all(one.began[key] == who[key] for key in own))
        return Application(
            plan,
            self.hook,
            concurrency=self.hook.transport.extras.concurrency,
            now=_now,
            log=lambda line: self.log.info("%s", line),
            begin=lambda **fields: ledger.begin(
                work,
                **who,
                hard=self.hard,
                plan_digest=plan["digest"],
                policy_digest=plan["policy_digest"],
                approved_digest=self.approved_digest,
                earlier={one.name: one.last_digest for one in before},
                **part,
                **fields,
            ),
            known=lambda now: known_of(policy, ledger, now=now),
            earlier=earlier,
            earlier_tries=_try_number(context) > 1,
            begun_before=any(not ids.isdisjoint(one.intended) for one in tries),
            rows=rows,
            carried=lambda: _left_by(ledger.tries(work)),
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
        if not _is_template(batch_size):
            from tavus_provider.batches import check_batch_size

            check_batch_size(batch_size)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the batches."""
        from airflow.configuration import conf

        from tavus_provider.batches import MAX_BATCHES, check_batch_size, split

        with _final_errors_do_not_retry():
            plan = _unchanged(_opened(self.plan))
            size = check_batch_size(self.batch_size)
            allowed = min(MAX_BATCHES, conf.getint("core", "max_map_length", fallback=MAX_BATCHES))
            batches = split(plan, batch_size=size, max_batches=allowed)
            largest = max((len(batch.rows(plan)) for batch in batches), default=0)
            if largest > size:
                self.log.warning(
                    "Batches of %d would be more than %d, so they are of up to %d", size, allowed, largest
                )
            self.log.info("%d replicas in %d batches of up to %d", len(plan["delete"]), len(batches), largest)
            return [{"batch": batch.as_json()} for batch in batches]


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

    def __init__(self, *, plan: Any, reports: Any, outlets: Sequence[Any] = (), **kwargs: Any) -> None:
        super().__init__(outlets=[*outlets, AssetAlias(PRUNED)], **kwargs)
        self.plan = plan
        self.reports = reports

    def execute(self, context: Context) -> Report:
        """Return the report."""
        from tavus_provider.batches import summarize
        from tavus_provider.ledger import Ledger, work_of

        with _final_errors_do_not_retry():
            plan = _unchanged(_opened(self.plan))
            ledger = Ledger(plan["origin"], plan["tavus_conn_id"])
            work = work_of("plan", plan["digest"])
            report = summarize(
                plan,
                self.reports or (),
                recorded=_left_by(ledger.tries(work)),
                ledger=f"{ledger.place}/{work}",
            )
            report = _say(self.log, context, report, plan)
            _push(context, "return_value", report)
            if message := _red(report):
                raise AirflowFailException(message)
            if not report["dry_run"]:
                _announce(context, report)
            return report


class LookUpReplicaOperator(_TavusOperator):
    """
    Read one replica and what uses it, and refuse it if it may not be deleted by hand.

    Refused are replicas that are not of the type ``user``, those in use as a persona's default, in an
    active conversation or in a video that is being made, and those which the file ``[tavus] policy`` names
    as held. The XCom is a plan with this one replica,
    made for a permanent delete, so that :class:`ApproveRetentionOperator` can show it.

    :param replica_id: id of the replica; templated
    :param ignore_if_missing: go on where Tavus does not know the id (it may be soft-deleted); templated
    :param tavus_conn_id: id of the Airflow connection; templated
    """

    template_fields: Sequence[str] = ("replica_id", "ignore_if_missing", "tavus_conn_id")

    def __init__(self, *, replica_id: str, ignore_if_missing: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replica_id = replica_id
        self.ignore_if_missing = ignore_if_missing
        if not isinstance(ignore_if_missing, str):
            check_bool("ignore_if_missing", ignore_if_missing)

    def execute(self, context: Context) -> Plan:
        """Return the plan of one."""
        with _final_errors_do_not_retry(), contextlib.closing(self.hook):
            from tavus_provider.apply import BY_HAND, decide_one
            from tavus_provider.plan import make_plan
            from tavus_provider.retention import Decision

            ignore = check_bool("ignore_if_missing", self.ignore_if_missing)
            verdict = decide_one(
                self.hook, self.replica_id, now=_now, held=_held_by_deployment(), ignore_if_missing=ignore
            )
            self.log.info("%s: %s", verdict.replica.replica_id, verdict.reason)
            return make_plan(
                Decision((verdict,), BY_HAND.limits),
                BY_HAND,
                now=_now(),
                hard=True,
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
            )


def _opened(plan: object) -> Any:
    """The plan itself, wherever it lies."""
    from tavus_provider.store import from_xcom

    return from_xcom(plan)


def _unchanged(plan: object) -> Plan:
    from tavus_provider.digest import digest_of

    if (
        isinstance(plan, dict)
        and isinstance(plan.get("delete"), list)
        and digest_of(plan) == plan.get("digest")
    ):
        return plan
    raise PlanRefused("plan is not the unchanged output of a plan task; let the DAG render native objects")


def _left_by(tries: Iterable[Try]) -> dict[str, str | None]:
    """What tries have left of each id: its last outcome, or ``None`` where only the intent was recorded."""
    left: dict[str, str | None] = {}
    for one in tries:
        left |= dict.fromkeys(one.intended) | one.outcomes
    return left


def _say(log: Any, context: Context, report: Report, plan: Plan) -> Report:
    """Log a report, push its sentence, and return it as it fits into an XCom."""
    from tavus_provider.apply import fitted
    from tavus_provider.page import report_sentence, report_table

    for line in report_table(report, plan):
        log.info("%s", line)
    summary = report_sentence(report)
    log.info("%s", summary)
    _push(context, "summary", summary)
    return fitted(report)


def _announce(context: Context, report: Report) -> None:
    """Make the event that a green run leaves behind."""
    if (events := context.get("outlet_events")) is not None:
        extra = {name: report[name] for name in ("counts", "hard", "plan_digest")}
        events[AssetAlias(PRUNED)].add(Asset(PRUNED), extra=extra)


def _red(report: Report) -> str | None:
    """Why a task with this report is not green."""
    from tavus_provider.apply import RED

    if red := sum(report["counts"][outcome] for outcome in RED):
        total = sum(report["counts"].values())
        return f"{red} of {total} planned replicas may still be there: see the report"
    return None


def _policy(value: object, narrow: object = None) -> RetentionPolicy:
    from tavus_provider.retention import RetentionPolicy

    policy = RetentionPolicy.read(value)
    if narrow is None:
        return policy
    if policy.narrow != type(policy.narrow)():
        raise InvalidInput("policy: narrow is given in the policy and as an argument: give one of them")
    return RetentionPolicy.read({**policy.as_json(), "narrow": narrow})


def _held_by_deployment() -> frozenset[str]:
    """The ids under legal hold in the policy of the deployment, if it has one."""
    from airflow.configuration import conf

    location = conf.get("tavus", "policy", fallback="")
    if not location:
        return frozenset()
    from tavus_provider.files import read_holds, read_policy

    holds = read_policy(location).legal_holds
    return frozenset() if holds is None else read_holds(holds, now=_now())


def _now() -> datetime:
    """The wall clock: an age is never counted from the logical date of a run."""
    return datetime.now(UTC)


def _try_number(context: Context) -> int:
    return int(getattr(context.get("ti"), "try_number", 1) or 1)


def _who(context: Context) -> dict[str, Any]:
    """Which task does it, in which run and try, as the ledger records it."""
    ti = context.get("ti")
    who = {name: str(getattr(ti, name, "")) for name in ("dag_id", "run_id", "task_id")}
    at = getattr(ti, "map_index", -1)
    return {**who, "map_index": at if isinstance(at, int) else -1, "try_number": _try_number(context)}


def _push(context: Context, key: str, value: Any) -> None:
    context["ti"].xcom_push(key=key, value=value)


def _approvers() -> list[Any] | None:
    from airflow.configuration import conf

    names = [name.strip() for name in conf.get("tavus", "approvers", fallback="").split(",")]
    return [{"id": name, "name": name} for name in names if name] or None


def _is_template(value: object) -> bool:
    return isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))


def _templated(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where in a policy templates stand."""
    if _is_template(value):
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _templated(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _templated(inner, (*path, str(number)))


def _may_be_templated(path: tuple[str, ...]) -> bool:
    return path[:1] in (("scope",), ("narrow",)) or (
        path[:1] == ("expire",) and path[-1] in ("older_than", "unused_for")
    )


def _with_stand_ins(value: Any, key: str = "") -> Any:
    """A policy that can be checked before its templates are rendered: something good stands for each."""
    if _is_template(value):
        lists, mappings = ("include", "exclude", "model_names"), ("scope", "narrow")
        return [] if key in lists else {} if key in mappings else "1d"
    if isinstance(value, Mapping):
        return {name: _with_stand_ins(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_stand_ins(inner) for inner in value]
    return value


def _as_written(written: Any, rendered: Any) -> Any:
    """Take only what is a template from the rendered policy: native rendering reads '123' as a number."""
    if _is_template(written):
        return rendered
    if isinstance(written, Mapping):
        return {key: _as_written(value, rendered[key]) for key, value in written.items()}
    if isinstance(written, list | tuple):
        return [_as_written(*pair) for pair in zip(written, rendered, strict=True)]
    return written
