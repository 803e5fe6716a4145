"""The commands for the ledger: show and verify."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tavus_provider.cli.output import (
    MAX_LINE,
    PROBLEMS,
    SUCCESS,
    print_csv,
    print_data,
    print_rich,
    write_error,
    write_line,
)
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    import argparse


def show(arguments: argparse.Namespace) -> int:
    """Print one row for each replica that a task deleted or was about to delete."""
    from tavus_provider.rendering.recorded_deletes import deletes_table
    from tavus_provider.storage.attempts import read_attempts
    from tavus_provider.storage.ledger import ledger_root, list_jobs
    from tavus_provider.storage.object_storage import redact
    from tavus_provider.storage.recorded_deletes import DeleteFilter, RecordedDelete, list_deletes

    root = ledger_root()
    attempts = read_attempts(root, list_jobs(root))
    if not attempts:
        raise _no_ledger(redact(root))
    dag_id, run_id = arguments.run or (None, None)
    wanted = DeleteFilter(
        replica_id=arguments.replica,
        dag_id=dag_id,
        run_id=run_id,
        person=arguments.person,
        since=arguments.since,
        until=arguments.until,
    )
    rows = list(filter(wanted.accepts, list_deletes(attempts)))
    if damaged := sum(bool(attempt.flaws) for attempt in attempts):
        write_error(
            f"warning: {damaged:,} attempt{'s' * (damaged != 1)} with changed or missing records: run ledger "
            "verify"
        )
    if not rows:
        write_error(f"no records of deletes match at {redact(root)}")
    if arguments.output == "json":
        print_data(rows, output="json")
    elif arguments.output == "csv":
        print_csv(rows, columns=list(RecordedDelete.__annotations__))
    elif rows:
        print_rich(deletes_table(rows))
    return SUCCESS


def verify(arguments: argparse.Namespace) -> int:
    """Print one line for each sign that records were changed, removed or reordered."""
    from tavus_provider.storage.ledger import ledger_root
    from tavus_provider.storage.ledger_verify import compare_report
    from tavus_provider.storage.ledger_verify import verify as verify_ledger
    from tavus_provider.storage.object_storage import redact

    report = None if arguments.report is None else _read_report(arguments.report)
    root = ledger_root()
    attempts, findings = verify_ledger(root, now=datetime.now(UTC))
    if not attempts:
        raise _no_ledger(redact(root))
    if report is not None:
        findings += compare_report(attempts, report)
    if arguments.output == "table":
        for finding in findings:
            write_line(escape_line(finding, MAX_LINE))
        count = f"{len(findings):,} finding{'s' * (len(findings) != 1)}"
        write_error(f"{count} in {len(attempts):,} attempt{'s' * (len(attempts) != 1)} at {redact(root)}")
    else:
        print_data(findings, output=arguments.output)
    return PROBLEMS if findings else SUCCESS


def _no_ledger(location: str) -> TavusValidationError:
    return TavusValidationError(
        f"no ledger at {location}: no attempt is recorded there; check ledger in section [tavus]"
    )


def _read_report(file: str) -> dict[str, Any]:
    """
    Read the report of an apply task, as JSON.

    :raises TavusValidationError: if it cannot be read or is not a report
    """
    try:
        report = json.loads(Path(file).read_text(encoding="utf-8"))
        if all({"replica_id", "outcome"} <= item.keys() for item in report["items"]):
            return dict(report)
    except OSError as error:
        raise TavusValidationError(
            f"{file}: cannot be read ({error.strerror or type(error).__name__})"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise TavusValidationError(
        f"{file}: is not the report of an apply task; expected the JSON of its XCom return_value"
    )
