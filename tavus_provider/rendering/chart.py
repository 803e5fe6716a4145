"""A simulation as an SVG picture: a bar chart of the deletes over time, without external fonts or files."""

from __future__ import annotations

import html

from tavus_provider.retention.simulation import Simulation
from tavus_provider.sanitize import escape_line

WIDTH, HEIGHT = 960, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 84, 44


def picture(simulation: Simulation) -> str:
    """Return the SVG: one bar for each period; days on which a run would exceed a limit are shaded."""
    periods = simulation.periods()
    high = max(1, *(count for _, count in periods))
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    step = across / len(periods)
    every = -(-len(periods) // 12)
    parts = []
    for stop in simulation.stops:
        first, last = (across * day / (simulation.days + 1) for day in (stop.first, stop.last + 1))
        parts.append(
            f'<rect x="{_LEFT + first:.1f}" y="{_TOP}" width="{last - first:.1f}" height="{up}" '
            f'fill="#d29922" fill-opacity="0.25"><title>{_escape(stop.reason)}</title></rect>'
        )
    for number, (period, count) in enumerate(periods):
        x, tall = _LEFT + number * step, up * count / high
        if count:
            parts += [
                f'<rect x="{x + 0.1 * step:.1f}" y="{_TOP + up - tall:.1f}" width="{0.8 * step:.1f}" '
                f'height="{tall:.1f}" rx="2" fill="#ff7b72"><title>{period}: {count:,}</title></rect>',
                f'<text x="{x + step / 2:.1f}" y="{_TOP + up - tall - 5:.1f}" text-anchor="middle">'
                f"{count:,}</text>",
            ]
        if number % every == 0:
            label = period.removeprefix("week of ")
            parts.append(
                f'<text x="{x + step / 2:.1f}" y="{HEIGHT - 20}" text-anchor="middle" fill="#8b949e">'
                f"{label}</text>"
            )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_escape(headline(simulation))}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#0d1117"/>',
            '<g font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif" font-size="12" '
            'fill="#c9d1d9">',
            f'<text x="{_LEFT}" y="26" font-size="15">{_escape(headline(simulation))}</text>',
            f'<text x="{_LEFT}" y="46" fill="#8b949e">{_escape(outcome(simulation))}</text>',
            f'<path d="M{_LEFT} {_TOP + up}H{WIDTH - _RIGHT}" stroke="#30363d"/>',
            *parts,
            "</g>",
            "</svg>",
            "",
        ]
    )


def headline(simulation: Simulation) -> str:
    """Return one sentence that says what was simulated."""
    return (
        f"Policy '{escape_line(simulation.policy.name, 60)}' over {simulation.listed:,} replicas, one run a "
        f"day from {simulation.at(0)} to {simulation.at(simulation.days)}"
    )


def outcome(simulation: Simulation) -> str:
    """Return one sentence with the result of the simulation."""
    left = simulation.listed - sum(departure.verdict.listed for departure in simulation.gone)
    went = f"{len(simulation.gone):,} go, {left:,} are left"
    if not simulation.stops:
        return went
    days = sum(stop.last - stop.first + 1 for stop in simulation.stops)
    return f"{went}; a run would stop at a limit on {days:,} day{'s' * (days != 1)}"


def _escape(text: str) -> str:
    return html.escape(escape_line(text, 400))
