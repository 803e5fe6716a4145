"""
The table of all commands with their arguments, and the parser that is made from it.

Imports nothing that is heavy: the function of a command is imported when the command runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from tavus_provider.exceptions import TavusValidationError

PROGRAM: Final = "python -m tavus_provider"
DESCRIPTION: Final = (
    "Check a retention policy before it runs, and the ledger afterwards. No command deletes anything."
)
EXIT_CODES: Final = "Exit codes: 0: success; 1: a problem was found; 2: the command could not do its work."
SANDBOX: Final = "A Tavus server on this machine to try things with: python -m tavus_provider.sandbox --help"
MAX_DAYS: Final = 3_650


@dataclass(frozen=True)
class Argument:
    """
    An argument of a command.

    :param flags: its name, or the flags of an option
    :param options: keyword arguments of ``ArgumentParser.add_argument``
    """

    flags: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """
    A command.

    :param name: its name after the program, with its group if it has one: ``ledger verify``
    :param help: what it does, as the help shows it
    :param function: the function that runs it, as ``module:name`` in this package; called with the parsed
        arguments, returns the exit code
    """

    name: str
    help: str
    function: str
    arguments: tuple[Argument, ...] = ()

    def load(self) -> Callable[[argparse.Namespace], int]:
        """Import the function that runs the command."""
        module, _, name = self.function.partition(":")
        function: Callable[[argparse.Namespace], int] = getattr(
            importlib.import_module(f"tavus_provider.cli.{module}"), name
        )
        return function


def _days(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_DAYS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_DAYS}")


def _svg_file(text: str) -> str:
    if text.lower().endswith(".svg"):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} does not end with .svg, the only format")


def _day(text: str) -> date:
    if len(text) == 10:  # fromisoformat also reads 20261128 and 2026-W48-6
        with contextlib.suppress(ValueError):
            return date.fromisoformat(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-11-28")


def _run(text: str) -> tuple[str, str | None]:
    dag_id, _, run_id = text.partition("/")
    if dag_id:
        return dag_id, run_id or None
    raise argparse.ArgumentTypeError(f"{text!r} is not DAG_ID or DAG_ID/RUN_ID")


def _replica_id(text: str) -> str:
    from tavus_provider.models import check_replica_id

    try:
        return check_replica_id(text)
    except TavusValidationError as error:
        message = str(error)
    raise argparse.ArgumentTypeError(message)


def _policy(name: str, what: str) -> Argument:
    help_text = f"{what}: a YAML or JSON file, at any Airflow object storage path"
    return Argument((name,), {"metavar": name.upper(), "help": help_text})


_POLICY = _policy("policy", "the policy")
_OUTPUT = Argument(
    ("-o", "--output"),
    {
        "choices": ("table", "json", "yaml"),
        "default": "table",
        "help": "output format (default: %(default)s)",
    },
)
_SOURCE = (
    Argument(
        ("--conn-id",),
        {"default": "tavus_default", "help": "id of the Airflow connection (default: %(default)s)"},
    ),
    Argument(
        ("--account",),
        {
            "metavar": "FILE",
            "help": "decide about an account that plan --save has saved, without a connection",
        },
    ),
    Argument(("--hard",), {"action": "store_true", "help": "decide as for permanent deletes"}),
)
_POLICY_OR_DEFAULT = Argument(
    ("policy",),
    {
        "metavar": "POLICY",
        "nargs": "?",
        "help": "as for the other commands; without it, [tavus] policy, or else the policy of the DAG "
        "tavus_prune_replicas",
    },
)
_DECISION = (_OUTPUT, _POLICY, *_SOURCE)
"""The arguments of a command that reads the account and decides."""

GROUPS: Final[Mapping[str, str]] = {
    "ledger": "commands for the ledger, the record of deletes",
    "erasure": "commands for erasures of persons",
}
"""Names and help of the groups of commands."""

COMMANDS: Final = (
    Command("check", "validate a policy file", "policy:check", (_POLICY,)),
    Command("schema", "print the JSON Schema of policy files, for editors", "policy:schema"),
    Command(
        "plan",
        "show what a run would delete now, and why",
        "policy:plan",
        (
            _OUTPUT,
            _POLICY_OR_DEFAULT,
            *_SOURCE,
            Argument(
                ("--save",),
                {"metavar": "FILE", "help": "also save everything that was read to this file, for --account"},
            ),
            Argument(("--without-names",), {"action": "store_true", "help": "save no names of replicas"}),
        ),
    ),
    Command(
        "diff",
        "show which replicas another policy would decide about differently",
        "diff:diff",
        (_OUTPUT, _policy("old", "the policy that is in use"), _policy("new", "the other policy"), *_SOURCE),
    ),
    Command(
        "explain",
        "show the result of every check for one replica",
        "policy:explain",
        (
            *_DECISION,
            Argument(
                ("replica_id",), {"metavar": "REPLICA_ID", "type": _replica_id, "help": "id of the replica"}
            ),
        ),
    ),
    Command(
        "simulate",
        "show which replicas would be deleted on which day",
        "policy:simulate",
        (
            *_DECISION,
            Argument(
                ("--days",),
                {
                    "type": _days,
                    "default": 365,
                    "help": f"number of days, 1 to {MAX_DAYS} (default: %(default)s)",
                },
            ),
            Argument(
                ("--picture",),
                {"metavar": "FILE.svg", "type": _svg_file, "help": "also write a picture to this file"},
            ),
            Argument(
                ("--without-limits",),
                {"action": "store_true", "help": "go on where a run would stop at a limit"},
            ),
        ),
    ),
    Command(
        "ledger show",
        "show who deleted what, when, under which rule and policy, and approved by whom",
        "ledger:show",
        (
            Argument(
                ("-o", "--output", "--format"),
                {
                    "choices": ("table", "json", "csv"),
                    "default": "table",
                    "help": "output format (default: %(default)s)",
                },
            ),
            Argument(("--replica",), {"metavar": "ID", "type": _replica_id, "help": "of this replica"}),
            Argument(
                ("--run",),
                {"metavar": "DAG_ID[/RUN_ID]", "type": _run, "help": "of this DAG, or of one of its runs"},
            ),
            Argument(("--person",), {"metavar": "ID", "help": "approved or triggered by this Airflow user"}),
            Argument(
                ("--since",), {"metavar": "DAY", "type": _day, "help": "from this day on (YYYY-MM-DD, UTC)"}
            ),
            Argument(("--until",), {"metavar": "DAY", "type": _day, "help": "up to and including this day"}),
        ),
    ),
    Command(
        "ledger verify",
        "find records that were changed, removed or reordered",
        "ledger:verify",
        (
            _OUTPUT,
            Argument(
                ("--report",),
                {"metavar": "FILE", "help": "also compare with the report (JSON) of an apply task"},
            ),
        ),
    ),
    Command(
        "erasure verify",
        "compare the certificate of an erasure with the ledger",
        "erasure:verify",
        (
            _OUTPUT,
            Argument(("file",), {"metavar": "FILE", "help": "the certificate, JSON or HTML"}),
            Argument(
                ("--account",),
                {"action": "store_true", "help": "also look for the erased objects in the account"},
            ),
        ),
    ),
)


def make_parser(commands: Iterable[Command] = COMMANDS) -> argparse.ArgumentParser:
    """Return a parser whose result has the chosen :class:`Command` as ``command``."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=f"{EXIT_CODES} {SANDBOX}",
    )
    root = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    groups = {}
    for command in commands:
        group, _, name = command.name.rpartition(" ")
        if group and group not in groups:
            groups[group] = root.add_parser(group, help=GROUPS[group]).add_subparsers(
                title="commands", metavar="COMMAND", required=True
            )
        parent = groups[group] if group else root
        sentence = f"{command.help[0].upper()}{command.help[1:]}."
        subparser = parent.add_parser(name, help=command.help, description=sentence)
        subparser.set_defaults(command=command)
        for argument in command.arguments:
            subparser.add_argument(*argument.flags, **argument.options)
    return parser
