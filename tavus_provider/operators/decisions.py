"""What a plan task tells about its decision: the log, and the XComs ``summary`` and ``verdicts``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tavus_provider.exceptions import LedgerUnavailableError
from tavus_provider.operators.base import push_xcom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.engine import Decision


def publish_decision(
    operator: BaseOperator, context: Context, decision: Decision, inventory: Inventory, *, dry_run: bool
) -> None:
    """
    Log a decision, and push its summary as XCom ``summary``.

    The log has the replicas that are expired, scheduled or undetermined. At level DEBUG it has all verdicts.
    """
    from tavus_provider.rendering.tables import decision_lines, decision_sentence, due_lines

    for line in due_lines(decision, now=inventory.read_at):
        operator.log.info("%s", line)
    if operator.log.isEnabledFor(logging.DEBUG):
        for line in decision_lines(decision, now=inventory.read_at):
            operator.log.debug("%s", line)
    summary = f"{'Dry run: ' if dry_run else ''}{decision_sentence(decision)}"
    operator.log.info("%s", summary)
    push_xcom(context, "summary", summary)


def publish_verdicts(
    operator: BaseOperator, context: Context, decision: Decision, *, plan_digest: str
) -> dict[str, str]:
    """
    Push the verdict on every replica as XCom ``verdicts``.

    If they are too many for an XCom, they are stored beside the plan, and the XCom says where. A failure to
    store them is only logged: nothing is deleted because of them.

    :returns: the SHA-256 of the stored file by the end of its name; empty if none is stored
    """
    from tavus_provider.planning.verdicts import fit_xcom, make_verdicts, with_location
    from tavus_provider.storage.plan_store import VERDICTS_FILE, store_verdicts

    verdicts = make_verdicts(decision)
    pushed = fit_xcom(verdicts)
    beside: dict[str, str] = {}
    if pushed != verdicts:
        where = None
        try:
            where, beside[VERDICTS_FILE] = store_verdicts(verdicts, plan_digest=plan_digest)
        except LedgerUnavailableError as error:
            operator.log.warning("The verdicts are not stored: %s", error)
        else:
            operator.log.info("All verdicts, and what the checks saw, are stored at %s", where)
        pushed = with_location(pushed, where)
    push_xcom(context, "verdicts", pushed)
    return beside
