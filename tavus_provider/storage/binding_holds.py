"""The legal holds that bind a task: those of its policy, and those of the deployment."""

from __future__ import annotations

from datetime import datetime

from airflow.configuration import conf

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.fields import Duration
from tavus_provider.retention.policy import LegalHolds
from tavus_provider.storage.policy_files import read_legal_holds, read_policy


def read_binding_holds(holds: LegalHolds | None = None, *, now: datetime) -> frozenset[str]:
    """
    Return the ids under legal hold, whatever policy a task was given.

    These are the ids in ``[tavus] legal_holds``, those that the file ``[tavus] policy`` holds, and those of
    ``holds``. A delete without a policy is bound by the first two.

    :param holds: the legal holds of the policy of the task
    :param now: the current time, aware
    :raises TavusValidationError: if one of the files cannot be read, is invalid or is too old
    """
    sources = dict.fromkeys([*_deployment_holds(), holds])
    return frozenset[str]().union(*(read_legal_holds(source, now=now) for source in sources))


def _deployment_holds() -> list[LegalHolds | None]:
    found: list[LegalHolds | None] = []
    if location := conf.get("tavus", "legal_holds", fallback="").strip():
        found.append(LegalHolds(file=location, max_age=_max_age()))
    if location := conf.get("tavus", "policy", fallback="").strip():
        found.append(read_policy(location).legal_holds)
    return found


def _max_age() -> Duration:
    text = conf.get("tavus", "legal_holds_max_age", fallback="7d")
    try:
        return Duration.parse(text)
    except ValueError as error:
        problem = str(error)
    raise TavusValidationError(f"[tavus] legal_holds_max_age: {problem}; nothing may be deleted")
