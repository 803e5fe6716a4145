"""
Batches: parts of a plan, for tasks that carry it out at the same time.

A batch names no replica. It is the number of a part, and the digest of the plan; only the plan says which
replicas that means. No two batches share a replica, and all batches together are the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal, TypedDict, cast

from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.planning.documents import find_mismatch
from tavus_provider.planning.plan import Plan, PlanRow

MAX_BATCHES: Final = 1_000
"""Airflow maps a task over at most 1,024 values, unless ``[core] max_map_length`` says otherwise."""
MAX_BATCH_SIZE: Final = 100_000


class BatchDocument(TypedDict):
    """A batch as JSON."""

    version: Literal[1]
    plan_digest: str
    number: int
    of: int


@dataclass(frozen=True, slots=True)
class Batch:
    """
    One of several parts of a plan, in the plan's order. Sizes differ by at most one.

    :param plan_digest: the digest of the plan
    :param number: the number of this batch, from 1 to ``of``
    :param of: the number of batches
    """

    plan_digest: str
    number: int
    of: int

    @classmethod
    def parse(cls, value: object, *, plan: Plan) -> Batch:
        """
        Read the JSON of a batch.

        :param plan: the plan that the batch must be a part of
        :raises PlanRejectedError: if it is not a batch of this plan
        """
        if mismatch := find_mismatch(value, BatchDocument, name="batch"):
            raise PlanRejectedError(
                f"invalid batch: {mismatch}. Pass one of the mappings that SplitRetentionOperator returns. "
                "Nothing was deleted"
            )
        document = cast("BatchDocument", value)
        if unknown := sorted(document.keys() - BatchDocument.__annotations__.keys()):
            raise PlanRejectedError(
                f"invalid batch: unknown key {ascii(unknown[0])[:40]}. Nothing was deleted"
            )
        batch = cls(document["plan_digest"], document["number"], document["of"])
        if batch.plan_digest != plan["digest"]:
            raise PlanRejectedError(
                "the batch belongs to another plan: pass the same plan to split and apply. Nothing was "
                "deleted"
            )
        if not 1 <= batch.number <= batch.of:
            raise PlanRejectedError(
                f"invalid batch {ascii(batch.number)[:20]} of {ascii(batch.of)[:20]}. Nothing was deleted"
            )
        return batch

    def rows(self, plan: Plan) -> Sequence[PlanRow]:
        """Return the rows of the plan that this batch covers."""
        start, end = self._bounds(plan)
        return plan["delete"][start:end]

    def to_json(self) -> BatchDocument:
        """Return the JSON that :meth:`parse` reads."""
        return {"version": 1, "plan_digest": self.plan_digest, "number": self.number, "of": self.of}

    def label(self, plan: Plan) -> str:
        """Return which rows of the plan this batch covers, such as ``501 to 1,000 of 2,000``."""
        start, end = self._bounds(plan)
        return f"{start + 1:,} to {end:,} of {len(plan['delete']):,}"

    def _bounds(self, plan: Plan) -> tuple[int, int]:
        total = len(plan["delete"])
        return total * (self.number - 1) // self.of, total * self.number // self.of


def split(plan: Plan, *, batch_size: int, max_batches: int = MAX_BATCHES) -> list[Batch]:
    """
    Split a plan into batches. A plan that deletes nothing has no batches.

    :param batch_size: the maximum number of replicas per batch; exceeded if it would make more than
        ``max_batches``
    """
    of = min(ceil(len(plan["delete"]) / batch_size), max_batches)
    return [Batch(plan["digest"], number, of) for number in range(1, of + 1)]


def check_batch_size(value: object) -> int:
    """
    Return ``value`` if it is a valid ``batch_size``.

    :raises TavusValidationError: if it is not an integer from 1 to 100,000
    """
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_BATCH_SIZE:
        return value
    raise TavusValidationError(
        f"batch_size is {ascii(value)[:40]}: expected an integer from 1 to {MAX_BATCH_SIZE}"
    )
