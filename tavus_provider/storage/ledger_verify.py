"""Check the ledger for missing or changed records, and compare a report with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_digest
from tavus_provider.storage.ledger import PLANS, Attempt, list_names, read_attempts

_NOT_CLOSED = "is not closed: it is still running, was stopped, or its last records were removed"


def verify(root: ObjectStoragePath) -> tuple[list[Attempt], list[str]]:
    """
    Read the whole ledger.

    :returns: all tries, and one sentence for each sign that a record is missing or is not as it was written
    :raises LedgerUnavailableError: if it could not be read
    """
    hosts = [name for name in list_names(root) if name != PLANS]
    accounts = [f"{host}/{account}" for host in hosts for account in list_names(root / host)]
    works = [f"{account}/{work}" for account in accounts for work in list_names(root / account)]
    tries = read_attempts(root, works)
    named = {pair for one in tries for pair in one.begin_record.get("prior_attempts", {}).items()}
    # A try that was under way when a later one read it has gone on since, so any of its digests will do.
    has = {one.name: {None, *(record["digest"] for record in one.records)} for one in tries}
    findings = [f"{one.name} {flaw}" for one in tries for flaw in one.flaws]
    findings += [
        f"{one.name} {_NOT_CLOSED}"
        for one in tries
        if not one.closed and (one.name, one.last_digest) not in named
    ]
    for name, digest in sorted(named, key=str):
        if name not in has:
            findings.append(f"{name} is missing, a later try names it")
        elif digest not in has[name]:
            findings.append(f"{name} does not end as it did when a later try read it")
    return tries, findings


def compare_report(tries: Iterable[Attempt], report: Mapping[str, Any]) -> list[str]:
    """
    Hold a report against the try that it names, or the report of all batches against the tries of its work.

    :param tries: in the order in which they began
    :param report: the XCom ``return_value`` of an apply or a summary task
    :returns: one sentence for each id of which the two say different things, or one if it is not the report
        that was recorded
    """
    name = report.get("ledger")
    named = [one for one in tries if name and f"{one.name}/".startswith(f"{name}/")]
    if not named:
        return [f"the try {name!r} which the report names is not in the ledger"]
    reported = {item["replica_id"]: item["outcome"] for item in report["items"]}
    recorded = {replica_id: outcome for one in named for replica_id, outcome in one.outcomes.items()}
    if report.get("items_left_out"):
        recorded = {replica_id: recorded[replica_id] for replica_id in recorded.keys() & reported.keys()}
    found = [
        f"{replica_id}: the report says {reported.get(replica_id, 'nothing')}, "
        f"the ledger {recorded.get(replica_id, 'nothing')}"
        for replica_id in sorted(reported.keys() | recorded.keys())
        if reported.get(replica_id) != recorded.get(replica_id)
    ]
    of_one = [one for one in named if one.name == name and one.closed]
    if not found and any(one.records[-1].get("report_digest") != canonical_digest(report) for one in of_one):
        found = ["the report is not the one that was recorded when its try ended"]
    return found
