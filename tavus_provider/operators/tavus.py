"""
The operators: delete one replica, and plan, approve and apply a retention policy.

What is heavy (HTTP, pydantic models) is imported when a task runs or a policy is given, not when a
DAG file is parsed; what asks a person, when a DAG names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tavus_provider.operators.apply import (
    ApplyRetentionOperator,
    SplitRetentionOperator,
    SummarizeRetentionOperator,
)
from tavus_provider.operators.delete import DeleteReplicaOperator, LookUpReplicaOperator
from tavus_provider.operators.plan import PlanRetentionOperator

if TYPE_CHECKING:
    from tavus_provider.operators.approve import ApproveRetentionOperator

__all__ = [
    "ApplyRetentionOperator",
    "ApproveRetentionOperator",
    "DeleteReplicaOperator",
    "LookUpReplicaOperator",
    "PlanRetentionOperator",
    "SplitRetentionOperator",
    "SummarizeRetentionOperator",
]


def __getattr__(name: str) -> Any:
    """Import the operator that asks a person: it brings Airflow's triggers with it."""
    if name == "ApproveRetentionOperator":
        from tavus_provider.operators.approve import ApproveRetentionOperator

        return ApproveRetentionOperator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
