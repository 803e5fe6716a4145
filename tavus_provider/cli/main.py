"""Run a command, and return its exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tavus_provider.cli.commands import Command, make_parser
from tavus_provider.cli.output import FAILED, PROBLEMS, write_error
from tavus_provider.exceptions import PlanRejectedError, TavusError, TavusInvalidResponseError

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command. An error is one line on stderr.

    :param arguments: the arguments after the program; default: those of the process
    :returns: 0 for success, 1 if a problem was found, 2 if the command could not do its work
    :raises SystemExit: after ``--help`` (0), and for invalid arguments (2)
    """
    parsed = make_parser().parse_args(arguments)
    return run(parsed.command, parsed)


def run(command: Command, arguments: argparse.Namespace) -> int:
    """
    Run a command with parsed arguments. An error is one line on stderr.

    :returns: 0 for success, 1 if a problem was found, 2 if the command could not do its work
    """
    # As Airflow's own commands do, before Airflow is imported, so that connections in its database are found.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        return command.load()(arguments)
    except (TavusInvalidResponseError, PlanRejectedError) as error:
        message, code = f"a run would stop: {error}", PROBLEMS
    except TavusError as error:
        message, code = str(error), FAILED
    write_error(message)
    return code
