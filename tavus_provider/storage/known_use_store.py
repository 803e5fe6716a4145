"""
The past use that a plan read, stored in the ledger's folder ``_plans`` as ``<digest of the plan>.use.json``.

It only saves requests: without it, or if it is not the file whose digest the ledger has, everything is read
again.
"""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from typing import Final

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json, seal
from tavus_provider.retention.known_use import KnownUse
from tavus_provider.storage.ledger import PLANS_FOLDER, ledger_root
from tavus_provider.storage.object_storage import StorageError, read_bytes, redact, write_once

log = logging.getLogger(__name__)

USE_FILE: Final = "use.json"
"""The end of the name of the file; its beginning is the digest of the plan."""


def store_known_use(known: KnownUse, *, plan_digest: str) -> dict[str, str]:
    """
    Store the use that a plan read. A failure is only logged.

    :returns: the SHA-256 of the file by the end of its name; empty if it is not stored
    """
    data = canonical_json(seal({**known.to_json(), "plan_digest": plan_digest}))
    try:
        write_once(_path(plan_digest), data)
    except StorageError as error:
        if not error.exists:  # the first attempt of the same plan stored it
            log.warning("The use that was read cannot be stored (%s): it will be read again", error.reason)
            return {}
    return {USE_FILE: sha256(data).hexdigest()}


def read_known_use(plan_digest: str, *, recorded: str | None) -> KnownUse | None:
    """
    Return the use that a plan read, or ``None`` if everything has to be read again; the log says why.

    :param recorded: the SHA-256 of the file, as the ledger has it; ``None`` if it has none
    """
    path = _path(plan_digest)
    try:
        if recorded is None:
            raise ValueError("the ledger has no digest of it")
        data = read_bytes(path)
        if sha256(data).hexdigest() != recorded:
            log.warning("%s is not the file that the plan task stored: run ledger verify", redact(path))
            raise ValueError("it was changed or replaced")
        return KnownUse.from_json(json.loads(data))
    except StorageError as error:
        reason = error.reason
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = str(error)
    log.info("All conversations are read again, because what the plan read is not available (%s)", reason)
    return None


def _path(plan_digest: str) -> ObjectStoragePath:
    return ledger_root() / PLANS_FOLDER / f"{plan_digest}.{USE_FILE}"
