"""What the ledger recorded about deletes, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from tavus_provider.rendering.labels import label
from tavus_provider.sanitize import escape_line

_MAX_CELL = 300


def deletes_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """
    Return one line for each replica and attempt.

    :param rows: as :func:`tavus_provider.storage.recorded_deletes.list_deletes` returns them
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("at (UTC)", "outcome", "replica", "rule", "policy", "approved by", "triggered by"):
        table.add_column(title, overflow="fold")
    table.add_column("run", overflow="fold")
    table.add_column("account", overflow="fold")
    for row in rows:
        permanently = ", permanently" if row["hard"] else ""
        host = str(row["origin"] or "").partition("://")[2]
        cells = (
            str(row["at"])[:19].replace("T", " "),
            f"{label(row['outcome']).text}{permanently}",
            row["replica_id"],
            row["rule"],
            row["request"] or row["policy"],
            row["approved_by"],
            row["triggered_by"],
            f"{row['dag_id'] or ''} / {row['run_id'] or ''}",
            f"{row['tavus_conn_id'] or ''} at {host}",
        )
        table.add_row(*(Text(escape_line(cell or "-", _MAX_CELL)) for cell in cells))
    return table
