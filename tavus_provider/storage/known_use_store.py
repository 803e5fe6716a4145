"""
The past use that a plan read, stored in the ledger's folder ``_plans`` as ``<digest of the plan>.use.json``.

It only saves requests: without it, or if it is damaged, everything is read again.
"""

from __future__ import annotations

import json
import logging

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json, digest_of, seal
from tavus_provider.retention.known_use import KnownUse
from tavus_provider.storage.ledger import PLANS_FOLDER, ledger_root
from tavus_provider.storage.object_storage import StorageError, read_bytes, write_once

log = logging.getLogger(__name__)


def store_known_use(known: KnownUse, *, plan_digest: str) -> None:
    """Store the use that a plan read. A failure is only logged."""
    document = seal({**known.to_json(), "plan_digest": plan_digest})
    try:
        write_once(_path(plan_digest), canonical_json(document))
    except StorageError as error:
        if not error.exists:  # the first attempt of the same plan stored it
            log.warning("The use that was read cannot be stored (%s): it will be read again", error.reason)


def read_known_use(plan_digest: str) -> KnownUse | None:
    """Return the use that a plan read, or ``None`` if everything has to be read again; the log says why."""
    try:
        value = json.loads(read_bytes(_path(plan_digest)))
        if not isinstance(value, dict) or value.get("digest") != digest_of(value):
            raise ValueError("it was changed")
        if value.get("plan_digest") != plan_digest:
            raise ValueError("it belongs to another plan")
        return KnownUse.from_json(value)
    except StorageError as error:
        reason = error.reason
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"it is damaged: {error}"
    log.info("All conversations are read again, because what the plan read is not available (%s)", reason)
    return None


def _path(plan_digest: str) -> ObjectStoragePath:
    return ledger_root() / PLANS_FOLDER / f"{plan_digest}.use.json"
