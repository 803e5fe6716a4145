"""
How statuses and outcomes are shown: in the log, by the commands, and on the Tavus page.

To add a status or an outcome, add its row here and write ``plugins/www/labels.json`` again::

    python -m tavus_provider.rendering.labels > tavus_provider/plugins/www/labels.json

The page has two more places. A new tone needs its rules ``[data-tone="<tone>"]`` in ``style.css``, for light
and dark, and its icon in ``TONE_ICONS`` in ``dom.js``. Some groups are repeated in the scripts, see
:class:`Label`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tavus_provider.outcomes import GONE, UNFINISHED, Outcome


@dataclass(frozen=True, slots=True)
class Label:
    """
    How one status or outcome is shown.

    :param text: the words for it in every table, legend and filter
    :param group: the heading under which it is counted: a tile of the page for a status, a column of the
        page's table of runs for an outcome. Labels with the same group are added up. It is also a key:
        ``run_state.js``, ``plan.js`` and ``replicas.js`` compare it with texts such as ``kept``, so change
        these too if you change it.
    :param tone: its colour and its icon on the page, see above
    :param style: its style in a terminal, for rich
    :param badge: the word for it in a badge of the page; default: the text
    """

    text: str
    group: str
    tone: str
    style: str = ""
    badge: str = ""


STATUSES: Final[Mapping[str, Label]] = {
    "expired": Label("DELETE", "to delete", "danger", "bold red", "Delete"),
    "scheduled": Label("scheduled", "scheduled", "warning", "magenta", "Scheduled"),
    "held": Label("keep, held", "held", "hold", badge="Held"),
    "undetermined": Label("keep, undetermined", "undetermined", "unclear", "yellow", "Undetermined"),
    "kept": Label("keep", "kept", "info", badge="Kept"),
    "not_expired": Label("keep, not expired", "kept", "good", badge="Not expired"),
    "out_of_scope": Label("keep, out of scope", "kept", "muted", badge="Out of scope"),
}
"""Labels of the statuses of a verdict, in the order in which the page sorts them."""

OUTCOMES: Final[Mapping[Outcome, Label]] = {
    Outcome.DELETED: Label("deleted", "deleted", "good"),
    Outcome.CONFIRMED: Label("confirmed", "deleted", "good-soft"),
    Outcome.ALREADY_GONE: Label("already gone", "already gone", "info"),
    Outcome.SKIPPED: Label("skipped", "skipped", "muted"),
    Outcome.FAILED: Label("failed", "failed", "warning", "bold red"),
    Outcome.UNKNOWN: Label("unknown", "unknown", "danger", "bold red"),
    Outcome.NOT_ATTEMPTED: Label("not attempted", "not attempted", "hold", "bold red"),
}
"""Labels of the outcomes of a report, in the order of the columns of the page."""

_BY_NAME: Final[Mapping[str, Label]] = {**STATUSES, **{str(name): row for name, row in OUTCOMES.items()}}


def label(name: str) -> Label:
    """
    Return how a status or an outcome is shown.

    A name that is not in a table is shown as it is: a missing label must not hide a report.

    :param name: a status or an outcome
    """
    return _BY_NAME.get(name) or Label(name.replace("_", " "), "other", "unclear")


def rule_text(rule: str | None, *, source: str) -> str:
    """
    Return the rule by which a replica is deleted; in brackets, if it is another part of the policy.

    :param source: a value of :class:`.Source`
    """
    return _NO_RULE.get(source) or str(rule)


_NO_RULE: Final[Mapping[str, str]] = {"soft_deleted": "(hard_delete_after)", "quota": "(quota)"}


def labels_json() -> str:
    """Return the tables as the JSON document that the Tavus page reads, ``plugins/www/labels.json``."""
    tables: dict[str, Mapping[Any, Label]] = {"statuses": STATUSES, "outcomes": OUTCOMES}
    document: dict[str, list[dict[str, Any]]] = {
        kind: [
            {
                "name": str(name),
                "text": row.text,
                "badge": row.badge or row.text.capitalize(),
                "group": row.group,
                "tone": row.tone,
            }
            for name, row in table.items()
        ]
        for kind, table in tables.items()
    }
    for row in document["outcomes"]:
        row |= {"gone": row["name"] in GONE, "unfinished": row["name"] in UNFINISHED}
    return json.dumps({"version": 1, **document}, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(labels_json())
