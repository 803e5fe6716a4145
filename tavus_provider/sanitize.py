"""Make text from outside safe to print: escaped, on one line, shortened."""

from __future__ import annotations


def escape_line(text: str, limit: int = 256) -> str:
    """Return text from the server on one line, control and bidirectional characters escaped."""
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    # Airflow's log view folds lines at ::group::, wherever in a line it stands.
    return shown.replace("::", ": :")
