"""What the commands print, write and return."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    from rich.console import RenderableType

SUCCESS: Final = 0
PROBLEMS: Final = 1
"""Exit code if the command worked and found a problem, such as an invalid policy or a changed record."""
FAILED: Final = 2
"""Exit code if the command could not do its work."""

MAX_LINE: Final = 1_000
"""Maximum length of a line of text from outside, in characters."""


def write_line(line: str) -> None:
    """Write a line to stdout, as it is."""
    with _writing_to_stdout():
        sys.stdout.write(f"{line}\n")


def write_error(message: str) -> None:
    """Write a message to stderr, as one line."""
    sys.stderr.write(f"{escape_line(message, MAX_LINE)}\n")


def print_rich(*parts: RenderableType) -> None:
    """Print tables and text to stdout, as wide as the terminal."""
    console = _console()
    with _writing_to_stdout():
        for part in parts:
            console.print(part)


def print_data(data: Any, *, output: str) -> None:
    """
    Print plain data to stdout.

    :param output: ``json`` or ``yaml``
    """
    console = _console()
    with _writing_to_stdout():
        if output == "json":
            console.print_as_json(data)
        else:
            console.print_as_yaml(data)


def print_csv(rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str]) -> None:
    """
    Print rows as CSV with a header to stdout. What is ``None`` is empty.

    Text that a spreadsheet would take as a formula begins with an apostrophe.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _csv_cell(value) for name, value in row.items()})
    with _writing_to_stdout():
        sys.stdout.write(file.getvalue())


def _csv_cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def write_file(file: str, text: str, *, private: bool = False) -> None:
    """
    Write a text file.

    :param private: whether only the user may read it
    :raises TavusValidationError: if it cannot be written
    """
    try:
        if private:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                os.fchmod(out.fileno(), 0o600)  # of a file that existed, before the text is in it
                out.write(text.encode("utf-8"))
        else:
            Path(file).write_text(text, encoding="utf-8")
        return
    except OSError as error:
        fault = error.strerror or type(error).__name__
    raise TavusValidationError(f"{file}: cannot be written ({fault})")


@contextlib.contextmanager
def _writing_to_stdout() -> Iterator[None]:
    """
    Write what the block prints to stdout. A reader that has closed the pipe is not an error.

    :raises TavusValidationError: if stdout cannot be written, because a disk is full for example
    """
    if sys.stdout is None:
        raise TavusValidationError("stdout cannot be written (it is closed)")
    try:
        yield
        sys.stdout.flush()
        return
    except OSError as error:
        # What is still in the buffer would be written at the end of the process, and fail again.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return
        fault = error.strerror or type(error).__name__
    raise TavusValidationError(f"stdout cannot be written ({fault})")


def _console() -> Any:
    from airflow.cli.simple_table import AirflowConsole

    class Console(AirflowConsole):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich itself would end the process, with exit code 1

    return Console(highlight=False)
