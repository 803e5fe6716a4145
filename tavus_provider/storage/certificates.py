"""
Certificates of erasures: made from the ledger, stored beside it, and compared with it.

They lie in ``_certificates/<request>/<number>.json`` and ``.html`` in the root of the ledger. No file is ever
written twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from airflow.sdk import ObjectStoragePath

from tavus_provider.exceptions import LedgerUnavailableError, PlanRejectedError, TavusValidationError
from tavus_provider.planning.certificate import (
    Approval,
    Certificate,
    Evidence,
    check_certificate,
    encode_certificate,
    make_certificate,
)
from tavus_provider.planning.erasure import ErasurePlan, verify_erasure_digest
from tavus_provider.planning.erasure_request import check_reference
from tavus_provider.storage.attempts import list_folder, list_folders, read_attempts, read_files
from tavus_provider.storage.authority import APPROVE, RunAuthority
from tavus_provider.storage.erasures import RequestHistory, find_held, find_look
from tavus_provider.storage.ledger import (
    CERTIFICATES_FOLDER,
    Ledger,
    ledger_root,
    list_jobs,
)
from tavus_provider.storage.object_storage import StorageError, list_names, redact, write_once
from tavus_provider.storage.plan_store import load

MAX_TRIES: Final = 20
"""How many numbers are tried if other tasks make certificates of the same request at the same time."""

_UNRECORDED: Final = (
    "the ledger has no record of this {0}: the {0} or the record was changed or removed, or the certify task "
    "has not recorded it. See the log of that task: if it was stopped before, clear it or trigger a new run "
    "of the request, unless there is a later certificate, and delete this file"
)


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """
    A certificate that was stored.

    :param location: the location of the JSON, for people to read; the page lies beside it
    :param page_digest: SHA-256 of the page
    """

    certificate: Certificate
    location: str
    page_digest: str


def gather_evidence(
    ledger: Ledger, plan: ErasurePlan, *, only: Mapping[str, str | None] | None = None
) -> Evidence:
    """
    Return what the ledger has about the request of a plan.

    :param only: names of the attempts to use; default: all
    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    history = RequestHistory(ledger, plan["request"], only=only)
    heads = history.heads | {attempt.name: attempt.last_digest for attempt in history.deleting}
    approvals: list[Approval] = []
    for record in history.requested:
        authority = RunAuthority(ledger, task=record)
        answer = authority.find_answer(record["plan_digest"])
        heads |= authority.heads
        if answer is not None and answer["answer"] == APPROVE:
            approvals.append(
                {
                    "plan_digest": answer["plan_digest"],
                    "shown_digest": answer["shown_digest"],
                    "approved_by": answer["answered_by"],
                    "approved_at": answer["answered_at"],
                }
            )
    if only is not None:
        heads = {name: digest for name, digest in heads.items() if name in only}
    return Evidence(
        outcomes=history.outcomes,
        accepted=history.accepted,
        held=find_held(history.deleting, plan_digest=plan["digest"]),
        look=find_look(history.deleting, plan_digest=plan["digest"]),
        approvals=approvals,
        earlier_plans=[digest for digest in history.plan_digests if digest != plan["digest"]],
        ledger=heads,
    )


def store_certificate(
    make: Callable[[int], Certificate], *, request: str, render: Callable[[Certificate], str]
) -> StoredCertificate:
    """
    Make a certificate with the next free number of its request, and store it as JSON and as a page.

    :param make: returns the certificate, given its number
    :param render: returns the page of a certificate
    :raises LedgerUnavailableError: if it cannot be stored
    """
    folder = ledger_root() / CERTIFICATES_FOLDER / check_reference(request)
    fault = StorageError(redact(folder), "other tasks make certificates of this request all the time")
    for _ in range(MAX_TRIES):
        try:
            numbers = [int(name[:-5]) for name in list_names(folder) if re.fullmatch(r"[1-9]\d*\.json", name)]
            certificate = make(max(numbers, default=0) + 1)
            page = render(certificate).encode()
            path = folder / f"{certificate['number']}.json"
            write_once(path, encode_certificate(certificate))
            write_once(folder / f"{certificate['number']}.html", page)
        except StorageError as error:
            fault = error
            if not error.exists:
                break
        else:
            return StoredCertificate(certificate, redact(path), sha256(page).hexdigest())
    raise LedgerUnavailableError(
        f"the certificate cannot be stored at {fault.location!a} ({fault.reason}): set ledger in section "
        "tavus of the configuration to a location that all workers share"
    )


def parse_certificate(data: bytes) -> Certificate:
    """
    Return the certificate in a file.

    :raises TavusValidationError: if the file is not one, or was changed
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if value is None:
        raise TavusValidationError("is not JSON: it is not a certificate, or it was changed")
    certificate = check_certificate(value)
    if encode_certificate(certificate) != data:
        raise TavusValidationError(
            "is not the file that was stored: it was changed, or written by another program. Take the file "
            "from the folder of the ledger"
        )
    return certificate


def find_certificate(data: bytes) -> Certificate | None:
    """Return the certificate in a file, or ``None`` if it is not one or was changed."""
    try:
        return parse_certificate(data)
    except TavusValidationError:
        return None


def compare_file(data: bytes, *, root: ObjectStoragePath | None = None) -> list[str]:
    """
    Compare the JSON or the HTML page of a certificate with the ledger.

    :param data: the content of the file
    :param root: the root of the ledger; default: as configured
    :returns: one sentence for each difference
    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    root = root or ledger_root()
    if is_page(data):
        return _compare_page(data, _find_places(_read_certified(root)))
    try:
        certificate = parse_certificate(data)
    except TavusValidationError as error:
        return [str(error)]
    return compare_certificate(certificate, root=root)


def is_page(data: bytes) -> bool:
    """Return whether a file is the HTML page of a certificate, and not its JSON."""
    return data.lstrip()[:1] == b"<"


def find_changed_certificates(root: ObjectStoragePath) -> Iterator[str]:
    """
    Compare all stored certificates with the ledger, as :func:`compare_file` does, and look for missing ones.

    :param root: the root of the ledger
    :returns: one sentence for each difference, which begins with the path of the file
    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    folders = [f"{CERTIFICATES_FOLDER}/{request}" for request in list_folder(root, CERTIFICATES_FOLDER)]
    paths = _list_paths(root, folders)
    places = _find_places(_read_certified(root))
    for path in paths:
        data = read_files(root, [path])[path]
        if is_page(data):
            place, findings = places.get(sha256(data).hexdigest()), _compare_page(data, places)
        else:
            certificate, findings = find_certificate(data), compare_file(data, root=root)
            place = None if certificate is None else places.get(certificate["digest"])
        if place is not None and place != path:
            findings = [*findings, f"was stored as {place}: it was copied or moved"]
        yield from (f"{path}: {finding}" for finding in findings)
    if missing := set(places.values()).difference(paths):
        # Another task may have stored them, and their records, after the folders were listed.
        folders = sorted({path.rpartition("/")[0] for path in missing})
        missing.difference_update(_list_paths(root, folders))
    yield from (f"{path} is missing, but the ledger has its record" for path in sorted(missing))


def _list_paths(root: ObjectStoragePath, folders: Sequence[str]) -> list[str]:
    listed = zip(folders, list_folders(root, folders), strict=True)
    return [f"{folder}/{file}" for folder, files in listed for file in files]


def compare_certificate(certificate: Certificate, *, root: ObjectStoragePath | None = None) -> list[str]:
    """
    Compare a certificate with the ledger of its account.

    :param root: the root of the ledger; default: as configured
    :returns: one sentence for each difference
    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    ledger = Ledger(certificate["origin"], certificate["tavus_conn_id"], root=root or ledger_root())
    history = RequestHistory(ledger, certificate["request"])
    findings = list(history.flaws)
    own = history.find_certificate(certificate["digest"])
    if own is None:
        findings.append(_UNRECORDED.format("certificate"))
    elif not own.is_closed:
        findings.append(
            f"{own.name} was not closed: its last record was removed, or the task was stopped while it made "
            "this certificate"
        )
    named = certificate["ledger"]
    jobs = sorted({name.rpartition("/")[0] for name in named})
    attempts = {attempt.name: attempt for attempt in read_attempts(ledger.root, jobs)}
    changed: list[str] = []
    for name, digest in named.items():
        attempt = attempts.get(name)
        if attempt is None:
            changed.append(f"{name} is missing in the ledger")
            continue
        changed += [f"{name} {flaw}" for flaw in attempt.flaws]
        if attempt.last_digest != digest:
            changed.append(f"{name} ends differently than when the certificate was made")
    made_at = datetime.fromisoformat(certificate["made_at"]).astimezone(UTC)
    findings += changed
    findings += [
        f"{name} is not in the certificate, although it began before"
        for name in sorted(attempts.keys() - named.keys())
        if name.rpartition("/")[2] < f"{made_at:%Y%m%dT%H%M%S}"
    ]
    if not changed:  # else the records cannot be trusted, and perhaps not be read
        findings += _compare_content(ledger, certificate)
    return list(dict.fromkeys(findings))


def _compare_page(data: bytes, places: Mapping[str, str]) -> list[str]:
    if sha256(data).hexdigest() in places:
        return []
    return [_UNRECORDED.format("page")]


def _read_certified(root: ObjectStoragePath) -> list[Mapping[str, Any]]:
    """Return the records of all certificates of all accounts."""
    jobs = [job for job in list_jobs(root) if job.rpartition("/")[2].startswith("erasure-")]
    attempts = [attempt for attempt in read_attempts(root, jobs) if attempt.is_final]
    return [one.begin_record for one in attempts if one.begin_record.get("kind") == "certified"]


def _find_places(certified: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the paths of certificates and pages, by the digest of the certificate and that of the page."""
    places = {}
    for record in certified:
        stem = f"{CERTIFICATES_FOLDER}/{record['request']}/{record['certificate']}"
        places[record["certificate_digest"]] = f"{stem}.json"
        places[record["page_digest"]] = f"{stem}.html"
    return places


def _compare_content(ledger: Ledger, certificate: Certificate) -> list[str]:
    """Make the certificate again from the plan and the records that it names, and compare."""
    try:
        plan = verify_erasure_digest(load(certificate["plan_digest"]))
    except LedgerUnavailableError:
        return []  # stored plans may be deleted after some time; the digests above say enough
    except PlanRejectedError as error:
        return [str(error)]
    again = make_certificate(
        plan,
        gather_evidence(ledger, plan, only=certificate["ledger"]),
        number=certificate["number"],
        run={"dag_id": certificate["dag_id"], "run_id": certificate["run_id"]},
        versions=certificate["versions"],
        made_at=datetime.fromisoformat(certificate["made_at"]),
    )
    document: Mapping[str, Any] = again
    return [
        f"{name} is not what the plan and the ledger say"
        for name, value in certificate.items()
        if name != "digest" and document.get(name) != value
    ]
