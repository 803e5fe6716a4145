"""
A forecast as a picture: how many replicas go when, as an SVG that needs nothing from anywhere else.

Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

import html

from tavus_provider.retention.simulation import Simulation
from tavus_provider.sanitize import escape_line

WIDTH, HEIGHT = 960, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 84, 44


def picture(forecast: Simulation) -> str:
    """Return the SVG: a bar for each period, and a shade over the days on which a run would stop."""
    periods = forecast.periods()
    high = max(1, *(count for _, count in periods))
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    step = across / len(periods)
    every = -(-len(periods) // 12)
    parts = []
    for stop in forecast.stops:
        first, last = (across * day / (forecast.days + 1) for day in (stop.first, stop.last + 1))
        parts.append(
            f'<rect x="{_LEFT + first:.1f}" y="{_TOP}" width="{last - first:.1f}" height="{up}" '
            f'fill="#d29922" fill-opacity="0.25"><title>{_text(stop.reason)}</title></rect>'
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
            f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_text(headline(forecast))}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#0d1117"/>',
            '<g font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif" font-size="12" '
            'fill="#c9d1d9">',
            f'<text x="{_LEFT}" y="26" font-size="15">{_text(headline(forecast))}</text>',
            f'<text x="{_LEFT}" y="46" fill="#8b949e">{_text(outcome(forecast))}</text>',
            f'<path d="M{_LEFT} {_TOP + up}H{WIDTH - _RIGHT}" stroke="#30363d"/>',
            *parts,
            "</g>",
            "</svg>",
            "",
        ]
    )


def headline(forecast: Simulation) -> str:
    """Return what was simulated, in one sentence."""
    return (
        f"Policy '{escape_line(forecast.policy.name, 60)}' over {forecast.listed:,} replicas, one run a day "
        f"from {forecast.at(0)} to {forecast.at(forecast.days)}"
    )


def outcome(forecast: Simulation) -> str:
    """Return how it ends, in one sentence."""
    left = forecast.listed - sum(departure.verdict.listed for departure in forecast.gone)
    went = f"{len(forecast.gone):,} go, {left:,} are left"
    if not forecast.stops:
        return went
    days = sum(stop.last - stop.first + 1 for stop in forecast.stops)
    return f"{went}; a run would stop at a limit on {days:,} day{'s' * (days != 1)}"


def _text(text: str) -> str:
    return html.escape(escape_line(text, 400))
