"""What the operators share: the connection, the ledger, the clock, final errors, and the stop of a task."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout
from airflow.sdk import BaseOperator

from tavus_provider.exceptions import (
    PlanRejectedError,
    ReplicaNotFoundError,
    TavusError,
    TavusRequestRejectedError,
    TavusValidationError,
)
from tavus_provider.links.tavus import ReplicaLibraryLink, TavusPageLink
from tavus_provider.models import check_bool
from tavus_provider.operators.run_conf import check_run_conf

if TYPE_CHECKING:
    from types import TracebackType

    from airflow.sdk import Context

    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.planning.plan import Plan
    from tavus_provider.storage.authority import RunAuthority, Trigger
    from tavus_provider.storage.ledger import Ledger
    from tavus_provider.storage.plan_store import AnyPlan

log = logging.getLogger(__name__)

DEFAULT_CONN_ID: Final = "tavus_default"
LINKS: Final = (TavusPageLink(), ReplicaLibraryLink())

_FINAL_ERRORS: Final = (
    TavusValidationError,
    PlanRejectedError,
    TavusRequestRejectedError,
    ReplicaNotFoundError,
)


def fail_without_retry(context: Context) -> contextlib.AbstractContextManager[None]:
    """
    Log an expected error as one line, and fail the task without a retry if a retry cannot fix it.

    Every error of this package, and the end by ``execution_timeout``, is also pushed as the XCom ``error``,
    with its ``kind`` and ``message``, so that the Tavus page can say why a run failed.

    :returns: a context manager. It raises AirflowFailException with the message of an error that a retry
        cannot fix; other errors are not changed
    """
    return _ExpectedErrors(context)


class _ExpectedErrors(contextlib.AbstractContextManager[None]):
    """
    See :func:`fail_without_retry`.

    Airflow logs every exception that leaves a task with its traceback, and has no setting for this. So the
    message is logged before, and the traceback is cut, because the message has the cause. At level DEBUG it
    is logged in full. This is a class because a generator would restore the traceback.

    :param hook: closed at the end
    """

    def __init__(self, context: Context, hook: TavusHook | None = None) -> None:
        self._context = context
        self._hook = hook

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._hook is not None:
            self._hook.close()
        if not isinstance(error, TavusError | AirflowFailException | AirflowTaskTimeout):
            return
        message = str(error)
        if isinstance(error, AirflowTaskTimeout):
            limit = getattr(self._context.get("task"), "execution_timeout", None)
            message = f"the task did not end within its execution_timeout of {limit}"
        log.error("%s", message)
        log.debug("Raised here:", exc_info=error)
        error.__traceback__ = None
        if not isinstance(error, AirflowFailException):
            document = {"version": 1, "kind": type(error).__name__, "message": message}
            with contextlib.suppress(Exception):  # a view must not hide the error
                push_xcom(self._context, "error", document)
        if isinstance(error, _FINAL_ERRORS):
            raise AirflowFailException(str(error)) from None


class TavusOperator(BaseOperator):
    """
    Base class of the operators that send requests to Tavus.

    :param tavus_conn_id: id of the Airflow connection; templated
    :param strict_conf: fail, before anything is read, if the run was triggered with a conf key that is no
        param of the DAG; default: False; not templated
    """

    operator_extra_links = LINKS

    def __init__(
        self, *, tavus_conn_id: str = DEFAULT_CONN_ID, strict_conf: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.tavus_conn_id = tavus_conn_id
        self.strict_conf = check_bool("strict_conf", strict_conf)
        self._stop_requested = False

    @cached_property
    def hook(self) -> TavusHook:
        """The hook of this task, created on first use."""
        from tavus_provider.hooks.tavus import TavusHook

        return TavusHook(self.tavus_conn_id)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of the account of this connection. It remembers what it has read."""
        from tavus_provider.storage.ledger import Ledger

        return Ledger(self.hook.origin, self.tavus_conn_id)

    def running(self, context: Context, *, label: str) -> contextlib.AbstractContextManager[None]:
        """
        Run the body of ``execute``: final errors fail without a retry, and the hook is closed at the end.

        :param label: template of the name of a mapped task, such as ``{{ task.tavus_conn_id }}``
        """
        self.set_label(context, label)
        with fail_without_retry(context):
            if self.strict_conf:
                check_run_conf(context)
            hook = self.hook
            if self._stop_requested:  # before the hook existed
                hook.stop()
        return _ExpectedErrors(context, hook)

    def set_label(self, context: Context, label: str) -> None:
        """Set the template of the name of a mapped task, unless the author of the DAG did."""
        if not self.map_index_template:
            context["map_index_template"] = label

    def on_kill(self) -> None:
        """
        End all waits, and send no further request.

        Airflow calls this on SIGTERM, in a signal handler, and then lets ``execute`` go on. The request that
        comes next raises a retryable error.
        """
        self._stop_requested = True
        if "hook" in self.__dict__:
            self.hook.stop()

    def authority(self, context: Context) -> RunAuthority:
        """Return what the ledger shows about the plans of this DAG run."""
        from tavus_provider.storage.authority import RunAuthority

        return RunAuthority(self.ledger, task=task_identity(context))

    def check_plan(self, plan: object, *, hard: bool, authority: RunAuthority, dry_run: bool = False) -> Plan:
        """
        Return the plan whose digest is in an XCom, if this task may execute it now.

        The plan must have been made in this run, and if ``hard``, approved in this run.

        :param hard: whether the deletes are permanent
        :param authority: what the ledger shows about this run
        :param dry_run: whether nothing is sent; then the plan need not be stored and recorded
        :raises PlanRejectedError: naming what does not match
        :raises LedgerUnavailableError: if the plan or the ledger cannot be read
        """
        from tavus_provider.planning.plan import check_plan
        from tavus_provider.storage.plan_store import from_xcom

        unstored = dry_run and not (isinstance(plan, dict) and "plan_at" in plan)
        checked = check_plan(
            plan if unstored else from_xcom(plan),
            now=now(),
            hard=hard,
            tavus_conn_id=self.tavus_conn_id,
            origin=self.hook.origin,
        )
        if not dry_run:
            authority.require_planned(checked)
            if hard:
                authority.require_approval(checked)
        return checked


def check_bool_or_template(name: str, value: bool | str) -> bool | str:
    """
    Return the value of a templated argument that is ``True`` or ``False`` when the task runs.

    Text is accepted here; it is checked again after it was rendered.

    :param name: name of the argument, for the message
    :raises TavusValidationError: if it is neither text nor ``True`` or ``False``
    """
    return value if isinstance(value, str) else check_bool(name, value)


def now() -> datetime:
    """Return the wall clock in UTC. Ages are never computed from the logical date of a run."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return monotonic time in seconds, for the age of what is known of holds and use."""
    return time.monotonic()


def try_number(context: Context) -> int:
    """Return the number of this attempt of the task, from 1."""
    return int(getattr(context.get("ti"), "try_number", 1) or 1)


def task_identity(context: Context) -> dict[str, Any]:
    """Return which task this is, as the ledger records it: dag_id, run_id, task_id, map_index, try_number."""
    ti = context.get("ti")
    names = {name: str(getattr(ti, name, "")) for name in ("dag_id", "run_id", "task_id")}
    map_index = getattr(ti, "map_index", -1)
    return {
        **names,
        "map_index": map_index if isinstance(map_index, int) else -1,
        "try_number": try_number(context),
    }


def push_xcom(context: Context, key: str, value: Any) -> None:
    """Push an XCom immediately, so that it exists even if the task fails."""
    context["ti"].xcom_push(key=key, value=value)


def load_plan(value: object, context: Context) -> tuple[Plan, RunAuthority]:
    """
    Return the stored plan whose digest is in an XCom, if a plan task of this run made it.

    :returns: the plan, and what the ledger of its account shows about this run
    :raises PlanRejectedError: for anything else
    :raises LedgerUnavailableError: if the plan or the ledger cannot be read
    """
    from tavus_provider.planning.plan import verify_digest
    from tavus_provider.storage.authority import RunAuthority
    from tavus_provider.storage.ledger import Ledger
    from tavus_provider.storage.plan_store import from_xcom

    plan = verify_digest(from_xcom(value))
    ledger = Ledger(plan["origin"], plan["tavus_conn_id"])
    authority = RunAuthority(ledger, task=task_identity(context))
    authority.require_planned(plan)
    return plan, authority


def load_any_plan(value: object, context: Context) -> tuple[AnyPlan, RunAuthority]:
    """Return a stored plan, of a policy or of an erasure, as :func:`load_plan` does."""
    from tavus_provider.storage.authority import RunAuthority
    from tavus_provider.storage.ledger import Ledger
    from tavus_provider.storage.plan_store import any_from_xcom

    plan = any_from_xcom(value)
    ledger = Ledger(plan["origin"], plan["tavus_conn_id"])
    authority = RunAuthority(ledger, task=task_identity(context))
    authority.require_planned(plan)
    return plan, authority


def find_trigger(context: Context) -> Trigger:
    """Return who started this run, as far as Airflow knows it."""
    from tavus_provider.storage.authority import Trigger

    dag_run = context.get("dag_run")
    user = getattr(dag_run, "triggering_user_name", None)
    run_type = getattr(dag_run, "run_type", None)
    by_schedule = str(getattr(run_type, "value", run_type)) in ("scheduled", "backfill", "asset_triggered")
    return Trigger(user=user or None, is_manual=not by_schedule)
