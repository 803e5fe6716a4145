"""The command that compares two policies: diff."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tavus_provider.cli.output import FAILED, PROBLEMS, SUCCESS, print_data, print_rich, write_error
from tavus_provider.exceptions import PlanRejectedError, TavusInvalidResponseError

if TYPE_CHECKING:
    import argparse


def diff(arguments: argparse.Namespace) -> int:
    """
    Show the replicas whose verdict differs under two policies.

    :returns: 1 if the new policy would delete or schedule a replica that the old one would not; 2 if a run
        under one of them would stop before it decides
    """
    from tavus_provider.cli.account import read_accounts, read_policies
    from tavus_provider.rendering.comparison import comparison_sentence, comparison_table
    from tavus_provider.retention.comparison import compare
    from tavus_provider.retention.engine import evaluate
    from tavus_provider.retention.unmatched import find_unmatched

    files = (arguments.old, arguments.new)
    policies = read_policies(*files)
    decisions = []
    try:
        inventories = read_accounts(*policies, conn_id=arguments.conn_id, account=arguments.account)
        for policy, inventory in zip(policies, inventories, strict=True):
            decisions.append(evaluate(policy, inventory, now=inventory.read_at, hard=arguments.hard))
    except (PlanRejectedError, TavusInvalidResponseError) as error:
        write_error(f"a run would stop: {error}")
        return FAILED
    for warning in (*find_unmatched(policies[-1], inventories[-1]), *decisions[-1].warnings):
        write_error(f"warning: {arguments.new}: {warning}")
    changes = compare(*decisions)
    if arguments.output != "table":
        print_data([change.to_json() for change in changes], output=arguments.output)
    elif changes:
        print_rich(comparison_table(changes))
    for file, decision in zip(files, decisions, strict=True):
        if decision.limit_exceeded:
            write_error(f"a run with {file} would stop: {decision.limit_exceeded}")
    if arguments.output == "table":
        print_rich(comparison_sentence(changes))
    return PROBLEMS if any(change.is_newly_due for change in changes) else SUCCESS
