"""The account that a command decides about: read from Tavus, or from a file that ``plan --save`` wrote."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tavus_provider.cli.output import write_file
from tavus_provider.exceptions import PlanRejectedError, TavusValidationError

if TYPE_CHECKING:
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.policy import Policy

_ALL_KINDS: Final = ("persona", "conversation", "video")


def read_policies(*files: str) -> list[Policy]:
    """
    Read policy files; a relative one is in the current directory.

    :raises TavusValidationError: if one cannot be read or is invalid
    """
    from tavus_provider.storage.policy_files import read_policy

    return [read_policy(file, base=os.getcwd()) for file in files]


def read_accounts(*policies: Policy, conn_id: str, account: str | None = None) -> list[Inventory]:
    """
    Return what each policy decides about. The account is read once for all of them.

    The inventories differ in what depends on the policy: the schedule, and the ids under legal hold.

    :param conn_id: id of the Airflow connection
    :param account: a file with a saved account, to decide about that
    :raises PlanRejectedError: if a run would stop, because it is unknown which replicas are held
    :raises TavusValidationError: if the saved account is invalid
    """
    if account is not None:
        return [load_account_file(account, *policies)] * len(policies)
    with _hook(conn_id) as hook:
        inventory = _read_lists(hook, _union(*policies))
        return [_with_records(inventory, hook, policy) for policy in policies]


def save_account_file(file: str, policy: Policy, *, conn_id: str, names: bool) -> Inventory:
    """
    Read everything of an account, because any policy may decide about it later, and save it.

    :param policy: whose schedule and legal holds are saved
    :param names: whether to save the names of the replicas
    :returns: what was saved
    :raises TavusValidationError: if the file cannot be written
    """
    from tavus_provider.planning.saved_account import save_account

    with _hook(conn_id) as hook:
        inventory = _with_records(_read_lists(hook, _everything()), hook, policy)
        saved = save_account(inventory, policy=policy, tavus_conn_id=conn_id, origin=hook.origin, names=names)
    write_file(file, json.dumps(saved, indent=1) + "\n", private=True)
    return inventory


def load_account_file(file: str, *policies: Policy) -> Inventory:
    """
    Return the inventory of a saved account.

    :raises TavusValidationError: naming the file and what is wrong with it
    """
    from tavus_provider.planning.saved_account import load_account

    try:
        return load_account(json.loads(Path(file).read_text(encoding="utf-8")), *policies)
    except OSError as error:
        fault = f"cannot be read ({error.strerror or type(error).__name__})"
    except (ValueError, RecursionError):
        fault = "is not JSON in UTF-8; expected what plan --save writes"
    except TavusValidationError as error:
        fault = str(error)
    raise TavusValidationError(f"{file}: {fault}")


@contextlib.contextmanager
def _hook(conn_id: str) -> Iterator[TavusHook]:
    from tavus_provider.hooks.tavus import TavusHook

    if not sys.warnoptions:  # after the import: Airflow 3.1 enables some warnings when it is imported
        warnings.simplefilter("ignore")
    with TavusHook(conn_id) as hook:
        yield hook


def _read_lists(hook: TavusHook, policy: Policy) -> Inventory:
    from tavus_provider.execution.inventory import read_inventory

    return read_inventory(hook, policy, now=lambda: datetime.now(UTC))


def _with_records(inventory: Inventory, hook: TavusHook, policy: Policy) -> Inventory:
    """Add what the ledger and the legal holds say for a policy."""
    from tavus_provider.storage.binding_holds import read_binding_holds
    from tavus_provider.storage.history import read_history
    from tavus_provider.storage.ledger import Ledger

    try:
        held = read_binding_holds(policy.legal_holds, now=inventory.read_at)
    except TavusValidationError as error:
        message = str(error)
    else:
        history = read_history(Ledger(hook.origin, hook.tavus_conn_id), policy)
        return dataclasses.replace(inventory, held=held, history=history)
    raise PlanRejectedError(message)


def _union(*policies: Policy) -> Policy:
    """Return a policy that needs everything which one of the policies needs."""
    if len({(policy.needs, policy.asks_about_past) for policy in policies}) == 1:
        return policies[0]
    return _everything()


def _everything() -> Policy:
    """Return a policy that needs every list of the account, ended conversations included."""
    from tavus_provider.retention.policy import Policy

    return Policy.parse({"expire": [{"unused_for": "1d"}], "keep": {"in_use": list(_ALL_KINDS)}})
