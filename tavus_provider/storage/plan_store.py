"""
Where a plan lies that is too large for an XCom: beside the ledger, under its own digest.

Only the digest names the place, so nothing that travels through Airflow's database can point a task at
another one; and the plan that is read must have that digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json, digest_of
from tavus_provider.exceptions import LedgerUnavailableError, PlanRejectedError
from tavus_provider.planning.plan import Plan, fits_xcom, reference_to
from tavus_provider.storage.ledger import PLANS, kind_of, ledger_root, shown


def to_xcom(plan: Plan) -> dict[str, Any]:
    """
    Return a plan as it travels: itself, or where it is too large, stored and in its place a reference.

    :raises LedgerUnavailableError: if it could not be stored
    """
    if fits_xcom(plan):
        return plan
    path = _place_of(plan["digest"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(canonical_json(plan))
    except Exception as error:  # noqa: BLE001  # each storage has errors of its own
        fault = error
    else:
        return reference_to(plan, shown(path))
    raise _unavailable("be stored", path, fault)


def from_xcom(value: object) -> object:
    """
    Return the plan that travelled as ``value``; what is no reference is returned as it is.

    :raises PlanRejectedError: if what lies there is not the plan that was stored
    :raises LedgerUnavailableError: if it cannot be read; another try may
    """
    if not isinstance(value, Mapping) or "plan_at" not in value:
        return value
    digest = value.get("digest")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise PlanRejectedError("plan refers to a stored plan without its digest. Nothing was deleted")
    path = _place_of(digest)
    if value["plan_at"] != shown(path):
        raise PlanRejectedError(
            f"the plan lies at {ascii(value['plan_at'])[:200]}, and this task would look at {shown(path)!r}: "
            "set the same ledger in section [tavus] of the configuration of all workers. Nothing was deleted"
        )
    try:
        blob = path.read_bytes()
    except Exception as error:  # noqa: BLE001  # each storage has errors of its own
        fault = error
    else:
        try:
            plan = json.loads(blob)
            if isinstance(plan, dict) and digest == plan.get("digest") == digest_of(plan):
                return plan
        except (ValueError, RecursionError):
            pass
        raise PlanRejectedError(
            f"what lies at {shown(path)!r} is not the plan that was stored there. Nothing was deleted; "
            "trigger a new run"
        )
    raise _unavailable("be read", path, fault)


def _place_of(digest: str) -> ObjectStoragePath:
    return ledger_root() / PLANS / f"{digest}.json"


def _unavailable(how: str, path: ObjectStoragePath, fault: Exception) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"a plan too large for XCom cannot {how} at {shown(path)!r} ({kind_of(fault)}): set ledger, in "
        "section [tavus] of the configuration, to a place that all workers share"
    )
