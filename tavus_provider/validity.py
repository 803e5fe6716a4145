"""
How long a plan is valid.

It imports nothing of the package, because the operators use it, and these are imported whenever Airflow
reads a DAG file.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

PLAN_VALID_FOR: Final = timedelta(hours=24)
"""Time from the plan to its last delete. By default a task waits as long for an approval."""
