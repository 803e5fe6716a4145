"""Find ids and patterns of a policy that match no replica: they may be mistyped."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final
from unicodedata import normalize

from tavus_provider.keys import is_named
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.names import find_unmatched_globs
from tavus_provider.retention.policy import Policy
from tavus_provider.sanitize import escape_line

_MAX_NAMED: Final = 10


def find_unmatched(policy: Policy, inventory: Inventory) -> list[str]:
    """
    Return one sentence for each list of the policy with ids or patterns that match no replica.

    A replica that was deleted matches nothing either, so this is a warning and not an error. What is a
    duty to find is in ``account.expect_present``.
    """
    found: list[str] = []
    names = {normalize("NFC", replica.name_for_patterns) for replica in inventory.replicas}
    models = {replica.model_name for replica in inventory.replicas}
    listed = frozenset(replica.replica_id for replica in inventory.replicas).union(
        *(row.own_ids for row in inventory.unreadable_replicas)
    )

    ids = [
        ("keep.protected_ids", policy.keep.protected_ids),
        ("legal_holds", sorted(key for key in inventory.held if "/" not in key)),
    ]
    for where, named in ids:
        if lost := [one for one in named if not is_named(one, listed)]:
            found.append(_sentence(where, lost, "id", "is not listed"))
    for section in ("scope", "narrow"):
        globs = getattr(policy, section)
        for key in ("include", "exclude"):
            found += _of_globs(f"{section}.{key}", getattr(globs, key), names)
    found += _of_models("scope.model_names", policy.scope.model_names, models)
    for number, rule in enumerate(policy.expire):
        for condition in rule.conditions:
            for key, globs in condition.globs:
                found += _of_globs(f"expire.{number}.{key}", globs, names)
            found += _of_models(f"expire.{number}.model_names", condition.models, models)
    if policy.legal_holds is not None and not inventory.held:
        found.append("legal_holds: the list is empty, so no replica is held")
    return found


def find_lost_holds(held: frozenset[str], *, before: Set[str] | None) -> list[str]:
    """
    Return one sentence if ids left the legal holds since the last plan.

    :param held: the ids under legal hold
    :param before: those when the last plan was made; ``None`` if unknown
    """
    lost = sorted(one for one in before or () if not is_named(one, held))
    if not lost:
        return []
    shown = ", ".join(f"'{escape_line(one, 60)}'" for one in lost[:_MAX_NAMED])
    more = f" and {len(lost) - _MAX_NAMED:,} more" if len(lost) > _MAX_NAMED else ""
    what = f"lost {len(lost):,} id{'s' * (len(lost) != 1)}" if held else "became empty"
    return [f"legal holds: the list {what} since the last plan: {shown}{more}; check that this was meant"]


def _of_globs(where: str, globs: Iterable[str], names: Set[str]) -> list[str]:
    lost = find_unmatched_globs(globs, names)
    return [_sentence(where, lost, "pattern", "matches no name")] if lost else []


def _of_models(where: str, wanted: Iterable[str], models: Set[str | None]) -> list[str]:
    lost = [model for model in wanted if model not in models]
    return [_sentence(where, lost, "model", "is the model of no replica")] if lost else []


def _sentence(where: str, values: list[str], noun: str, problem: str) -> str:
    shown = ", ".join(f"'{escape_line(value, 60)}'" for value in values[:_MAX_NAMED])
    more = f" and {len(values) - _MAX_NAMED:,} more" if len(values) > _MAX_NAMED else ""
    return f"{where}: {noun} {shown}{more} {problem}; check the spelling"
