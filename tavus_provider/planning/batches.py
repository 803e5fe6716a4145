"""
A plan in batches, for several tasks side by side, and the one report that comes of theirs.

A batch names no replica. It is a number, out of so many, of the plan with a certain digest: which ids
that means is told by the sealed plan alone, no two batches share one, and all together are the plan.
Knows neither Airflow nor HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.execution.executor import Report, report_of
from tavus_provider.planning.plan import Plan

MAX_BATCHES = 1_000
"""Airflow maps a task over 1,024 at most, unless ``[core] max_map_length`` says otherwise."""


@dataclass(frozen=True, slots=True)
class Batch:
    """
    One of several parts of a plan, as equal as can be, in the plan's order.

    :param number: from 1 to ``of``
    """

    plan_digest: str
    number: int
    of: int

    @classmethod
    def read(cls, value: object, plan: Plan) -> Batch:
        """
        Return what a task was handed as a batch of this plan.

        :raises PlanRejectedError: if it is not one of this plan's
        """
        fields = ("plan_digest", "number", "of")
        if not isinstance(value, Mapping) or set(value) != set(fields):
            raise PlanRejectedError(
                f"batch is not what a split task makes, with {', '.join(fields)}. Nothing was deleted"
            )
        batch = cls(*(value[name] for name in fields))
        if batch.plan_digest != plan["digest"]:
            raise PlanRejectedError(
                "the batch is one of another plan. Nothing was deleted; give split and apply the same plan"
            )
        numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (batch.number, batch.of))
        if not numbers or not 1 <= batch.number <= batch.of:
            raise PlanRejectedError(
                f"batch {ascii(batch.number)[:20]} of {ascii(batch.of)[:20]} is none. Nothing was deleted"
            )
        return batch

    def rows(self, plan: Plan) -> list[Mapping[str, Any]]:
        """Return the rows of the plan that are this batch's."""
        total = len(plan["delete"])
        rows: list[Mapping[str, Any]] = plan["delete"][self._begin(total) : self._begin(total, self.number)]
        return rows

    def as_json(self) -> dict[str, Any]:
        """Return what :meth:`read` reads."""
        return {"plan_digest": self.plan_digest, "number": self.number, "of": self.of}

    def label(self, plan: Plan) -> str:
        """Return which rows of the plan these are, as in ``501 to 1,000 of 2,000``."""
        total = len(plan["delete"])
        return f"{self._begin(total) + 1:,} to {self._begin(total, self.number):,} of {total:,}"

    def _begin(self, total: int, before: int | None = None) -> int:
        return total * (self.number - 1 if before is None else before) // self.of


def split(plan: Plan, *, batch_size: int, max_batches: int = MAX_BATCHES) -> list[Batch]:
    """
    Return the batches of a plan; none if nothing is to be deleted.

    :param batch_size: the most replicas in a batch, unless that would make more than ``max_batches``
    """
    total = len(plan["delete"])
    of = min(ceil(total / batch_size), max_batches)
    return [Batch(plan["digest"], number, of) for number in range(1, of + 1)]


def check_batch_size(value: object) -> int:
    """
    Check a ``batch_size``, wherever it was given.

    :raises TavusValidationError: if it is not a whole number from 1 to 100,000
    """
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000:
        return value
    raise TavusValidationError(f"batch_size is {ascii(value)[:40]}: expected a whole number from 1 to 100000")


def summarize(
    plan: Plan,
    reports: Iterable[object],
    *,
    recorded: Mapping[str, str | None],
    ledger: str | None,
) -> Report:
    """
    Return the report of the whole plan, of those of its batches.

    What no report tells of, because its task was killed or never began, is told by the ledger.

    :param recorded: the last outcome of each id in the ledger, ``None`` where only the intent was recorded
    :param ledger: the folder of this plan in the ledger
    :raises PlanRejectedError: if a report is of another plan, or two tell of the same replica
    """
    items: dict[str, tuple[str, str]] = {}
    planned = {row["replica_id"] for row in plan["delete"]}
    dry = []
    for report in reports:
        if not isinstance(report, Mapping) or report.get("plan_digest") != plan["digest"]:
            raise PlanRejectedError("a report is not one of this plan: give the output of its apply tasks")
        dry.append(report["dry_run"])
        for item in report["items"]:
            if item["replica_id"] in items or item["replica_id"] not in planned:
                raise PlanRejectedError(
                    f"replica {item['replica_id']} stands in two reports, or in one and not in the plan: "
                    "the reports are not those of the batches of this plan"
                )
            items[item["replica_id"]] = item["outcome"], item["detail"]
    dry_run = bool(dry) and all(dry)
    for replica_id in planned - items.keys():
        if dry_run:
            items[replica_id] = "skipped", "dry run"
        elif replica_id not in recorded:
            items[replica_id] = "not_attempted", "neither a report nor the ledger tells of it"
        else:
            outcome = recorded[replica_id]
            items[replica_id] = (
                outcome or "unknown",
                (
                    "in no report; the ledger says so"
                    if outcome
                    else "in no report; the ledger has its intent only"
                ),
            )
    return report_of(plan, plan["delete"], items, dry_run=dry_run, ledger=ledger)
