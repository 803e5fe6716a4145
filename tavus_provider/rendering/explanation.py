"""Why a replica is deleted or kept, as a table of the checks for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tavus_provider.models import Replica
from tavus_provider.rendering.labels import label
from tavus_provider.rendering.tables import format_name
from tavus_provider.retention.checks import CheckResult
from tavus_provider.retention.verdict import Status
from tavus_provider.sanitize import escape_line

MAX_REASON = 1_000


def explanation_view(replica: Replica, results: Sequence[CheckResult]) -> RenderableType:
    """
    Return a table with what every check saw, and the verdict in one sentence.

    :param results: the result of :func:`.explain`; at least one decides
    """
    deciding = next(number for number, result in enumerate(results) if result.decides)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "status", "check", "what it saw"):
        table.add_column(title, overflow="fold")
    for number, result in enumerate(results):
        style = "bold" if number == deciding else "dim" if number > deciding else ""
        status = "-" if result.reason is None else result.status
        cells = (">" if number == deciding else "", status, result.reason_code, result.seen)
        table.add_row(*map(_text, cells), style=style)
    verdict = results[deciding]
    parts: list[RenderableType] = [
        _text(f"{replica.replica_id} {format_name(replica.replica_name)}"),
        table,
        _text(f"{label(verdict.status).text}: {verdict.reason}"),
    ]
    later = next((result for result in results[deciding + 1 :] if result.reason is not None), None)
    if later is not None and verdict.status in (Status.HELD, Status.KEPT):
        parts.append(_text(f"otherwise {later.reason_code}: {later.reason}"))
    return Group(*parts)


def _text(text: str) -> Text:
    # As Text: rich reads markup and emoji codes in plain strings.
    return Text(escape_line(text, MAX_REASON))
