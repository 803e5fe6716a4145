"""What the operators have in common: the connection, the ledger, the time, and which errors are final."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import AssetAlias, BaseOperator

from tavus_provider.exceptions import (
    PlanRejectedError,
    ReplicaNotFoundError,
    TavusRequestRejectedError,
    TavusValidationError,
)
from tavus_provider.links.tavus import ReplicaLibraryLink, TavusPageLink
from tavus_provider.models import check_bool

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.planning.plan import Plan
    from tavus_provider.storage.ledger import Ledger

CONN_ID = "tavus_default"
LINKS = (TavusPageLink(), ReplicaLibraryLink())


@contextlib.contextmanager
def final_errors_do_not_retry() -> Iterator[None]:
    """Turn what a retry cannot heal into a failure without retry; let Airflow retry the rest."""
    try:
        yield
    except (
        TavusValidationError,
        PlanRejectedError,
        TavusRequestRejectedError,
        ReplicaNotFoundError,
    ) as error:
        message = str(error)
    else:
        return
    raise AirflowFailException(message)


class TavusOperator(BaseOperator):
    """What the operators that talk to Tavus have in common: the connection."""

    operator_extra_links = LINKS

    def __init__(self, *, tavus_conn_id: str = CONN_ID, **kwargs: Any) -> None:
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
        from tavus_provider.storage.ledger import Ledger

        return Ledger(self.hook.origin, self.tavus_conn_id)

    def good_plan(self, plan: object, *, hard: bool, approved_digest: object) -> Plan:
        """
        Return the plan of an XCom if this task may carry it out now.

        :raises PlanRejectedError: saying what does not fit
        :raises LedgerUnavailableError: if it lies in a store that cannot be read
        """
        from tavus_provider.planning.plan import check_plan

        return check_plan(
            opened(plan),
            now=now(),
            hard=hard,
            tavus_conn_id=self.tavus_conn_id,
            origin=self.hook.origin,
            approved_digest=approved_digest,
        )


def switch(name: str, value: bool | str) -> bool | str:
    """
    Return a switch that may be a template: text is left to be checked when the task runs.

    :raises TavusValidationError: if it is neither text nor ``True`` or ``False`` itself
    """
    return value if isinstance(value, str) else check_bool(name, value)


def with_outlet(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the arguments of an operator with an outlet more, an alias of the asset ``name``.

    An alias, because an asset would have an event whenever the task succeeds. Not an argument with a
    default: Airflow would add that, a tuple, to the lists of a mapped task.
    """
    return {**kwargs, "outlets": [*kwargs.get("outlets", ()), AssetAlias(name)]}


def now() -> datetime:
    """The wall clock: an age is never counted from the logical date of a run."""
    return datetime.now(UTC)


def try_number(context: Context) -> int:
    """Which try of the task this is, from 1."""
    return int(getattr(context.get("ti"), "try_number", 1) or 1)


def task_identity(context: Context) -> dict[str, Any]:
    """Which task does it, in which run and try, as the ledger records it."""
    ti = context.get("ti")
    who = {name: str(getattr(ti, name, "")) for name in ("dag_id", "run_id", "task_id")}
    at = getattr(ti, "map_index", -1)
    return {**who, "map_index": at if isinstance(at, int) else -1, "try_number": try_number(context)}


def push(context: Context, key: str, value: Any) -> None:
    """Push an XCom now, so that it is there even if the task fails."""
    context["ti"].xcom_push(key=key, value=value)


def opened(plan: object) -> Any:
    """Return the plan itself, from an XCom that may only say where it lies."""
    from tavus_provider.storage.plan_store import from_xcom

    return from_xcom(plan)


def unchanged(plan: object) -> Plan:
    """
    Return a plan whose content matches its digest.

    :raises PlanRejectedError: for anything else
    """
    from tavus_provider.planning.plan import verify_digest

    return verify_digest(plan)


def is_template(value: object) -> bool:
    """Whether Airflow is to render this text."""
    return isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))
