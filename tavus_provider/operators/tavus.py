"""
The operators: delete one replica; plan, approve and apply a retention policy; erase a person.

HTTP and pydantic are imported when a task runs or a policy is given, and the code that asks a person when a
DAG names its operator. Parsing a DAG file loads none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tavus_provider.operators.apply import ApplyRetentionOperator
from tavus_provider.operators.batch import SplitRetentionOperator, SummarizeRetentionOperator
from tavus_provider.operators.certify import CertifyErasureOperator, CheckErasuresOperator
from tavus_provider.operators.delete import DeleteReplicaOperator, LookUpReplicaOperator
from tavus_provider.operators.erasure import ApplyErasureOperator, PlanErasureOperator
from tavus_provider.operators.plan import PlanRetentionOperator

if TYPE_CHECKING:
    from tavus_provider.operators.approve import ApproveRetentionOperator

__all__ = [
    "ApplyErasureOperator",
    "ApplyRetentionOperator",
    "ApproveRetentionOperator",
    "CertifyErasureOperator",
    "CheckErasuresOperator",
    "DeleteReplicaOperator",
    "LookUpReplicaOperator",
    "PlanErasureOperator",
    "PlanRetentionOperator",
    "SplitRetentionOperator",
    "SummarizeRetentionOperator",
]


def __getattr__(name: str) -> Any:
    """Import ``ApproveRetentionOperator`` on first use, because it imports Airflow's triggers."""
    if name == "ApproveRetentionOperator":
        from tavus_provider.operators.approve import ApproveRetentionOperator

        return ApproveRetentionOperator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
