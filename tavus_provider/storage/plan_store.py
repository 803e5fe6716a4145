"""
Plans that are too large for an XCom, stored in the ledger's folder ``_plans`` under their digest.

The digest alone determines the path, so that nothing in Airflow's database can point a task at another
file, and the plan that is read must have that digest. Unlike ledger records, stored plans contain names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import cast

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json, digest_of
from tavus_provider.exceptions import LedgerUnavailableError, PlanRejectedError
from tavus_provider.planning.plan import Plan, PlanReference, fits_xcom, plan_reference
from tavus_provider.storage.ledger import PLANS_FOLDER, ledger_root
from tavus_provider.storage.object_storage import StorageError, read_bytes, redact, write_once


def to_xcom(plan: Plan) -> Plan | PlanReference:
    """
    Return a plan as an XCom: the plan itself, or if it is too large, a reference to the stored plan.

    :raises LedgerUnavailableError: if it cannot be stored
    """
    if fits_xcom(plan):
        return plan
    path = _plan_path(plan["digest"])
    try:
        _store(path, canonical_json(plan))
    except StorageError as error:
        fault = _unavailable("stored", error)
    else:
        return plan_reference(plan, plan_at=redact(path))
    raise fault


def from_xcom(value: object) -> object:
    """
    Return the plan that an XCom refers to. Any other value is returned as it is.

    :raises PlanRejectedError: if the stored file is not the plan that the XCom refers to
    :raises LedgerUnavailableError: if it cannot be read; a retry may succeed
    """
    if not isinstance(value, Mapping) or "plan_at" not in value:
        return value
    digest = value.get("digest")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise PlanRejectedError("the reference to a stored plan has no valid digest. Nothing was deleted")
    path = _plan_path(digest)
    if value["plan_at"] != redact(path):
        raise PlanRejectedError(
            f"the plan is stored at {ascii(value['plan_at'])[:200]}, but this task would read it from "
            f"{redact(path)!a}: set the same ledger in section tavus of the configuration of all workers. "
            "Nothing was deleted"
        )
    try:
        data = read_bytes(path)
    except StorageError as error:
        fault = _unavailable("read", error)
    else:
        plan = _parse_plan(data)
        if plan is not None and plan["digest"] == digest:
            return plan
        raise PlanRejectedError(
            f"the file at {redact(path)!a} is not the plan that was stored there. Nothing was deleted; "
            "trigger a new run"
        )
    raise fault


def _store(path: ObjectStoragePath, data: bytes) -> None:
    try:
        write_once(path, data)
    except StorageError as error:
        # A retry of the same plan finds its own file.
        if not error.exists or read_bytes(path) != data:
            raise


def _parse_plan(data: bytes) -> Plan | None:
    try:
        plan = json.loads(data)
        if isinstance(plan, dict) and plan.get("digest") == digest_of(plan):
            return cast("Plan", plan)  # check_plan checks the rest
    except (ValueError, RecursionError):
        pass
    return None


def _plan_path(digest: str) -> ObjectStoragePath:
    return ledger_root() / PLANS_FOLDER / f"{digest}.json"


def _unavailable(action: str, error: StorageError) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"a plan too large for XCom cannot be {action} at {error.location!a} ({error.reason}). Nothing was "
        "deleted: set ledger in section tavus of the configuration to a location that all workers share"
    )
