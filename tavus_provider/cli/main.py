"""Run a command, and return its exit code."""

from __future__ import annotations

from collections.abc import Sequence

from tavus_provider.cli.commands import Command, make_parser
from tavus_provider.cli.output import FAILED, PROBLEMS, write_error
from tavus_provider.exceptions import PlanRejectedError, TavusError, TavusInvalidResponseError


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command. An error is one line on stderr.

    :param arguments: the arguments after the program; default: those of the process
    :returns: 0 for success, 1 if a problem was found, 2 if the command could not do its work
    :raises SystemExit: after ``--help`` (0), and for invalid arguments (2)
    """
    parsed = make_parser().parse_args(arguments)
    command: Command = parsed.command
    try:
        return command.load()(parsed)
    except (TavusInvalidResponseError, PlanRejectedError) as error:
        message, code = f"a run would stop: {error}", PROBLEMS
    except TavusError as error:
        message, code = str(error), FAILED
    write_error(message)
    return code
