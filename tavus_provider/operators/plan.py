"""Plan: read the account and decide; what of a policy a template may say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.models import check_bool
from tavus_provider.operators import base
from tavus_provider.operators.base import (
    TavusOperator,
    final_errors_do_not_retry,
    is_template,
    push,
    switch,
    task_identity,
    with_outlet,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.planning.plan import Plan, PlanReference
    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.engine import Decision
    from tavus_provider.retention.policy import Policy

SCHEDULED = "tavus_replicas_scheduled"
"""Asset with an event whenever a plan schedules replicas whose grace begins now."""


class PlanRetentionOperator(TavusOperator):
    """
    Read the whole account and decide under a policy which replicas go; delete nothing.

    The verdict on every replica and the reason stand in the log. The XCom ``return_value`` is the plan, or
    if that is larger than an XCom should be, the place where it lies beside the ledger, its digest and its
    counts; the other operators take both. ``verdicts`` is what was decided on each replica, ``summary`` the
    decision in one sentence. The task fails, after pushing all that, if the plan passes a limit of its
    policy, so that nobody is asked to approve it; in a dry run it only warns.

    Where a rule has ``grace``, what has expired is first scheduled: in the ledger, in the plan, in the log,
    and as an event of the asset ``tavus_replicas_scheduled``. A dry run schedules nothing.

    :param policy: the policy: a mapping, a ``Policy``, or the location of a YAML or JSON file (any
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
        policy: Mapping[str, Any] | Policy | str,
        narrow: Mapping[str, Any] | None = None,
        hard: bool = False,
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_outlet(SCHEDULED, kwargs))
        self.policy = policy if isinstance(policy, Mapping | str) else _policy(policy).to_json()
        self.policy_as_written = self.policy
        self.narrow = narrow
        self.narrow_as_written = narrow
        self.hard = check_bool("hard", hard)
        # Hides a method of BaseOperator that nothing uses.
        self.dry_run = switch("dry_run", dry_run)  # type: ignore[assignment, method-assign]
        templated = [*_templated(self.policy), *_templated(narrow, ("narrow",))]
        if fixed := [path for path in templated if not _may_be_templated(path)]:
            raise TavusValidationError(
                f"policy: {'.'.join(fixed[0]) or 'its location'} holds a template: what guards a run is "
                "written in the DAG file"
            )
        if isinstance(self.policy, Mapping):
            checked = _policy(_with_stand_ins(self.policy), _with_stand_ins(narrow))
            if not templated and (found := checked.problems()):
                raise TavusValidationError(f"policy: {'; '.join(found)}")

    def execute(self, context: Context) -> Plan | PlanReference:
        """Return the plan."""
        from tavus_provider.execution.inventory import read_inventory
        from tavus_provider.planning.plan import make_plan
        from tavus_provider.planning.verdicts import make_verdicts
        from tavus_provider.rendering.tables import decision_lines, decision_sentence
        from tavus_provider.retention.engine import evaluate
        from tavus_provider.storage.history import read_history
        from tavus_provider.storage.plan_store import to_xcom
        from tavus_provider.storage.policy_files import read_legal_holds

        with final_errors_do_not_retry(), contextlib.closing(self.hook):
            context["map_index_template"] = "{{ task.tavus_conn_id }}"
            policy = self._rendered_policy()
            dry_run = check_bool("dry_run", self.dry_run)
            ledger = self.ledger
            for what, asked in (
                ("a permanent delete", self.hard),
                ("grace", policy.has_grace),
                ("hard_delete_after", policy.hard_delete_after is not None),
            ):
                if asked:
                    ledger.require_shared(what)
            account = read_inventory(
                self.hook,
                policy,
                now=base.now,
                history=lambda now: read_history(ledger, policy),
                held=lambda now: read_legal_holds(policy.legal_holds, now=now),
            )
            decision = evaluate(policy, account, now=account.read_at, hard=self.hard)
            for line in decision_lines(decision, now=account.read_at):
                self.log.info("%s", line)
            summary = f"{'Dry run: ' if dry_run else ''}{decision_sentence(decision)}"
            self.log.info("%s", summary)
            push(context, "summary", summary)
            plan = make_plan(
                decision,
                policy,
                now=account.read_at,
                hard=self.hard,
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
            )
            if policy.has_grace and not dry_run:
                self._reschedule(context, policy, account, decision)
            push(context, "verdicts", make_verdicts(decision))
            pushed = to_xcom(plan)
            if plan_at := dict(pushed).get("plan_at"):
                self.log.info("The plan is too large for an XCom, it lies at %s", plan_at)
            if decision.limit_exceeded and not dry_run:
                push(context, "return_value", pushed)
                raise PlanRejectedError(decision.limit_exceeded)
            if decision.limit_exceeded:
                self.log.warning("A real run would stop here: %s", decision.limit_exceeded)
            return pushed

    def _rendered_policy(self) -> Policy:
        narrow = _as_written(self.narrow_as_written, self.narrow)
        if isinstance(self.policy_as_written, Mapping):
            return _policy(_as_written(self.policy_as_written, self.policy), narrow)
        from tavus_provider.storage.policy_files import read_policy

        return _policy(read_policy(self.policy_as_written), narrow)

    def _reschedule(self, context: Context, policy: Policy, account: Inventory, decision: Decision) -> None:
        from tavus_provider.retention.engine import evaluate
        from tavus_provider.retention.policy import Narrow
        from tavus_provider.storage.history import record_schedule

        unnarrowed = policy.model_copy(update={"narrow": Narrow()})
        new = record_schedule(
            self.ledger,
            policy,
            decision,
            unnarrowed=decision
            if unnarrowed == policy
            else evaluate(unnarrowed, account, now=account.read_at, hard=self.hard),
            history=account.history,
            now=account.read_at,
            context=task_identity(context),
        )
        if not new:
            return
        self.log.info(
            "Scheduled now, to be deleted when their grace is over: %s", ", ".join(sorted(new)[:50])
        )
        if (events := context.get("outlet_events")) is not None:  # empty, and so false, until one is added
            ids: list[Any] = sorted(new)[:1_000]
            extra: dict[str, Any] = {"replica_ids": ids, "count": len(new), "policy": policy.name}
            events[AssetAlias(SCHEDULED)].add(Asset(SCHEDULED), extra=extra)


def _policy(value: object, narrow: object = None) -> Policy:
    from tavus_provider.retention.policy import Policy

    policy = Policy.parse(value)
    if narrow is None:
        return policy
    if policy.narrow != type(policy.narrow)():
        raise TavusValidationError(
            "policy: narrow is given in the policy and as an argument: give one of them"
        )
    return Policy.parse({**policy.to_json(), "narrow": narrow})


def _templated(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where in a policy templates stand."""
    if is_template(value):
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
    if is_template(value):
        lists, mappings = ("include", "exclude", "model_names"), ("scope", "narrow")
        return [] if key in lists else {} if key in mappings else "1d"
    if isinstance(value, Mapping):
        return {name: _with_stand_ins(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_stand_ins(inner) for inner in value]
    return value


def _as_written(written: Any, rendered: Any) -> Any:
    """Take only what is a template from the rendered policy: native rendering reads '123' as a number."""
    if is_template(written):
        return rendered
    if isinstance(written, Mapping):
        return {key: _as_written(value, rendered[key]) for key, value in written.items()}
    if isinstance(written, list | tuple):
        return [_as_written(*pair) for pair in zip(written, rendered, strict=True)]
    return written
