"""
The account as it is when a plan is carried out: which rows are still valid, before the deletes and while they
are sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from tavus_provider.exceptions import PlanRejectedError
from tavus_provider.execution.freshness import Freshness
from tavus_provider.execution.inventory import Inventory, InventoryClient, read_inventory, reread_use
from tavus_provider.execution.revalidation import (
    Revalidation,
    find_exceeded_limit,
    find_wrong_account,
    revalidate,
)
from tavus_provider.execution.verification import ListingClient, judge_unlisted, look_up
from tavus_provider.outcomes import UNFINISHED
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.plan import Plan, PlanRow
from tavus_provider.planning.report import Result
from tavus_provider.retention.context import History
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.known_use import KnownUse
from tavus_provider.retention.policy import Policy


class AccountClient(InventoryClient, ListingClient, Protocol):
    """The client methods that read the account and show whether replicas exist."""


class CurrentAccount:
    """
    Read the account again, and find the rows of a plan that may still be deleted.

    The parameters are those of :class:`.PlanExecutor`.

    :param rows: the rows to carry out: the whole plan, or a batch of it
    """

    def __init__(
        self,
        plan: Plan,
        client: AccountClient,
        *,
        rows: Sequence[PlanRow],
        concurrency: int,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        history: Callable[[datetime], History],
        held: Callable[[datetime], frozenset[str]],
        known_use: KnownUse | None,
        prior: PriorAttempts,
        reread_prior: Callable[[], PriorAttempts] | None,
        deleted_before: Callable[[], frozenset[str]],
    ) -> None:
        self._plan = plan
        self._client = client
        self._rows = rows
        self._concurrency = concurrency
        self._now = now
        self._clock = clock
        self._history = history
        self._held = held
        self._known_use = known_use
        self._prior = prior
        self._reread_prior = reread_prior
        self._deleted_before = deleted_before
        self.settled: dict[str, Result] = {}
        """The results that are known without a delete."""
        self.unlisted: frozenset[str] = frozenset()
        """The rows to delete although they are not listed."""
        self.soft_deleted: frozenset[str] = frozenset()
        """The ids that this package soft-deleted."""
        self.listed: frozenset[str] | None = None
        """The ids that were listed before the deletes; ``None`` before they were read."""
        self.held: frozenset[str] = frozenset()
        """The ids under legal hold, as read last."""
        self.freshness: Freshness | None = None
        """Reads holds and use again while deletes are sent; ``None`` before the account was read."""
        self.may_change = False
        """Whether another attempt may settle what this one could not."""

    def read(self) -> Sequence[PlanRow]:
        """
        Read everything again, and return the rows to delete. ``settled`` has the results of the others.

        :raises PlanRejectedError: if a limit is exceeded by now, or it seems to be another account
        :raises TavusError: if the account cannot be read completely
        """
        policy, started = Policy.parse(self._plan["policy"]).as_planned, self._clock()
        is_batch = len(self._rows) < len(self._plan["delete"])
        inventory = read_inventory(
            self._client,
            policy,
            now=self._now,
            history=self._history,
            held=self._held,
            while_deleting=is_batch,
            known_use=self._known_use,
        )
        # Replicas of other batches may be deleted at any moment, so they must not take a place of keep_last.
        # Without them a replica is rather kept.
        own = {row["replica_id"] for row in self._rows}
        others = {row["replica_id"] for row in self._plan["delete"]} - own
        remaining = [replica for replica in inventory.replicas if replica.replica_id not in others]
        considered = dataclasses.replace(inventory, replicas=remaining)
        decision = evaluate(policy, considered, now=inventory.read_at, hard=self._plan["hard"])
        self.freshness = Freshness(
            lambda: self._find_objections(policy, considered),
            valid_until=datetime.fromisoformat(self._plan["valid_until"]),
            now=self._now,
            read_at=started,
            clock=self._clock,
        )
        self.held = inventory.held
        self.listed = frozenset(replica.replica_id for replica in inventory.replicas)
        shown = {replica_id for row in decision.unreadable for replica_id in row.own_ids}
        self._refuse_wrong_account(self.listed | shown)
        self.soft_deleted = frozenset(inventory.history.soft_deleted)
        revalidation = self._revalidate(decision)
        self.settled.update(revalidation.settled)
        self.unlisted = revalidation.unlisted
        exceeded = find_exceeded_limit(
            self._plan, self._rows, decision, revalidation.to_delete, prior=self._prior
        )
        if exceeded is not None:
            raise PlanRejectedError(exceeded)
        self._look_up_absent(revalidation)
        return revalidation.to_delete

    def _revalidate(self, decision: Decision) -> Revalidation:
        return revalidate(
            self._plan,
            self._rows,
            decision,
            prior=self._prior,
            soft_deleted=self.soft_deleted,
            held=self.held,
        )

    def _find_objections(self, policy: Policy, inventory: Inventory) -> dict[str, str]:
        """Read holds and use again, and return why each row that became invalid must not be deleted."""
        inventory = reread_use(self._client, policy, inventory, now=self._now, held=self._held)
        self.held = inventory.held
        decision = evaluate(policy, inventory, now=inventory.read_at, hard=self._plan["hard"])
        settled = self._revalidate(decision).settled
        return {replica_id: result.detail for replica_id, result in settled.items()}

    def _look_up_absent(self, revalidation: Revalidation) -> None:
        """Read the replicas that are not listed: a list may miss some that exist."""
        rows = {row["replica_id"]: row for row in self._rows if row["replica_id"] in revalidation.absent}
        found = look_up(self._client, rows, concurrency=self._concurrency)
        for replica_id, one in found.items():
            absent = revalidation.settled[replica_id]
            result = judge_unlisted(rows[replica_id], absent, one, hard=self._plan["hard"])
            self.settled[replica_id] = result
            if result.outcome in UNFINISHED:
                self.may_change = True

    def _refuse_wrong_account(self, listed: frozenset[str]) -> None:
        if self._prior.begun or find_wrong_account(self._plan, self._rows, known=listed) is None:
            return
        recorded = (self._prior if self._reread_prior is None else self._reread_prior()).recorded
        recorded |= self._deleted_before()
        if reason := find_wrong_account(self._plan, self._rows, known=listed | recorded):
            raise PlanRejectedError(reason)
