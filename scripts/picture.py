"""
Update docs/plan.svg and docs/simulation.svg from the account in scripts/company.json.

The first shows the table that the task `plan` logs. The second shows what `simulate` prints for
docs/retention.yaml. `make picture` also updates those of the Tavus page, which a browser takes.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from tavus_provider.retention.engine import Decision

DOCS = Path(__file__).resolve().parents[1] / "docs"
ACCOUNT = Path(__file__).with_name("company.json")
"""An account as a company could have it, in a sandbox."""
POLICY = {
    "expire": [
        {"rule": "failed-training", "status": ["error"], "older_than": "14d"},
        {"rule": "stale", "older_than": "180d", "unused_for": "90d"},
    ],
    "scope": {"exclude": ["vip_*"]},
    "keep": {"keep_within": "7d", "protected_ids": ["r6d3b8f1e5a7"]},
}
"""The policy of docs/plan.svg: that of docs/retention.yaml, without grace."""
WIDTH = 186
"""Characters per line of a picture."""


@contextlib.contextmanager
def sandbox_connection() -> Iterator[None]:
    """Run a sandbox, and connect ``tavus_default`` of an Airflow with a temporary home to it."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        from tavus_provider.sandbox import Sandbox

        with Sandbox(seed=ACCOUNT) as sandbox:
            connection = f'{{"conn_type": "tavus", "host": "{sandbox.url}", "password": "sandbox"}}'
            os.environ["AIRFLOW_CONN_TAVUS_DEFAULT"] = connection
            os.environ["AIRFLOW__TAVUS__ALLOWED_ORIGINS"] = sandbox.url
            yield


def decide() -> tuple[Decision, datetime]:
    """Return the decision on the account of the sandbox, and its time."""
    from tavus_provider.execution.inventory import read_inventory
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.retention.engine import evaluate
    from tavus_provider.retention.policy import Policy

    policy = Policy.parse(POLICY)
    with sandbox_connection(), TavusHook() as hook:
        inventory = read_inventory(hook.client, policy, now=lambda: datetime.now(UTC))
    now = inventory.read_at or datetime.now(UTC)
    return evaluate(policy, inventory, now=now), now


def plan_lines() -> list[str]:
    """Return the lines that the task `plan` logs."""
    from tavus_provider.rendering.tables import decision_lines

    decision, now = decide()
    return decision_lines(decision, now=now)


def draw_plan() -> str:
    """Return the table of the task `plan` as SVG."""
    from tavus_provider.rendering.svg import svg_console, to_svg
    from tavus_provider.rendering.tables import decision_sentence, decision_table

    decision, now = decide()
    console = svg_console(width=WIDTH)
    console.print(decision_table(decision, now=now))
    console.print(Text(decision_sentence(decision)))
    return to_svg(console, title="plan")


def draw_simulation() -> str:
    """Return what `simulate` prints for docs/retention.yaml and the next year as SVG."""
    from tavus_provider.cli.main import main

    with sandbox_connection(), tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.svg")
        arguments = [str(DOCS / "retention.yaml"), "--days", "365", "--picture", str(picture)]
        with contextlib.redirect_stdout(io.StringIO()):
            main(["simulate", *arguments])
        return picture.read_text(encoding="utf-8")


if __name__ == "__main__":
    for name, draw in (("plan.svg", draw_plan), ("simulation.svg", draw_simulation)):
        (DOCS / name).write_text(draw(), encoding="utf-8")
        sys.stdout.write(f"docs/{name}\n")
