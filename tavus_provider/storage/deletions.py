"""
Which replicas the attempts of a ledger deleted.

The result for some attempts can be stored in a checkpoint and continued with later attempts. The order
matters only among the attempts of one job.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tavus_provider.outcomes import GONE, Outcome
from tavus_provider.storage.attempts import Attempt
from tavus_provider.storage.records import DeletionsJson

_KINDS = ("plan-", "delete-")
"""Beginnings of the names of jobs whose attempts delete replicas."""


@dataclass(frozen=True, slots=True)
class Deletions:
    """
    Which replicas were deleted.

    A replica counts as deleted if its outcome says so. It also counts if an attempt was killed after it had
    recorded the intent, and a later attempt of the same job found the replica gone.

    :param soft: the start of the first attempt that soft-deleted each id
    :param permanent: ids that were deleted permanently
    :param unresolved: for each job, the ids that an attempt was about to delete and has no clear outcome of
    """

    soft: Mapping[str, datetime] = field(default_factory=dict)
    permanent: frozenset[str] = frozenset()
    unresolved: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def soft_only(self) -> dict[str, datetime]:
        """The ids that were soft-deleted and not deleted permanently."""
        return {replica_id: at for replica_id, at in self.soft.items() if replica_id not in self.permanent}

    @property
    def ids(self) -> frozenset[str]:
        """All ids that were deleted."""
        return self.permanent | self.soft.keys()

    def followed_by(self, attempts: Iterable[Attempt]) -> Deletions:
        """
        Return what these and some later attempts deleted.

        :param attempts: in the order in which they started
        """
        soft, permanent = dict(self.soft), set(self.permanent)
        unresolved = defaultdict(set, {job: set(ids) for job, ids in self.unresolved.items()})
        for attempt in attempts:
            job = attempt.job.rpartition("/")[2]
            if not job.startswith(_KINDS):
                continue
            outcomes = attempt.outcomes
            gone = {replica_id for replica_id, outcome in outcomes.items() if outcome in GONE}
            gone |= {i for i in unresolved[job] if outcomes.get(i) == Outcome.ALREADY_GONE}
            unresolved[job] |= {
                i for i in attempt.intended if outcomes.get(i, Outcome.UNKNOWN) == Outcome.UNKNOWN
            }
            if not gone:
                continue
            if attempt.begin_record.get("hard") is False:
                # The first attempt counts: a later one of the same task repeats the outcomes of earlier ones.
                at = datetime.fromisoformat(attempt.begin_record["at"])
                soft |= {i: min(at, soft.get(i, at)) for i in gone}
            else:
                permanent |= gone
        return Deletions(
            soft, frozenset(permanent), {job: frozenset(ids) for job, ids in unresolved.items() if ids}
        )

    def since(self, earlier: Deletions) -> Deletions:
        """Return what has to be added to an earlier state to get this one."""
        return Deletions(
            {i: at for i, at in self.soft.items() if earlier.soft.get(i) != at},
            self.permanent - earlier.permanent,
            {
                job: new
                for job, ids in self.unresolved.items()
                if (new := ids - earlier.unresolved.get(job, frozenset()))
            },
        )

    def with_added(self, later: Deletions) -> Deletions:
        """Return this state with what :meth:`since` returned."""
        unresolved = dict(self.unresolved)
        for job, ids in later.unresolved.items():
            unresolved[job] = unresolved.get(job, frozenset()) | ids
        return Deletions({**self.soft, **later.soft}, self.permanent | later.permanent, unresolved)

    def to_json(self) -> DeletionsJson:
        """Return it as JSON, with the ids of one attempt together."""
        soft: defaultdict[str, list[str]] = defaultdict(list)
        for replica_id, at in sorted(self.soft.items()):
            soft[at.isoformat()].append(replica_id)
        return {
            "soft": dict(soft),
            "permanent": sorted(self.permanent),
            "unresolved": {job: sorted(ids) for job, ids in self.unresolved.items()},
        }

    @classmethod
    def from_json(cls, value: DeletionsJson) -> Deletions:
        """Return what :meth:`to_json` was made from. The record was checked when it was read."""
        return cls(
            {i: datetime.fromisoformat(at) for at, ids in value["soft"].items() for i in ids},
            frozenset(value["permanent"]),
            {job: frozenset(ids) for job, ids in value["unresolved"].items()},
        )
