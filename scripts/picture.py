"""
Draw docs/plan.svg, the table that `plan` logs for the sandbox's account, as a terminal shows it, and
docs/simulation.svg, what `simulate` draws of it under docs/retention.yaml.
"""

from __future__ import annotations

import html
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.policy import Policy

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLUMNS, ROW, CHAR = 176, 17, 7.25
COLOURS = {"DELETE": "#ff7b72", "keep, undetermined": "#d29922", "keep": "#7ee787"}


def account(policy: Policy) -> Inventory:
    """Return all that a policy needs of the sandbox's account."""
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp()
    from tavus_provider.sandbox import Sandbox

    with Sandbox() as sandbox:
        os.environ["AIRFLOW_CONN_TAVUS_DEFAULT"] = (
            f'{{"conn_type": "tavus", "host": "{sandbox.url}", "password": "sandbox"}}'
        )
        os.environ["AIRFLOW__TAVUS__ALLOWED_ORIGINS"] = sandbox.url
        from tavus_provider.execution.inventory import read_inventory
        from tavus_provider.hooks.tavus import TavusHook

        with TavusHook() as hook:
            return read_inventory(hook, policy, now=lambda: datetime.now(UTC))


def lines() -> list[str]:
    """Return the table, made by the code that makes it in a task."""
    from tavus_provider.rendering.tables import decision_lines, decision_sentence
    from tavus_provider.retention.engine import evaluate
    from tavus_provider.retention.policy import Policy

    policy = Policy.parse({"expire": [{"rule": "stale", "older_than": "90d"}]})
    read = account(policy)
    decision = evaluate(policy, read, now=read.read_at)
    table = decision_lines(decision, now=read.read_at)
    rule = "─" * (COLUMNS - 2)
    return [*(rule if set(line) == {"─"} else line for line in table), "", decision_sentence(decision)]


def year() -> str:
    """Return the picture of a simulated year."""
    import yaml

    from tavus_provider.rendering.chart import picture
    from tavus_provider.retention.policy import Policy
    from tavus_provider.retention.simulation import simulate

    policy = Policy.parse(yaml.safe_load((DOCS / "retention.yaml").read_text(encoding="utf-8")))
    read = account(policy)
    return picture(simulate(policy, read, now=read.read_at, days=365))


def drawing(text: list[str]) -> str:
    """Return the lines as an SVG that needs nothing from anywhere else."""
    rows = []
    for number, line in enumerate(text):
        verdict = next((word for word in COLOURS if line.startswith(word)), None)
        shown = html.escape(line[: COLUMNS - 1], quote=False)
        if verdict:
            shown = f'<tspan fill="{COLOURS[verdict]}">{verdict}</tspan>{shown[len(verdict) :]}'
        rows.append(f'<text x="16" y="{28 + number * ROW}" xml:space="preserve">{shown}</text>')
    width, height = round(COLUMNS * CHAR + 32), len(text) * ROW + 34
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-label="The plan of the sandbox account">',
            f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
            '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" '
            'font-size="12" fill="#c9d1d9">',
            *rows,
            "</g>",
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    for name, text in (("plan.svg", drawing(lines())), ("simulation.svg", year())):
        (DOCS / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"docs/{name}\n")
