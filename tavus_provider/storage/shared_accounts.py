"""
Find connections that are for the same Tavus account.

The ledger keeps connections apart, so what one of them schedules and soft-deletes is unknown to the other.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tavus_provider.exceptions import LedgerUnavailableError
from tavus_provider.retention.context import Inventory
from tavus_provider.sanitize import quote
from tavus_provider.storage.attempts import list_folder
from tavus_provider.storage.checkpoints import RecentReader
from tavus_provider.storage.ledger import Ledger

MAX_CONNECTIONS: Final = 20
"""Other connections that are looked at."""
_MAX_ATTEMPTS: Final = 16

log = logging.getLogger(__name__)


def find_shared_account(ledger: Ledger, inventory: Inventory) -> list[str]:
    """
    Return one sentence for each other connection that has recorded replicas of this account.

    Only the newest attempts and checkpoint of each connection are read, so that this costs little. If they
    cannot be read, the log says so.

    :param inventory: what was read of the account
    """
    history = inventory.history
    ids = {replica.replica_id for replica in inventory.replicas}
    ids |= history.soft_deleted.keys() | history.scheduled.keys()
    host, _, own = ledger.account_folder.partition("/")
    try:
        others = [f"{host}/{name}" for name in list_folder(ledger.root, host) if name != own]
        if not others:
            return []
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda folder: _find_recorded(ledger, folder), others[:MAX_CONNECTIONS]))
    except LedgerUnavailableError as error:
        log.warning("It is not known whether other connections are for the same account: %s", error)
        return []
    return [_sentence(name, recorded & ids) for name, recorded in found if recorded & ids]


def _find_recorded(ledger: Ledger, folder: str) -> tuple[str, frozenset[str]]:
    """Return the id of a connection, and the replicas that its newest records are about."""
    recent = RecentReader(ledger.root, folder, ledger.now).read_newest(most=_MAX_ATTEMPTS)
    ids = set(recent.deletions.ids)
    name = folder.rpartition("/")[2]
    for attempt in recent.attempts:
        name = attempt.begin_record.get("tavus_conn_id", name)
        ids |= attempt.intended | attempt.outcomes.keys()
        ids |= attempt.begin_record.get("scheduled", {}).keys()
    return name, frozenset(ids)


def _sentence(name: str, ids: Set[str]) -> str:
    count = f"{len(ids):,} replica{'s' * (len(ids) != 1)} of this account"
    return (
        f"connection {quote(name)} has recorded {count}, such as {min(ids)}: it seems to be for the same "
        "account. What one connection schedules and soft-deletes is unknown to the other, so grace and "
        "hard_delete_after count from anew: use one connection for one account"
    )
