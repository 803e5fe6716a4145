"""Find missing and changed records in a ledger, and compare a report with the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_digest
from tavus_provider.storage.ledger import Attempt, list_jobs, read_attempts


def verify(root: ObjectStoragePath) -> tuple[list[Attempt], list[str]]:
    """
    Read all attempts of all accounts and look for signs of tampering.

    :param root: the root of the ledger
    :returns: the attempts in the order in which they started, and one sentence for each finding
    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    attempts = read_attempts(root, list_jobs(root))
    references = {
        reference
        for attempt in attempts
        for reference in attempt.begin_record.get("prior_attempts", {}).items()
    }
    # An attempt that was still running when a later one read it has more records now, so the reference
    # may name any of its digests.
    digests = {
        attempt.name: {None, *(record["digest"] for record in attempt.records)} for attempt in attempts
    }
    findings = [f"{attempt.name} {flaw}" for attempt in attempts for flaw in attempt.flaws]
    findings += [
        f"{attempt.name} is not closed: it is still running, was stopped, or its last records were removed"
        for attempt in attempts
        if not attempt.is_closed and (attempt.name, attempt.last_digest) not in references
    ]
    for name, digest in sorted(references, key=str):
        if name not in digests:
            findings.append(f"{name} is missing, but a later attempt refers to it")
        elif digest not in digests[name]:
            findings.append(f"{name} ends differently than when a later attempt read it")
    return attempts, findings


def compare_report(attempts: Iterable[Attempt], report: Mapping[str, Any]) -> list[str]:
    """
    Compare a report with the attempt that it refers to, or the report of a whole plan with all attempts.

    :param attempts: in the order in which they started
    :param report: the XCom ``return_value`` of an apply or summary task
    :returns: one sentence for each id whose outcomes differ. If none differ, one sentence if the report is
        not the one whose digest was recorded.
    """
    name = report.get("ledger")
    recorded_by = [attempt for attempt in attempts if name and f"{attempt.name}/".startswith(f"{name}/")]
    if not recorded_by:
        return [f"the ledger has no attempt {name!r}, which the report refers to"]
    reported = {item["replica_id"]: item["outcome"] for item in report["items"]}
    recorded = {
        replica_id: outcome for attempt in recorded_by for replica_id, outcome in attempt.outcomes.items()
    }
    if report.get("items_left_out"):
        recorded = {replica_id: recorded[replica_id] for replica_id in recorded.keys() & reported.keys()}
    differences = [
        f"{replica_id}: {reported.get(replica_id, 'missing')} in the report, "
        f"{recorded.get(replica_id, 'missing')} in the ledger"
        for replica_id in sorted(reported.keys() | recorded.keys())
        if reported.get(replica_id) != recorded.get(replica_id)
    ]
    closed = [attempt for attempt in recorded_by if attempt.name == name and attempt.is_closed]
    digest = canonical_digest(report)
    if not differences and any(attempt.records[-1].get("report_digest") != digest for attempt in closed):
        return ["the report is not the one that was recorded when its attempt ended"]
    return differences
