"""The assets whose events report to other DAGs what was scheduled and what was deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from airflow.sdk import Context

SCHEDULED: Final = "tavus_replicas_scheduled"
"""Asset with an event for each plan that begins the grace period of replicas."""

PRUNED: Final = "tavus_replicas_pruned"
"""Asset with an event for each successful apply or summary that was not a dry run."""

ERASED: Final = "tavus_person_erased"
"""Asset with an event for each certificate of an erasure without open items."""


def with_outlet(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the arguments of an operator with the asset ``name`` added to its outlets.

    The outlet is an alias, because an asset itself would have an event whenever the task succeeds. It is
    not a default argument: Airflow would add that, a tuple, to the lists of a mapped task.
    """
    return {**kwargs, "outlets": [*kwargs.get("outlets", ()), AssetAlias(name)]}


def emit_event(context: Context, name: str, extra: Mapping[str, Any]) -> None:
    """
    Emit an event of an asset when the task succeeds.

    :param name: an asset that was added with :func:`with_outlet`
    :param extra: plain JSON
    """
    events = context.get("outlet_events")
    if events is not None:  # an accessor without events is false
        events[AssetAlias(name)].add(Asset(name), extra=dict(extra))
