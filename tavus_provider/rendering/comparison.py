"""The difference between two policies as a table and a sentence, for the command ``diff``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from tavus_provider.rendering.labels import label
from tavus_provider.rendering.tables import Column, format_name, make_table
from tavus_provider.retention.comparison import Change
from tavus_provider.retention.verdict import Verdict

_COLUMNS: Final[tuple[Column[Change], ...]] = (
    Column("new verdict", lambda change: _status(change.new)),
    Column("replica", lambda change: change.replica.replica_id),
    Column("name", lambda change: format_name(change.replica.replica_name), fold=True),
    Column("new reason", lambda change: _reason(change.new), fold=True),
    Column("old verdict", lambda change: _status(change.old)),
    Column("old reason", lambda change: _reason(change.old), fold=True),
)


def comparison_table(changes: Sequence[Change]) -> Table:
    """Return a table with both verdicts on every replica whose verdict changes."""
    return make_table(
        _COLUMNS,
        changes,
        style=lambda change: "" if change.new is None else label(change.new.status).style,
    )


def comparison_sentence(changes: Sequence[Change]) -> Text:
    """Return one sentence with the counts."""
    if not changes:
        return Text("No verdict changes")
    due = sum(change.is_newly_due for change in changes)
    return Text(
        f"{len(changes):,} verdicts change, {due:,} of them to a delete that the old policy does not have"
    )


def _status(verdict: Verdict | None) -> str:
    return "not planned" if verdict is None else label(verdict.status).text


def _reason(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not listed"
    return verdict.reason if verdict.rule is None else f"rule '{verdict.rule}': {verdict.reason}"
