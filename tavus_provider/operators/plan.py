"""Read the account, and decide with a policy which replicas are deleted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from tavus_provider.exceptions import LedgerUnavailableError, PlanRejectedError, TavusValidationError
from tavus_provider.models import check_bool
from tavus_provider.operators import base
from tavus_provider.operators.assets import SCHEDULED, emit_event, with_outlet
from tavus_provider.operators.base import TavusOperator, check_bool_or_template, push_xcom, task_identity
from tavus_provider.operators.decisions import publish_decision, publish_verdicts
from tavus_provider.operators.metrics import send_decision, timed
from tavus_provider.operators.page_xcoms import push_page_xcoms
from tavus_provider.operators.policy_templates import (
    check_native,
    check_templates,
    take_rendered,
    with_placeholders,
)
from tavus_provider.sanitize import escape_line, quote

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.planning.plan import Plan, PlanReference
    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.engine import Decision
    from tavus_provider.retention.policy import Policy
    from tavus_provider.storage.authority import RunAuthority
    from tavus_provider.storage.ledger import Ledger

MAX_LOGGED_IDS: Final = 50
MAX_EVENT_IDS: Final = 1_000


class PlanRetentionOperator(TavusOperator):
    """
    Read the whole account and decide with a policy which replicas are deleted. Delete nothing.

    The plan is stored beside the ledger under its digest, and the ledger records that this run made it. The
    other operators take only the digest from the XCom. A dry run does without if nothing can be written.

    The log has each replica that is expired, scheduled or undetermined with the reason, and counts of the
    others. The XCom ``return_value`` is the plan; if it is too large for an XCom, its location, digest and
    counts. The XCom ``verdicts`` has the verdict on every replica, or if they are too many, where they are
    stored; ``summary`` is the decision in one sentence. If the plan exceeds a limit of its policy, the task
    pushes these XComs and then fails, so that nobody is asked to approve the plan. A dry run only logs a
    warning.

    If a rule has ``grace``, replicas that it matches are first scheduled: they are recorded in the ledger,
    the plan and the log, and with an event of the asset ``tavus_replicas_scheduled``. A dry run schedules
    nothing.

    :param policy: the policy: a mapping, a ``Policy``, or the location of a YAML or JSON file (any Airflow
        object storage path), which is read when the task runs. Templates are allowed in ``older_than``,
        ``unused_for``, ``scope`` and ``narrow``
    :param narrow: ``include``, ``exclude`` and ``older_than`` of a trigger form; a replica is deleted only
        if the policy and ``narrow`` both allow it; templated
    :param hard: whether the plan is for permanent deletes; default: False; not templated
    :param dry_run: only show what would be deleted; default: False; templated
    :param tavus_conn_id: id of the Airflow connection; templated
    :param strict_conf: fail, before anything is read, if the run was triggered with a conf key that is no
        param of the DAG; default: False; not templated
    :raises TavusValidationError: if the policy is invalid, or has a template in any other place
    """

    template_fields: Sequence[str] = ("policy", "narrow", "dry_run", "tavus_conn_id")
    template_fields_renderers = {"policy": "json"}  # noqa: RUF012  # Airflow reads it from the class

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
        self.policy = policy if isinstance(policy, Mapping | str) else _parse_policy(policy).to_json()
        self.policy_as_written = self.policy
        self.narrow = narrow
        self.narrow_as_written = narrow
        self.hard = check_bool("hard", hard)
        # Hides a method of BaseOperator that nothing uses.
        self.dry_run = check_bool_or_template("dry_run", dry_run)  # type: ignore[assignment, method-assign]
        has_templates = check_templates(self.policy, narrow)
        if isinstance(self.policy, Mapping):
            parsed = _parse_policy(with_placeholders(self.policy), narrow=with_placeholders(narrow))
            if not has_templates and (problems := parsed.problems()):
                raise TavusValidationError(f"policy: {'; '.join(problems)}")

    def execute(self, context: Context) -> Plan | PlanReference:
        """Return the plan."""
        from tavus_provider.execution.inventory import read_inventory
        from tavus_provider.planning.overdue import find_overdue, overdue_message
        from tavus_provider.planning.plan import make_plan
        from tavus_provider.retention.engine import evaluate
        from tavus_provider.retention.unmatched import find_lost_holds, find_unmatched
        from tavus_provider.storage.binding_holds import read_binding_holds
        from tavus_provider.storage.history import read_history
        from tavus_provider.storage.known_use_store import store_known_use
        from tavus_provider.storage.last_holds import read_last_holds
        from tavus_provider.storage.shared_accounts import find_shared_account

        with self.running(context, label="{{ task.tavus_conn_id }}"):
            policy = self._rendered_policy()
            dry_run = check_bool("dry_run", self.dry_run)
            ledger = self.ledger
            self._log_header(policy, dry_run=dry_run)
            self._require_shared(ledger, policy, dry_run=dry_run)
            authority = self.authority(context)
            deleted = frozenset[str]() if dry_run else authority.begun_deletes()
            with timed("read", tavus_conn_id=self.tavus_conn_id):
                inventory = read_inventory(
                    self.hook,
                    policy,
                    now=base.now,
                    history=lambda now: read_history(ledger, policy),
                    held=lambda now: read_binding_holds(policy.legal_holds, now=now),
                )
            with timed("decide", tavus_conn_id=self.tavus_conn_id):
                decision = evaluate(policy, inventory, now=inventory.read_at, hard=self.hard)
            before = read_last_holds(ledger, policy=policy.name)
            lost = find_lost_holds(inventory.held, before=before)
            warnings = (*find_unmatched(policy, inventory), *lost, *decision.warnings)
            for warning in (*warnings, *find_shared_account(ledger, inventory)):
                self.log.warning("%s", warning)
            publish_decision(self, context, decision, inventory, dry_run=dry_run)
            plan = make_plan(
                decision,
                policy,
                now=inventory.read_at,
                hard=self.hard,
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
            )
            if (policy.has_grace or inventory.history.due) and not dry_run:
                self._record_schedule(context, policy, inventory, decision)
            beside: dict[str, str] = {}
            if inventory.known_use is not None and not dry_run:
                beside |= store_known_use(inventory.known_use, plan_digest=plan["digest"])
            push_page_xcoms(self, context, decision, policy=policy, inventory=inventory, plan=plan)
            beside |= publish_verdicts(self, context, decision, plan_digest=plan["digest"])
            overdue = len(plan.get("overdue", ())) + plan.get("left_out", {}).get("overdue", 0)
            send_decision(decision, tavus_conn_id=self.tavus_conn_id, overdue=overdue)
            if message := overdue_message(plan, find_overdue(plan)):
                self.log.warning("%s", message)
            pushed = self._store(plan, authority, dry_run=dry_run, holds=inventory.held, beside=beside)
            exceeded = decision.find_exceeded_limit(deleted=deleted)
            if exceeded and not dry_run:
                push_xcom(context, "return_value", pushed)
                raise PlanRejectedError(f"{exceeded}. {self._where_the_policy_is()}")
            if exceeded:
                self.log.warning("A real run would stop here: %s. %s", exceeded, self._where_the_policy_is())
            return pushed

    def _store(
        self,
        plan: Plan,
        authority: RunAuthority,
        *,
        dry_run: bool,
        holds: frozenset[str],
        beside: Mapping[str, str],
    ) -> Plan | PlanReference:
        """Store the plan, record that this run made it, and return its XCom."""
        from tavus_provider.planning.plan import fits_xcom
        from tavus_provider.storage.plan_store import store, to_xcom

        plan_at = None
        try:
            plan_at = store(plan)
            authority.record_plan(plan, dry_run=dry_run, holds=holds, beside=beside)
        except LedgerUnavailableError as error:
            if not dry_run or not (plan_at or fits_xcom(plan)):
                raise
            self.log.warning("The plan of this dry run is not stored and recorded: %s", error)
        pushed = to_xcom(plan, plan_at=plan_at)
        if "plan_at" in pushed:
            self.log.info("The plan is too large for an XCom. It is stored at %s", plan_at)
        return pushed

    def _log_header(self, policy: Policy, *, dry_run: bool) -> None:
        fields = policy.narrowing_fields()
        narrow = {name: value for name, value in policy.to_json().get("narrow", {}).items() if name in fields}
        self.log.info(
            "%s for connection %s (%s): %s deletes, policy %s%s. %s",
            "Dry run" if dry_run else "Plan",
            self.tavus_conn_id,
            self.hook.origin,
            "permanent" if self.hard else "soft",
            quote(policy.name),
            f", narrowed to {escape_line(json.dumps(narrow), 200)}" if narrow else "",
            self._where_the_policy_is(),
        )

    def _where_the_policy_is(self) -> str:
        if isinstance(self.policy_as_written, Mapping):
            return "The policy is in the DAG file"
        from tavus_provider.storage.object_storage import redact

        return f"The policy is {escape_line(redact(self.policy_as_written))}"

    def _rendered_policy(self) -> Policy:
        from tavus_provider.storage.policy_files import read_policy

        check_native(self.narrow_as_written, self.narrow, ("narrow",))
        narrow = take_rendered(self.narrow_as_written, self.narrow)
        if isinstance(self.policy_as_written, Mapping):
            check_native(self.policy_as_written, self.policy)
            policy = _parse_policy(take_rendered(self.policy_as_written, self.policy), narrow=narrow)
        else:
            policy = _parse_policy(read_policy(self.policy_as_written), narrow=narrow)
        if (problem := policy.narrow_age_problem()) is not None:
            raise TavusValidationError(f"policy: {problem}. Nothing was read or deleted")
        return policy

    def _require_shared(self, ledger: Ledger, policy: Policy, *, dry_run: bool) -> None:
        """
        Check that all workers use the same ledger, if the plan or its successors depend on it.

        A dry run deletes nothing and records nothing, so it only warns.
        """
        for purpose, needed in (
            ("a permanent delete", self.hard),
            ("grace", policy.has_grace),
            ("hard_delete_after", policy.hard_delete_after is not None),
            ("a run that is not a dry run", not dry_run),
        ):
            if not needed:
                continue
            if not dry_run:
                ledger.require_shared(purpose)
            elif (reason := ledger.find_unshared(purpose)) is not None:
                self.log.warning("A real run would stop here: %s", reason)

    def _record_schedule(
        self, context: Context, policy: Policy, inventory: Inventory, decision: Decision
    ) -> None:
        from tavus_provider.retention.engine import evaluate
        from tavus_provider.retention.policy import Narrow
        from tavus_provider.storage.history import record_schedule

        without_narrow = policy.model_copy(update={"narrow": Narrow()})
        unnarrowed = decision
        if without_narrow != policy:
            unnarrowed = evaluate(without_narrow, inventory, now=inventory.read_at, hard=self.hard)
        scheduled = sorted(
            record_schedule(
                self.ledger,
                policy,
                decision,
                unnarrowed=unnarrowed,
                history=inventory.history,
                now=inventory.read_at,
                context=task_identity(context),
            )
        )
        if scheduled:
            self.log.info(
                "%d replicas are now scheduled and will be deleted after their grace period: %s",
                len(scheduled),
                ", ".join(scheduled[:MAX_LOGGED_IDS]),
            )
            extra = {
                "tavus_conn_id": self.tavus_conn_id,
                "origin": self.hook.origin,
                "replica_ids": scheduled[:MAX_EVENT_IDS],
                "count": len(scheduled),
                "policy": policy.name,
            }
            emit_event(context, SCHEDULED, extra)


def _parse_policy(value: object, *, narrow: object = None) -> Policy:
    from tavus_provider.retention.policy import Narrow, Policy

    policy = Policy.parse(value)
    if narrow is None:
        return policy
    if policy.narrow != Narrow():
        raise TavusValidationError(
            "policy: narrow is set in the policy and as an argument; set it in one place only"
        )
    return Policy.parse({**policy.to_json(), "narrow": narrow})
