"""The commands for a policy: check, schema, plan, explain, simulate."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from tavus_provider.cli.output import (
    PROBLEMS,
    SUCCESS,
    print_data,
    print_rich,
    write_error,
    write_file,
    write_line,
)
from tavus_provider.exceptions import TavusValidationError

if TYPE_CHECKING:
    import argparse

    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.policy import Policy
    from tavus_provider.retention.verdict import Verdict

EXAMPLE_POLICY: Final = {
    "name": "prune",
    "expire": [{"rule": "stale", "older_than": "90d"}],
    "scope": {"include": ["*"], "exclude": []},
    "limits": {"max_deletions": 10, "max_deletion_percent": 25},
}
"""The policy of the DAG tavus_prune_replicas."""


def check(arguments: argparse.Namespace) -> int:
    """Validate a policy file: print one line for each part that is invalid or has no effect."""
    from tavus_provider.storage.policy_files import find_policy_problems

    problems = find_policy_problems(arguments.policy, base=os.getcwd())
    for problem in problems or ["valid"]:
        write_line(f"{arguments.policy}: {problem}")
    return PROBLEMS if problems else SUCCESS


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of policy files."""
    from tavus_provider.retention.schema import policy_schema

    write_line(json.dumps(policy_schema(), indent=2))
    return SUCCESS


def plan(arguments: argparse.Namespace) -> int:
    """Show the verdict on every replica, and whether a run would stop or fail."""
    from rich.text import Text

    from tavus_provider.planning.overdue import describe_overdue
    from tavus_provider.planning.plan import overdue_rows
    from tavus_provider.rendering.tables import decision_sentence, decision_table
    from tavus_provider.retention.engine import evaluate
    from tavus_provider.retention.unmatched import find_unmatched

    if arguments.save is not None and arguments.account is not None:
        raise TavusValidationError("--save and --account: use one of them; a saved account is saved already")
    if arguments.without_names and arguments.save is None:
        raise TavusValidationError("--without-names: has no effect without --save")
    if arguments.save is None:
        policy, inventory = _read(arguments)
    else:
        policy, inventory = _save(arguments)
    for warning in find_unmatched(policy, inventory):
        write_error(f"warning: {warning}")
    decision = evaluate(policy, inventory, now=inventory.read_at, hard=arguments.hard)
    for warning in decision.warnings:
        write_error(f"warning: {warning}")
    if arguments.output == "table":
        print_rich(decision_table(decision, now=inventory.read_at), Text(decision_sentence(decision)))
    else:
        print_data([_to_json(verdict) for verdict in decision.verdicts], output=arguments.output)
    if decision.limit_exceeded:
        write_error(f"a run would stop: {decision.limit_exceeded}")
        return PROBLEMS
    if policy.overdue_after is not None and decision.overdue:
        message = describe_overdue(overdue_rows(decision.overdue), after=policy.overdue_after)
        write_error(f"a run would fail after its deletes: {message}")
        return PROBLEMS
    return SUCCESS


def explain(arguments: argparse.Namespace) -> int:
    """Show what every check saw of one replica, and which one decides."""
    from tavus_provider.models import Replica
    from tavus_provider.rendering.explanation import explanation_view
    from tavus_provider.retention.engine import explain as explain_replica

    policy, inventory = _read(arguments)
    results = explain_replica(
        policy, inventory, arguments.replica_id, now=inventory.read_at, hard=arguments.hard
    )
    if not results:
        count = len(inventory.replicas) + len(inventory.unreadable_replicas)
        write_error(
            f"replica {arguments.replica_id} is not among the {count:,} listed replicas, and the ledger "
            "shows no soft delete of it"
        )
        return PROBLEMS
    if arguments.output == "table":
        listed = (one for one in inventory.replicas if one.replica_id == arguments.replica_id)
        replica = next(listed, Replica(arguments.replica_id))  # without a name, if its row cannot be read
        print_rich(explanation_view(replica, results))
    else:
        print_data([result.to_json() for result in results], output=arguments.output)
    return SUCCESS


def simulate(arguments: argparse.Namespace) -> int:
    """Show which replicas would be deleted on which day, and when a run would stop at a limit."""
    from tavus_provider.rendering.simulation import (
        overdue_sentences,
        simulation_svg,
        simulation_view,
        stop_sentences,
    )
    from tavus_provider.retention.simulation import simulate as simulate_policy

    policy, inventory = _read(arguments)
    simulation = simulate_policy(
        policy,
        inventory,
        now=inventory.read_at,
        days=arguments.days,
        hard=arguments.hard,
        with_limits=not arguments.without_limits,
    )
    if arguments.picture is not None:
        write_file(arguments.picture, simulation_svg(simulation))
    if arguments.output == "table":
        print_rich(simulation_view(simulation))
    else:
        print_data(simulation.to_json(), output=arguments.output)
    for sentence in (*stop_sentences(simulation), *overdue_sentences(simulation)):
        write_error(sentence)
    return PROBLEMS if simulation.stops else SUCCESS


def _read_policy(file: str | None) -> Policy:
    """Read a policy file; without one, that of the deployment, or else the policy of the example DAG."""
    from airflow.configuration import conf

    from tavus_provider.cli.account import read_policies
    from tavus_provider.retention.policy import Policy

    file = file or conf.get("tavus", "policy", fallback="")
    if file:
        return read_policies(file)[0]
    write_error(
        "without POLICY: as the DAG tavus_prune_replicas decides, older than 90 days and within its limits"
    )
    return Policy.parse(EXAMPLE_POLICY)


def _read(arguments: argparse.Namespace) -> tuple[Policy, Inventory]:
    """
    Read the policy file, and everything of the account that it needs.

    :raises PlanRejectedError: if a run would stop, because it is unknown which replicas are held
    """
    from tavus_provider.cli.account import read_accounts

    policy = _read_policy(arguments.policy)
    (inventory,) = read_accounts(policy, conn_id=arguments.conn_id, account=arguments.account)
    return policy, inventory


def _save(arguments: argparse.Namespace) -> tuple[Policy, Inventory]:
    """Read the policy file and the account, and save the account."""
    from tavus_provider.cli.account import save_account_file

    policy = _read_policy(arguments.policy)
    inventory = save_account_file(
        arguments.save, policy, conn_id=arguments.conn_id, names=not arguments.without_names
    )
    write_error(f"saved to {arguments.save}")
    return policy, inventory


def _to_json(verdict: Verdict) -> dict[str, Any]:
    from tavus_provider.retention.verdict import format_time

    return {**verdict.to_json(), **verdict.to_row(), "due_at": format_time(verdict.due_at)}
