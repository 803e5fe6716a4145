"""
The commands as ``airflow tavus ...``, made from the same table as ``python -m tavus_provider``.

Airflow 3.2 and later read this from the entry ``cli`` of the provider; earlier ones ignore it. Airflow calls
it for every one of its commands, so it imports nothing that is heavy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from tavus_provider.cli.commands import COMMANDS, DESCRIPTION, EXIT_CODES, GROUPS, Command
from tavus_provider.cli.main import run

if TYPE_CHECKING:
    import argparse

    from airflow.cli.cli_config import ActionCommand, CLICommand


def get_commands() -> list[CLICommand]:
    """Return the group ``tavus`` for Airflow's own parser."""
    from airflow.cli.cli_config import GroupCommand

    groups: dict[str, list[ActionCommand]] = {}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        groups.setdefault(group, []).append(_to_airflow(command, name))
    single = groups.pop("", [])
    return [
        GroupCommand(
            name="tavus",
            help="Check retention policies for Tavus replicas, and the ledger",
            description=DESCRIPTION,
            epilog=EXIT_CODES,
            subcommands=[
                *single,
                *(
                    GroupCommand(name=group, help=GROUPS[group], subcommands=members)
                    for group, members in groups.items()
                ),
            ],
        )
    ]


def _to_airflow(command: Command, name: str) -> ActionCommand:
    from airflow.cli.cli_config import ActionCommand, Arg

    return ActionCommand(
        name=name,
        help=command.help,
        func=_runner(command),
        args=[
            Arg(argument.flags, **argument.options)  # type: ignore[no-untyped-call]  # by Airflow
            for argument in command.arguments
        ],
    )


def _runner(command: Command) -> Callable[[argparse.Namespace], None]:
    def run_command(arguments: argparse.Namespace) -> None:
        if code := run(command, arguments):
            sys.exit(code)

    return run_command
