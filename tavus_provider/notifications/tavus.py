"""
Tell somebody about a red run in one sentence: what was done, what may still be there, where to look.

A failed task emits no asset event, so this is how the failures leave Airflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    from airflow.sdk import Context

MAX_NAMED = 5
"""Replicas named in a sentence; the others are counted."""


class TavusNotifier(BaseNotifier):
    """
    Read what a failed task has pushed and hand one sentence about it on.

    Use it as ``on_failure_callback`` of a plan, apply or delete task, or in the ``default_args`` of a DAG::

        on_failure_callback=TavusNotifier(send=print)
        on_failure_callback=TavusNotifier(send=SlackNotifier(text="{{ tavus_summary }}"))

    The sentence holds ids and reasons, no names and no key. Whatever ``send`` raises is logged by Airflow
    and changes nothing about the task.

    :param send: a callable that is given the sentence, or another notifier, in whose templates it is
        ``{{ tavus_summary }}``
    """

    def __init__(self, *, send: Callable[[str], object] | BaseNotifier, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.send = send

    def notify(self, context: Context) -> None:
        """Hand the sentence on."""
        sentence = failure_sentence(context)
        if isinstance(self.send, BaseNotifier):
            values: Any = {**context, "tavus_summary": sentence}
            self.send(values)
        else:
            self.send(sentence)


def failure_sentence(context: Mapping[str, Any]) -> str:
    """
    Return one sentence about a failed task: where, what its report says, why it failed, where to look.

    :param context: the context of the task, as a callback is given it
    """
    from tavus_provider.execution.executor import RED

    ti = context["ti"]

    def pushed(key: str) -> Any:
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)

    where = f"{ti.dag_id} / {ti.task_id}" + (f" [{ti.map_index}]" if ti.map_index >= 0 else "")
    parts = [f"{where} failed in run {ti.run_id}"]
    if summary := pushed("summary"):
        parts.append(str(summary))
    report = pushed("return_value")
    items = report.get("items") if isinstance(report, Mapping) else None
    red = [item for item in items or () if item["outcome"] in RED]
    if red:
        named = ", ".join(f"{item['replica_id']} ({item['outcome']})" for item in red[:MAX_NAMED])
        more = f" and {len(red) - MAX_NAMED:,} more" if len(red) > MAX_NAMED else ""
        parts.append(f"may still be there: {named}{more}")
    elif exception := context.get("exception"):
        parts.append(escape_line(str(exception), 500))
    if url := getattr(ti, "log_url", None):
        parts.append(str(url))
    return "; ".join(parts)
