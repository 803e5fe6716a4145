"""
Plans, stored in the ledger's folder ``_plans`` under their digest; beside them the texts that approvers saw,
and the verdicts on all replicas if they are too many for an XCom.

The digest alone determines the path, so that nothing in Airflow's database can point a task at another
file, and the plan that is read must have that digest. Unlike ledger records, stored plans contain names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, TypeVar, cast

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json, digest_of
from tavus_provider.exceptions import LedgerUnavailableError, PlanRejectedError
from tavus_provider.planning.erasure import (
    ErasurePlan,
    ErasureReference,
    erasure_reference,
    verify_erasure_digest,
)
from tavus_provider.planning.plan import Plan, PlanReference, fits_xcom, plan_reference, verify_digest
from tavus_provider.planning.verdicts import Verdicts
from tavus_provider.storage.ledger import PLANS_FOLDER, ledger_root
from tavus_provider.storage.object_storage import StorageError, read_bytes, redact, write_once

AnyPlan = Plan | ErasurePlan
P = TypeVar("P", Plan, ErasurePlan)

VERDICTS_FILE: Final = "verdicts.json"
"""The end of the name of the verdicts; its beginning is the digest of the plan."""


def store(plan: AnyPlan) -> str:
    """
    Store a plan under its digest.

    :returns: its location, for people to read
    :raises LedgerUnavailableError: if it cannot be stored
    """
    path = _plan_path(plan["digest"])
    _store_once(path, canonical_json(plan))
    return redact(path)


def store_verdicts(verdicts: Verdicts, *, plan_digest: str) -> tuple[str, str]:
    """
    Store the verdicts on all replicas beside the plan.

    :returns: their location, for people to read, and the SHA-256 of the file
    :raises LedgerUnavailableError: if they cannot be stored
    """
    path, data = ledger_root() / PLANS_FOLDER / f"{plan_digest}.{VERDICTS_FILE}", canonical_json(verdicts)
    _store_once(path, data)
    return redact(path), sha256(data).hexdigest()


def store_text(text: bytes, *, plan_digest: str, shown_digest: str) -> None:
    """
    Store the text that an approver is about to see, beside the plan.

    :raises LedgerUnavailableError: if it cannot be stored
    """
    _store_once(ledger_root() / PLANS_FOLDER / f"{plan_digest}.{shown_digest}.md", text)


def to_xcom(plan: Plan, *, plan_at: str | None) -> Plan | PlanReference:
    """
    Return a stored plan as an XCom: the plan itself, or if it is too large, a reference to the stored plan.

    :param plan_at: where the plan is stored; ``None`` if it is not
    """
    if plan_at is None or fits_xcom(plan):
        return plan
    return plan_reference(plan, plan_at=plan_at)


def erasure_to_xcom(plan: ErasurePlan, *, plan_at: str) -> ErasurePlan | ErasureReference:
    """Return a stored plan of an erasure as an XCom; see :func:`to_xcom`."""
    return plan if fits_xcom(plan) else erasure_reference(plan, plan_at=plan_at)


def from_xcom(value: object) -> Plan:
    """
    Return the stored plan with the digest that an XCom names, if the XCom is unchanged.

    Nothing else is taken from the XCom.

    :param value: a plan, or a reference to a stored one
    :raises PlanRejectedError: if the XCom is not as the plan task pushed it, or no such plan is stored
    :raises LedgerUnavailableError: if it cannot be read; a retry may succeed
    """
    return _take_unchanged(value, verify=verify_digest, refer=plan_reference)


def erasure_from_xcom(value: object) -> ErasurePlan:
    """Return the stored plan of an erasure with the digest that an XCom names; see :func:`from_xcom`."""
    return _take_unchanged(value, verify=verify_erasure_digest, refer=erasure_reference)


def any_from_xcom(value: object) -> AnyPlan:
    """Return the stored plan of either kind with the digest that an XCom names; see :func:`from_xcom`."""
    is_erasure = isinstance(value, Mapping) and value.get("kind") == "erasure"
    return erasure_from_xcom(value) if is_erasure else from_xcom(value)


def _take_unchanged(
    value: object, *, verify: Callable[[object], P], refer: Callable[..., Mapping[str, Any]]
) -> P:
    """
    Return the stored plan that an XCom names, after a comparison with the XCom.

    :param verify: returns a plan of the expected kind whose content matches its digest
    :param refer: returns the reference to a plan, given its location
    """
    if not isinstance(value, Mapping) or "plan_at" not in value:
        return verify(load(verify(value)["digest"]))
    digest = value.get("digest")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise PlanRejectedError("the reference to a stored plan has no valid digest. Nothing was deleted")
    path = redact(_plan_path(digest))
    if value["plan_at"] != path:
        raise PlanRejectedError(
            f"the plan is stored at {ascii(value['plan_at'])[:200]}, but this task would read it from "
            f"{path!a}: set the same ledger in section tavus of the configuration of all workers. "
            "Nothing was deleted"
        )
    plan = verify(load(digest))
    if value != refer(plan, plan_at=path):
        raise PlanRejectedError(
            "the reference to the stored plan was changed after it was made. Nothing was deleted; "
            "trigger a new run"
        )
    return plan


def load(digest: str) -> AnyPlan:
    """
    Return the stored plan with a digest.

    :raises PlanRejectedError: if the stored file is not that plan
    :raises LedgerUnavailableError: if it cannot be read; a retry may succeed
    """
    path = _plan_path(digest)
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


def _store_once(path: ObjectStoragePath, data: bytes) -> None:
    try:
        try:
            write_once(path, data)
        except StorageError as error:
            # A retry of the same plan finds its own file.
            if not error.exists or read_bytes(path) != data:
                raise
    except StorageError as error:
        fault = _unavailable("stored", error)
    else:
        return
    raise fault


def _parse_plan(data: bytes) -> AnyPlan | None:
    try:
        plan = json.loads(data)
        if isinstance(plan, dict) and plan.get("digest") == digest_of(plan):
            return cast("AnyPlan", plan)  # check_plan and check_erasure_plan check the rest
    except (ValueError, RecursionError):
        pass
    return None


def _plan_path(digest: str) -> ObjectStoragePath:
    return ledger_root() / PLANS_FOLDER / f"{digest}.json"


def _unavailable(action: str, error: StorageError) -> LedgerUnavailableError:
    changed = ". If that location is right, the XCom was changed" if error.is_missing else ""
    return LedgerUnavailableError(
        f"the plan cannot be {action} at {error.location!a} ({error.reason}). Nothing was deleted: set "
        f"ledger "
        f"in section tavus of the configuration to a location that all workers share{changed}"
    )
