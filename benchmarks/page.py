"""The Tavus page in a browser, on the stand-in for Airflow's API of the tests: first picture and table."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import ARGS, CHROMIUM  # the tests are not a package
from fake_airflow import NOW, POLICY, FakeAirflow, Run, many_verdicts

MARK = "performance.getEntriesByName('tavus-first-picture')[0].startTime"
USE_TABLE = """() => {
  const times = [];
  const timed = (work) => {
    const start = performance.now();
    work();
    document.body.offsetHeight;  // the layout is part of the work
    times.push(performance.now() - start);
  };
  const search = document.getElementById('search');
  for (const text of ['speaker-4', 'webinar', 'x', '']) {
    search.value = text;
    timed(() => search.dispatchEvent(new Event('input', { bubbles: true })));
  }
  for (const key of ['name', 'age', 'reason', 'decider', 'order', 'name']) {
    timed(() => document.querySelector(`#replicas th [data-key=${key}]`).click());
  }
  return times;
}"""


def run(name: str, *, hours: float, tasks: int = 1) -> Run:
    """Return a run with this number of tasks that delete."""
    made = Run("tavus_prune_replicas_batched", name, NOW - timedelta(hours=hours))
    made.planned(policy=POLICY | {"limits": {"max_deletions": 20, "max_deletion_percent": 50}})
    for number in range(tasks):
        made.add("apply", map_index=number if tasks > 1 else -1, minutes=5)
    made.add("summary", minutes=9)
    made.push("summary", made.report())
    return made


def with_rows(count: int) -> Run:
    """Return a run whose plan task has pushed this number of verdicts."""
    made = run("rows", hours=1)
    made.push("plan", many_verdicts(count), "verdicts")
    return made


def open_page(browser: Any, fake: FakeAirflow) -> Any:
    """Open the page in a new window, and return it after its first picture."""
    page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    page.goto(f"{fake.url}/tavus/")
    page.locator("#content:not([aria-busy])").wait_for()
    return page


def measure(repeats: int) -> Iterator[tuple[str, float, float]]:
    """Yield ``(what, milliseconds, milliseconds of the small case)``."""
    from playwright.sync_api import sync_playwright

    few = [run("r0", hours=1)]
    lots = [run(f"r{number}", hours=1 + number, tasks=115 if number < 20 else 1) for number in range(500)]
    with FakeAirflow().serve() as fake, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        first: dict[str, list[float]] = {"few": [], "lots": []}
        used: dict[int, list[float]] = {100: [], 5_000: []}
        for _ in range(repeats):
            for name, runs in (("few", few), ("lots", lots)):
                fake.runs = runs
                page = open_page(browser, fake)
                first[name].append(page.evaluate(MARK))
                page.context.close()
            for count, times in used.items():
                fake.runs = [with_rows(count)]
                page = open_page(browser, fake)
                times.extend(page.evaluate(USE_TABLE))
                page.context.close()
        browser.close()
    yield "first picture", statistics.median(first["lots"]), statistics.median(first["few"])
    yield "filter and sort", statistics.median(used[5_000]), statistics.median(used[100])
