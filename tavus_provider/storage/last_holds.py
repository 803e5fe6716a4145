"""The legal holds that the last plan of a policy saw, from the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from tavus_provider.storage.attempts import list_folder, read_named_attempts
from tavus_provider.storage.checkpoints import INDEX_FOLDER, pointed_attempt
from tavus_provider.storage.ledger import Ledger

_MAX_ATTEMPTS: Final = 64
_AT_ONCE: Final = 16


def read_last_holds(ledger: Ledger, *, policy: str) -> frozenset[str] | None:
    """
    Return the ids under legal hold when the last plan under a policy was made that was not a dry run.

    Only the last records of the account are read, so that the cost does not grow with the ledger.

    :param policy: the name of the policy
    :returns: ``None`` if the last records have no such plan
    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    names = islice(_newest_first(ledger), _MAX_ATTEMPTS)
    while some := list(islice(names, _AT_ONCE)):
        attempts = sorted(
            read_named_attempts(ledger.root, some), key=lambda attempt: attempt.stem, reverse=True
        )
        for attempt in attempts:
            record = attempt.begin_record
            is_plan = record.get("kind") == "planned" and record.get("policy") == policy
            if is_plan and "holds" in record and not record.get("dry_run"):
                return frozenset(record["holds"])
    return None


def _newest_first(ledger: Ledger) -> Iterator[str]:
    """Yield the names of the attempts of DAG runs."""
    index = f"{ledger.account_folder}/{INDEX_FOLDER}"
    for month in sorted(list_folder(ledger.root, index), reverse=True):
        for file in sorted(list_folder(ledger.root, f"{index}/{month}"), reverse=True):
            name = pointed_attempt(ledger.account_folder, file)
            if name is not None and "/run-" in name:
                yield name
