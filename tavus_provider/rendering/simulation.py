"""A simulation as text for a terminal, and as a picture of that text."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tavus_provider.rendering.labels import rule_text
from tavus_provider.rendering.svg import svg_console, to_svg
from tavus_provider.rendering.tables import format_name
from tavus_provider.retention.simulation import SimulatedDelete, Simulation
from tavus_provider.sanitize import escape_line

PICTURE_ROWS: Final = 40
"""Maximum number of deletes that a picture names; the others are counted."""

_PICTURE_WIDTH: Final = 160
_BAR_WIDTH: Final = 40


def simulation_title(simulation: Simulation) -> str:
    """Return one sentence that says what was simulated."""
    return (
        f"Policy '{escape_line(simulation.policy.name, 60)}' over {simulation.listed:,} replicas, one run a "
        f"day from {simulation.date_of(0)} to {simulation.date_of(simulation.days)}"
    )


def simulation_result(simulation: Simulation) -> str:
    """Return one sentence that says how it ends."""
    result = f"{len(simulation.deletes):,} deleted, {simulation.remaining:,} remaining"
    if last := sum(one.last == simulation.days for one in simulation.overdue):
        result = f"{result}, {last:,} of them overdue"
    if not simulation.stops:
        return result
    days = sum(stop.last - stop.first + 1 for stop in simulation.stops)
    return f"{result}; a run would stop at a limit on {days:,} day{'s' * (days != 1)}"


def stop_sentences(simulation: Simulation) -> list[str]:
    """Return one sentence for each span of days on which the runs would stop."""
    return [
        f"on {simulation.date_of(stop.first)}"
        + ("" if stop.first == stop.last else f" and every day until {simulation.date_of(stop.last)}")
        + f" the run would stop: {stop.reason}"
        for stop in simulation.stops
    ]


def overdue_sentences(simulation: Simulation) -> list[str]:
    """Return one sentence for each replica that is overdue on some days."""
    return [
        f"from {simulation.date_of(one.first)} to {simulation.date_of(one.last)} replica "
        f"{escape_line(one.verdict.replica.replica_id)} is overdue: {one.verdict.reason}"
        for one in simulation.overdue
    ]


def simulation_view(simulation: Simulation, *, max_rows: int | None = None) -> RenderableType:
    """
    Return what ``simulate`` prints: a title, a bar for each period, a row for each delete, and the result.

    :param max_rows: maximum number of rows; ``None`` for all
    """
    parts: list[RenderableType] = [_text(simulation_title(simulation)), _bars(simulation)]
    shown = simulation.deletes[:max_rows]
    if shown:
        parts.append(_deletes(simulation, shown))
    if left_out := len(simulation.deletes) - len(shown):
        parts.append(_text(f"... and {left_out:,} more"))
    kept = ", ".join(f"{count:,} {code}" for code, count in simulation.last_day.items()) or "none"
    parts.append(_text(f"{simulation_result(simulation)}. On the last day: {kept}"))
    return Group(*parts)


def simulation_svg(simulation: Simulation) -> str:
    """Return a picture of the view as SVG; the days on which a run would stop come last."""
    console = svg_console(width=_PICTURE_WIDTH)
    console.print(simulation_view(simulation, max_rows=PICTURE_ROWS))
    for sentence in stop_sentences(simulation):
        console.print(_text(sentence, style="yellow"))
    return to_svg(console, title="simulate")


def _bars(simulation: Simulation) -> Table:
    periods = simulation.count_by_period()
    longest = max(1, *(count for _, count in periods))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("when", no_wrap=True)
    table.add_column("deletes", justify="right", no_wrap=True)
    table.add_column("")
    for period, count in periods:
        bar = Bar(longest, 0, count, color="red", width=_BAR_WIDTH)
        table.add_row(period, f"{count:,}" if count else "", bar)
    return table


def _deletes(simulation: Simulation, deletes: tuple[SimulatedDelete, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    has_grace = simulation.policy.has_grace
    for title in ("date", *(("announced",) if has_grace else ()), "replica"):
        table.add_column(title, no_wrap=True)
    for title in ("name", "rule", "reason"):
        table.add_column(title, overflow="fold")
    for delete in deletes:
        announced_at, replica = delete.announced_at, delete.verdict.replica
        announced = "" if announced_at is None else f"{announced_at:%Y-%m-%d}"
        cells = (
            simulation.date_of(delete.day).isoformat(),
            *((announced,) if has_grace else ()),
            replica.replica_id,
            format_name(replica.replica_name),
            rule_text(delete.verdict.rule, source=delete.verdict.source),
            delete.verdict.reason,
        )
        table.add_row(*map(_text, cells))
    return table


def _text(text: str, style: str = "") -> Text:
    # As Text: rich reads markup and emoji codes in plain strings.
    return Text(escape_line(text, 1_000), style=style)
