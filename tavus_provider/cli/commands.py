"""
``python -m tavus_provider``: look at a policy before it runs, and at the ledger afterwards.

No command deletes anything or writes to the ledger. Each returns 0, 1 for findings (a fault in a policy, a
run that would stop, a ledger that is not as it was written) and 2 where it could not do its work, with one
line on stderr. What is heavy is imported when a command runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tavus_provider.exceptions import (
    PlanRejectedError,
    TavusError,
    TavusInvalidResponseError,
    TavusValidationError,
)
from tavus_provider.models import check_replica_id
from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tavus_provider.retention.context import Inventory
    from tavus_provider.retention.policy import Policy
    from tavus_provider.retention.verdict import Verdict

OK, FINDINGS, NOT_DONE = 0, 1, 2
_NAME = "python -m tavus_provider"


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    :param argv: the arguments; those of the process unless given
    :returns: the exit code: 0, 1 for findings, 2 where the command could not do its work
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (TavusInvalidResponseError, PlanRejectedError) as error:
        fault, code = f"a run would stop: {error}", FINDINGS
    except TavusError as error:
        fault, code = str(error), NOT_DONE
    _complain(fault)
    return code


# --- the commands ---------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> int:
    from tavus_provider.storage.policy_files import find_policy_problems

    findings = find_policy_problems(arguments.policy, base=os.getcwd())
    for finding in findings:
        _say(f"{arguments.policy}: {finding}")
    if not findings:
        _say(f"{arguments.policy}: good")
    return FINDINGS if findings else OK


def _schema(arguments: argparse.Namespace) -> int:
    from tavus_provider.retention.schema import policy_schema

    _say(json.dumps(policy_schema(), indent=2))
    return OK


def _plan(arguments: argparse.Namespace) -> int:
    from tavus_provider.rendering.tables import decision_sentence, decision_table
    from tavus_provider.retention.engine import evaluate

    policy, account = _read(arguments)
    decision = evaluate(policy, account, now=account.read_at, hard=arguments.hard)
    if arguments.output == "table":
        console = _console()
        console.print(decision_table(decision, now=account.read_at))
        console.print(_plain(decision_sentence(decision)))
    else:
        _structured([_facts(verdict) for verdict in decision.verdicts], arguments.output)
    if decision.limit_exceeded:
        _complain(f"a run would stop: {decision.limit_exceeded}")
    return FINDINGS if decision.limit_exceeded else OK


def _explain(arguments: argparse.Namespace) -> int:
    from tavus_provider.rendering.labels import label
    from tavus_provider.retention.engine import explain

    replica_id = check_replica_id(arguments.replica_id)
    policy, account = _read(arguments)
    asked = explain(policy, account, replica_id, now=account.read_at, hard=arguments.hard)
    if not asked:
        _complain(f"replica {replica_id} is not among the {len(account.replicas):,} that are listed")
        return FINDINGS
    decided = next(at for at, one in enumerate(asked) if one.reason is not None)
    if arguments.output != "table":
        rows = [{**one.to_json(), "decides": at == decided} for at, one in enumerate(asked)]
        _structured(rows, arguments.output)
        return OK
    rows_shown = []
    for at, one in enumerate(asked):
        style = "bold" if at == decided else "dim" if at > decided or one.reason is None else ""
        said = one.reason or "-"
        rows_shown.append((style, (">" if at == decided else "", one.status, one.reason_code, said)))
    replica = next(one for one in account.replicas if one.replica_id == replica_id)
    console = _console()
    console.print(_plain(f"{replica_id} {_name(replica.replica_name)}"))
    console.print(_table(("", "status", "asked", "answer"), rows_shown))
    console.print(_plain(f"{label(asked[decided].status).text}: {asked[decided].reason}"))
    below = next((one for one in asked[decided + 1 :] if one.reason is not None), None)
    if below is not None and asked[decided].status in ("held", "kept"):
        console.print(_plain(f"without that, {below.reason_code}: {below.reason}"))
    return OK


def _simulate(arguments: argparse.Namespace) -> int:
    from tavus_provider.rendering.simulation import simulation_svg, simulation_view, stop_sentences
    from tavus_provider.retention.simulation import simulate

    policy, account = _read(arguments)
    simulation = simulate(
        policy,
        account,
        now=account.read_at,
        days=arguments.days,
        hard=arguments.hard,
        with_limits=not arguments.without_limits,
    )
    if arguments.picture is not None:
        _write(arguments.picture, simulation_svg(simulation))
    if arguments.output == "table":
        _console().print(simulation_view(simulation))
    else:
        _structured(simulation.to_json(), arguments.output)
    for sentence in stop_sentences(simulation):
        _complain(sentence)
    return FINDINGS if simulation.stops else OK


def _verify(arguments: argparse.Namespace) -> int:
    from tavus_provider.storage.ledger import ledger_root
    from tavus_provider.storage.ledger_verify import compare_report, verify
    from tavus_provider.storage.object_storage import redact

    report = None if arguments.report is None else _report(arguments.report)
    place = ledger_root()
    tries, findings = verify(place)
    if report is not None:
        findings += compare_report(tries, report)
    if arguments.output == "table":
        for finding in findings:
            _say(escape_line(finding, 1_000))
        found = f"{len(findings):,} finding{'s' * (len(findings) != 1)}"
        _complain(f"{found} in {len(tries):,} tries at {redact(place)}")
    else:
        _structured(findings, arguments.output)
    return FINDINGS if findings else OK


# --- what they read -------------------------------------------------------------------------------------


def _read(arguments: argparse.Namespace) -> tuple[Policy, Inventory]:
    """The policy in the file, and all that it needs of the account."""
    # As airflow's own commands say it, so that connections in Airflow's database are found.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from tavus_provider.execution.inventory import read_inventory
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.storage.history import read_history
    from tavus_provider.storage.ledger import Ledger
    from tavus_provider.storage.policy_files import read_legal_holds, read_policy

    if not sys.warnoptions:  # only now: Airflow 3.1 asks for some when it is imported
        warnings.simplefilter("ignore")

    policy = read_policy(arguments.policy, base=os.getcwd())
    with TavusHook(arguments.conn_id) as hook:
        ledger = Ledger(hook.origin, arguments.conn_id)

        def held(now: datetime) -> frozenset[str]:
            try:
                return read_legal_holds(policy.legal_holds, now=now)
            except TavusValidationError as error:
                fault = str(error)
            raise PlanRejectedError(fault)

        inventory = read_inventory(
            hook,
            policy,
            now=lambda: datetime.now(UTC),
            history=lambda now: read_history(ledger, policy),
            held=held,
        )
        return policy, inventory


def _report(file: str) -> dict[str, Any]:
    """The report of an apply task, as XCom holds it."""
    try:
        report = json.loads(Path(file).read_text(encoding="utf-8"))
        if all({"replica_id", "outcome"} <= item.keys() for item in report["items"]):
            return dict(report)
        fault = "is not the report of an apply task"
    except OSError as error:
        fault = f"cannot be read ({error.strerror or type(error).__name__})"
    except (ValueError, TypeError, KeyError, AttributeError):
        fault = "is not the report of an apply task, the JSON of its XCom return_value"
    raise TavusValidationError(f"{file} {fault}")


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8")
        return
    except OSError as error:
        fault = error.strerror or type(error).__name__
    raise TavusValidationError(f"{file} cannot be written ({fault})")


# --- what they show -------------------------------------------------------------------------------------


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{line}\n")


def _complain(line: str) -> None:
    sys.stderr.write(f"{escape_line(line, 1_000)}\n")


def _console() -> Console:
    from airflow.cli.simple_table import AirflowConsole

    return AirflowConsole(highlight=False)


def _structured(data: Any, output: str) -> None:
    console: Any = _console()
    (console.print_as_json if output == "json" else console.print_as_yaml)(data)


def _table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[RenderableType]]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold", no_wrap=name == "replica")
    for style, cells in rows:
        table.add_row(*(_plain(cell) if isinstance(cell, str) else cell for cell in cells), style=style)
    return table


def _plain(text: str) -> RenderableType:
    from rich.text import Text

    return Text(escape_line(text, 1_000))


def _name(name: str | None) -> str:
    return "(no name)" if name is None else escape_line(name, 40)


def _facts(verdict: Verdict) -> dict[str, Any]:
    from tavus_provider.planning.plan import format_time

    return {
        "status": verdict.status.value,
        "reason_code": verdict.reason_code,
        **verdict.to_row(),
        "next_reason": verdict.next_reason,
        "due_at": format_time(verdict.due_at),
    }


# --- the arguments --------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_NAME,
        description="Look at a retention policy before it runs, and at the ledger afterwards. "
        "No command deletes anything.",
        epilog="Exit codes: 0; 1 for findings; 2 where a command could not do its work.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument(
        "-o", "--output", choices=("table", "json", "yaml"), default="table", help="how to show it (table)"
    )
    account = argparse.ArgumentParser(add_help=False, parents=[output])
    account.add_argument(
        "policy", metavar="POLICY", help="YAML or JSON file, any Airflow object storage path"
    )
    account.add_argument("--conn-id", default="tavus_default", help="the Airflow connection (%(default)s)")
    account.add_argument("--hard", action="store_true", help="decide as for permanent deletes")

    check = commands.add_parser("check", help="validate a policy file")
    check.add_argument("policy", metavar="POLICY", help="YAML or JSON file, any Airflow object storage path")
    check.set_defaults(run=_check)

    schema = commands.add_parser("schema", help="print the JSON Schema of policy files, for editors")
    schema.set_defaults(run=_schema)

    plan = commands.add_parser("plan", parents=[account], help="show what a run would delete now, and why")
    plan.set_defaults(run=_plan)

    explain = commands.add_parser(
        "explain", parents=[account], help="the result of every check for one replica"
    )
    explain.add_argument("replica_id", metavar="REPLICA_ID")
    explain.set_defaults(run=_explain)

    simulate = commands.add_parser(
        "simulate", parents=[account], help="show which replicas would be deleted on which day"
    )
    simulate.add_argument(
        "--days", type=_days, default=365, help="days to simulate, 1 to 3650 (default: %(default)s)"
    )
    simulate.add_argument("--picture", metavar="FILE.svg", help="also save the output as an SVG picture")
    simulate.add_argument("--without-limits", action="store_true", help="ignore the limits of the policy")
    simulate.set_defaults(run=_simulate)

    ledger = commands.add_parser("ledger", help="the record of deletes").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    verify = ledger.add_parser(
        "verify",
        parents=[output],
        help="look for changed, missing or reordered records; print one line for each",
    )
    verify.add_argument(
        "--report", metavar="FILE", help="JSON report of an apply task to compare with the ledger"
    )
    verify.set_defaults(run=_verify)
    return parser


def _days(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 3650:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 3650")
