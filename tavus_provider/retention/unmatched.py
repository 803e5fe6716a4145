"""Find ids and patterns of a policy that match no replica: they may be mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from unicodedata import normalize

from tavus_provider.retention.context import Inventory, compile_glob
from tavus_provider.retention.policy import Policy
from tavus_provider.sanitize import escape_line

_MAX_NAMED: Final = 10


def find_unmatched(policy: Policy, inventory: Inventory) -> list[str]:
    """
    Return one sentence for each list of the policy with ids or patterns that match no replica.

    A replica that was deleted matches nothing either, so this is a warning and not an error. What is a
    duty to find is in ``account.expect_present``.
    """
    names = {normalize("NFC", replica.name_for_patterns) for replica in inventory.replicas}
    models = {replica.model_name for replica in inventory.replicas}
    listed = {replica.replica_id for replica in inventory.replicas}
    for row in inventory.unreadable_replicas:
        listed.update(row.own_ids)

    def without_name(globs: Iterable[str]) -> list[str]:
        return [glob for glob in globs if not any(map(compile_glob(glob), names))]

    patterns = [
        ("scope.include", without_name(policy.scope.include)),
        ("scope.exclude", without_name(policy.scope.exclude)),
        ("narrow.include", without_name(policy.narrow.include)),
        ("narrow.exclude", without_name(policy.narrow.exclude)),
    ]
    ids = [
        ("keep.protected_ids", [one for one in policy.keep.protected_ids if one not in listed]),
        ("legal_holds", sorted(inventory.held - listed)),
    ]
    found = [_sentence(where, lost, "id", "is not listed") for where, lost in ids if lost]
    found += [_sentence(where, lost, "pattern", "matches no name") for where, lost in patterns if lost]
    if lost := [model for model in policy.scope.model_names if model not in models]:
        found.append(_sentence("scope.model_names", lost, "model", "is the model of no replica"))
    if policy.legal_holds is not None and not inventory.held:
        found.append("legal_holds: the list is empty, so no replica is held")
    return found


def _sentence(where: str, values: list[str], noun: str, problem: str) -> str:
    shown = ", ".join(f"'{escape_line(value, 60)}'" for value in values[:_MAX_NAMED])
    more = f" and {len(values) - _MAX_NAMED:,} more" if len(values) > _MAX_NAMED else ""
    return f"{where}: {noun} {shown}{more} {problem}; check the spelling"
