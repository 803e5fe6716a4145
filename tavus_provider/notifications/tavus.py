"""
Report a failed task in one sentence: what was deleted, which replicas may still exist, where the log is.

Use it to send failures to a chat or a pager: a failed task emits no asset event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import BaseNotifier

from tavus_provider.outcomes import UNFINISHED
from tavus_provider.rendering.labels import label
from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    from airflow.sdk import Context

MAX_NAMED: Final = 5
"""Maximum number of replica ids in a sentence; the others are counted."""


class TavusNotifier(BaseNotifier):
    """
    Send one sentence about a failed task.

    Use it as ``on_failure_callback`` of a plan, apply or delete task, or in the ``default_args`` of a DAG::

        on_failure_callback=TavusNotifier(send=print)
        on_failure_callback=TavusNotifier(send=SlackNotifier(text="{{ tavus_summary }}"))

    The sentence has replica ids and reasons, but no names and no API key. Airflow logs an error that
    ``send`` raises; it does not change the state of the task.

    :param send: a callable that receives the sentence, or another notifier, whose templates can use it as
        ``{{ tavus_summary }}``
    """

    def __init__(self, *, send: Callable[[str], object] | BaseNotifier, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.send = send

    def notify(self, context: Context) -> None:
        """Send the sentence about the task of this context."""
        sentence = failure_sentence(context)
        if isinstance(self.send, BaseNotifier):
            values: Any = {**context, "tavus_summary": sentence}
            self.send(values)
        else:
            self.send(sentence)


def failure_sentence(context: Mapping[str, Any]) -> str:
    """
    Return one sentence about a failed task: its name, the counts of its report, the cause, and its log.

    :param context: the context of the task, as Airflow hands it to a callback
    """
    ti = context["ti"]

    def pull(key: str) -> Any:
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)

    task = f"{ti.dag_id} / {ti.task_id}" + (f" [{ti.map_index}]" if ti.map_index >= 0 else "")
    parts = [f"{task} failed in run {ti.run_id}"]
    if summary := pull("summary"):
        parts.append(str(summary))
    report = pull("return_value")
    items = report.get("items") if isinstance(report, Mapping) else None
    unfinished = [item for item in items or () if item["outcome"] in UNFINISHED]
    if unfinished:
        named = ", ".join(
            f"{item['replica_id']} ({label(item['outcome']).text})" for item in unfinished[:MAX_NAMED]
        )
        more = f" and {len(unfinished) - MAX_NAMED:,} more" if len(unfinished) > MAX_NAMED else ""
        parts.append(f"may still exist: {named}{more}")
    elif exception := context.get("exception"):
        parts.append(escape_line(str(exception), 500))
    if url := getattr(ti, "log_url", None):
        parts.append(str(url))
    return "; ".join(parts)
