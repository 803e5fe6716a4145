"""
Report in one sentence a failed task, or an approval that a person is asked for.

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
    Send one sentence about a failed task, or about a task that waits for an approval.

    Use it as ``on_failure_callback`` of a plan, apply or delete task, or in the ``default_args`` of a DAG;
    and in ``notifiers`` of an approve task, which calls it when the task begins to wait::

        on_failure_callback=TavusNotifier(send=print)
        on_failure_callback=TavusNotifier(send=SlackNotifier(text="{{ tavus_summary }}"))
        ApproveRetentionOperator(..., notifiers=TavusNotifier(send=print))

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
        sentence = waiting_sentence(context) or failure_sentence(context)
        if isinstance(self.send, BaseNotifier):
            values: Any = {**context, "tavus_summary": sentence}
            self.send(values)
        else:
            self.send(sentence)


def waiting_sentence(context: Mapping[str, Any]) -> str | None:
    """
    Return one sentence about a task that begins to wait for a person, or ``None`` if it is not such a task.

    :param context: the context of the task, as an approve task hands it to its notifiers
    """
    ti, task = context["ti"], context.get("task")
    is_running = context.get("exception") is None and getattr(ti, "state", None) == "running"
    if not is_running or not isinstance(subject := getattr(task, "subject", None), str):
        return None
    url = getattr(ti, "log_url", None)
    parts = [f"{_task_name(ti)} waits for an answer in run {ti.run_id}", escape_line(subject, 500)]
    return "; ".join([*parts, str(url)] if url else parts)


def failure_sentence(context: Mapping[str, Any]) -> str:
    """
    Return one sentence about a failed task: its name, the counts of its report, the cause, and its log.

    :param context: the context of the task, as Airflow hands it to a callback
    """
    ti = context["ti"]

    def pull(key: str) -> Any:
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)

    parts = [f"{_task_name(ti)} failed in run {ti.run_id}"]
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


def _task_name(ti: Any) -> str:
    return f"{ti.dag_id} / {ti.task_id}" + (f" [{ti.map_index}]" if ti.map_index >= 0 else "")
