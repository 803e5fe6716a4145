"""The commands for the ledger: verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tavus_provider.cli.output import MAX_LINE, PROBLEMS, SUCCESS, print_data, write_error, write_line
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    import argparse


def verify(arguments: argparse.Namespace) -> int:
    """Print one line for each sign that records were changed, removed or reordered."""
    from tavus_provider.storage.ledger import ledger_root
    from tavus_provider.storage.ledger_verify import compare_report
    from tavus_provider.storage.ledger_verify import verify as verify_ledger
    from tavus_provider.storage.object_storage import redact

    report = None if arguments.report is None else _read_report(arguments.report)
    root = ledger_root()
    attempts, findings = verify_ledger(root)
    if not attempts:
        raise TavusValidationError(
            f"no ledger at {redact(root)}: no attempt is recorded there; check ledger in section [tavus]"
        )
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
