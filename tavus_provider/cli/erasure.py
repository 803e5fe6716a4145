"""The commands for erasures: verify."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tavus_provider.cli.output import MAX_LINE, PROBLEMS, SUCCESS, print_data, write_error, write_line
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    import argparse

    from tavus_provider.planning.certificate import Certificate


def verify(arguments: argparse.Namespace) -> int:
    """Print one line for each difference between a certificate and the ledger, or the account."""
    from tavus_provider.storage.certificates import compare_file, find_certificate, is_page

    data = _read(arguments.file)
    if arguments.account and is_page(data):
        raise TavusValidationError(f"{arguments.file}: --account needs the JSON of the certificate")
    findings = compare_file(data)
    if arguments.account and (certificate := find_certificate(data)) is not None:
        findings += _compare_account(certificate)
    if arguments.output == "table":
        for finding in findings:
            write_line(escape_line(finding, MAX_LINE))
        count = f"{len(findings):,} finding{'s' * (len(findings) != 1)}"
        write_error(f"{count} in {arguments.file}")
    else:
        print_data(findings, output=arguments.output)
    return PROBLEMS if findings else SUCCESS


def _compare_account(certificate: Certificate) -> list[str]:
    """Look for the erased objects in the account, as an apply task does after its deletes."""
    # As Airflow's own commands do, so that connections in its database are found.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from tavus_provider.execution.sweep import Sweep, ask_for
    from tavus_provider.hooks.tavus import TavusHook
    from tavus_provider.keys import Kind, parse_key
    from tavus_provider.planning.certificate import erased_keys

    keys = erased_keys(certificate)
    others = {item["key"] for item in certificate["items"]}.difference(keys) | set(certificate["left"])
    replicas = frozenset(key for key in keys if parse_key(key)[0] is Kind.REPLICA)
    with TavusHook(certificate["tavus_conn_id"]) as hook:
        if hook.origin != certificate["origin"]:
            raise TavusValidationError(
                f"the certificate is about {certificate['origin']}, but the connection "
                f"{certificate['tavus_conn_id']!a} points to {hook.origin}"
            )
        answers = ask_for(hook, keys, concurrency=hook.client.options.concurrency)
        sweep = Sweep.of(hook, keys=frozenset(keys), replica_ids=replicas)
    findings = [
        f"{key}: Tavus returns it" if answer.item is not None else f"{key}: {answer.error}"
        for key, answer in answers.items()
        if not answer.is_missing
    ]
    findings += [f"the list of {name}s cannot be read: {error}" for name, error in sweep.errors.items()]
    findings += [
        f"{key}: is listed" if key in keys else f"{key}: was made with an erased replica"
        for key in sorted(sweep.items.keys() - others)
    ]
    return findings


def _read(file: str) -> bytes:
    from tavus_provider.storage.object_storage import StorageError, read_bytes, resolve

    try:
        return read_bytes(resolve(file, base=os.getcwd()))
    except StorageError as error:
        reason = error.reason
    raise TavusValidationError(f"{file}: cannot be read ({reason})")
