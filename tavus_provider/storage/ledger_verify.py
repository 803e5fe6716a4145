"""Find missing and changed records in a ledger, and compare a report with the ledger."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_digest, canonical_json, digest_of
from tavus_provider.storage.attempts import (
    Attempt,
    format_start,
    head_of,
    list_folder,
    list_folders,
    read_attempts,
    read_files,
)
from tavus_provider.storage.certificates import find_changed_certificates
from tavus_provider.storage.checkpoints import (
    INDEX_FOLDER,
    WINDOW,
    Checkpoint,
    is_checkpoint,
    load_checkpoint,
    pointed_attempt,
    pointer_path,
)
from tavus_provider.storage.deletions import Deletions
from tavus_provider.storage.ledger import PLANS_FOLDER, list_accounts, list_jobs

Reference = tuple[str, str | None]
"""Name of an attempt or checkpoint, and the digest of its last record as another record names it."""


def verify(root: ObjectStoragePath, *, now: datetime | None = None) -> tuple[list[Attempt], list[str]]:
    """
    Read all attempts of all accounts and look for signs of tampering.

    :param root: the root of the ledger
    :param now: the current time, to find checkpoints that are in the future; default: these are not found
    :returns: the attempts in the order in which they started, and one sentence for each finding
    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    attempts = read_attempts(root, list_jobs(root))
    indexes = [_Index.read(root, account) for account in list_accounts(root)]
    pointed = {name for index in indexes for name in index.pointed}
    checkpoints = [checkpoint for index in indexes for checkpoint in index.checkpoints]
    settling = set(_references(attempts, "prior_attempts"))
    references = {*settling, *_references(attempts, "seen"), *_checkpoint_references(checkpoints)}
    # An attempt that was still running when a later one read it has more records now, so the reference
    # may name any of its digests.
    digests: dict[str, set[str | None]] = {
        attempt.name: {None, *(record["digest"] for record in attempt.records)} for attempt in attempts
    }
    digests |= {checkpoint.name: {checkpoint.digest} for checkpoint in checkpoints}
    findings = [f"{attempt.name} {flaw}" for attempt in attempts for flaw in attempt.flaws]
    findings += [
        f"{attempt.name} is not closed: it is still running, was stopped, or its last records were removed"
        for attempt in attempts
        if not attempt.is_closed and (attempt.name, attempt.last_digest) not in settling
    ]
    findings += [
        f"{attempt.name} has another number of records than its end says"
        for attempt in attempts
        if attempt.is_closed and attempt.records[-1]["records"] != len(attempt.records)
    ]
    findings += _find_misplaced(attempts, pointed)
    known = {attempt.name for attempt in attempts} | {name for name, _ in references}
    findings += [
        f"{name} has no record: it was stopped before its first one, or was removed"
        for name in sorted(pointed - known)
    ]
    for name, digest in sorted(references, key=str):
        if name not in digests:
            if digest is not None or name not in pointed:
                findings.append(f"{name} is missing, but a later attempt refers to it")
        elif digest not in digests[name]:
            findings.append(f"{name} ends differently than when a later attempt read it")
    if now is not None:
        latest = format_start(now + WINDOW)
        future = [checkpoint.name for checkpoint in checkpoints if checkpoint.until > latest]
        findings += [
            f"{name} is in the future: it was changed, or the clock of a worker was wrong" for name in future
        ]
    for index in indexes:
        findings += index.findings
        findings += index.find_overlooked(attempt.name for attempt in attempts)
        findings += _find_wrong_checkpoints(index, [one for one in attempts if index.has(one.name)])
    return attempts, [*findings, *_find_changed_plans(root, attempts), *find_changed_certificates(root)]


class _Index:
    """
    The index of one account.

    :param folder: the folder of the account
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.pointed: set[str] = set()
        self.checkpoints: list[Checkpoint] = []
        self.findings: list[str] = []

    @classmethod
    def read(cls, root: ObjectStoragePath, folder: str) -> _Index:
        index = cls(folder)
        months = [
            f"{folder}/{INDEX_FOLDER}/{month}" for month in list_folder(root, f"{folder}/{INDEX_FOLDER}")
        ]
        listed = zip(months, list_folders(root, months), strict=True)
        paths = [f"{month}/{file}" for month, files in listed for file in files]
        contents = read_files(root, [path for path in paths if not is_checkpoint(path.rpartition("/")[2])])
        for path in paths:
            file = path.rpartition("/")[2]
            if is_checkpoint(file):
                checkpoint, fault = load_checkpoint(root, path)
                if checkpoint is None:
                    index.findings.append(f"{path} {fault}")
                else:
                    index.checkpoints.append(checkpoint)
                continue
            name = pointed_attempt(folder, file)
            if name is None:
                index.findings.append(f"{path} is neither a pointer nor a checkpoint")
                continue
            index.pointed.add(name)
            job, stem = name.rsplit("/", 2)[1:]
            if contents[path] != name.encode() or path != pointer_path(folder, stem=stem, job=job):
                index.findings.append(f"{path} was changed or moved, or was not written completely")
        index.checkpoints.sort(key=lambda checkpoint: (checkpoint.until, checkpoint.name))
        return index

    def find_overlooked(self, names: Iterable[str]) -> Iterator[str]:
        """Yield one sentence for each attempt without a pointer that no checkpoint covers."""
        if not self.checkpoints:
            return  # then all folders are read
        seen = self.pointed.union(*(one.record["heads"] for one in self.checkpoints))
        seen = seen.union(*(one.record["open"] for one in self.checkpoints))
        for name in names:
            if self.has(name) and name not in seen:
                yield (
                    f"{name} is overlooked by runs: it has no pointer in the index. If a worker with an "
                    "earlier release wrote it, remove the checkpoints of the account, so that everything is "
                    "read again"
                )

    def has(self, name: str) -> bool:
        """Return whether an attempt is of this account."""
        return name.startswith(f"{self.folder}/")


def _references(attempts: Iterable[Attempt], key: str) -> Iterator[Reference]:
    for attempt in attempts:
        yield from attempt.begin_record.get(key, {}).items()


def _checkpoint_references(checkpoints: Iterable[Checkpoint]) -> Iterator[Reference]:
    for checkpoint in checkpoints:
        yield from checkpoint.record["heads"].items()
        yield from checkpoint.record["seen"].items()


def _find_misplaced(attempts: Iterable[Attempt], pointed: set[str]) -> Iterator[str]:
    for attempt in attempts:
        # Records of earlier releases have no name, and no pointer.
        name = attempt.begin_record.get("attempt")
        if name is not None and name != attempt.name:
            yield f"{attempt.name} has the records of {name}: it was copied or moved"
        if name is not None and attempt.name not in pointed:
            yield f"{attempt.name} has no pointer in the index: it was removed, or the attempt was added"


def _find_wrong_checkpoints(index: _Index, attempts: Sequence[Attempt]) -> Iterator[str]:
    """Compare each checkpoint with all attempts that it covers."""
    by_name = {attempt.name: attempt for attempt in attempts}
    names = by_name.keys() | index.pointed
    states: dict[str, tuple[frozenset[str], Deletions]] = {"": (frozenset(), Deletions())}
    for checkpoint in index.checkpoints:
        record = checkpoint.record
        covered = frozenset(filter(checkpoint.covers, names))
        before, deletions = states.get(next(iter(record["seen"]), ""), states[""])
        new = sorted(covered - before, key=lambda name: name.rpartition("/")[2])
        if not before <= covered:  # an attempt that was covered before is open again
            yield f"{checkpoint.name} does not cover what the checkpoint before it covers"
        if set(new) != record["heads"].keys():
            yield (
                f"{checkpoint.name} does not name the attempts that it covers: it was changed, or one was "
                "added or removed"
            )
        deletions = deletions.followed_by(by_name[name] for name in new if name in by_name)
        states[checkpoint.name] = (covered, deletions)
        if deletions != checkpoint.deletions:
            yield f"{checkpoint.name} does not agree with the records of the attempts that it covers"
        last: defaultdict[str, str] = defaultdict(str)
        for name in covered & by_name.keys():
            job = by_name[name].job.rpartition("/")[2]
            if job.startswith("schedule-") and (by_name[name].records or by_name[name].flaws):
                last[job] = max(last[job], name)
        if last != record["schedules"]:
            yield f"{checkpoint.name} names other attempts than the last ones of the schedules"


def _find_changed_plans(root: ObjectStoragePath, attempts: Iterable[Attempt]) -> Iterator[str]:
    """
    Compare each stored plan and text with the digest in its name, and what is stored beside a plan with the
    digest in the record of the plan. A file that is missing is no finding.
    """
    recorded: defaultdict[str, set[str]] = defaultdict(set)
    for record in (attempt.begin_record for attempt in attempts):
        for name, digest in record.get("beside", {}).items():
            recorded[f"{record.get('plan_digest')}.{name}"].add(digest)
    paths = [f"{PLANS_FOLDER}/{file}" for file in list_folder(root, PLANS_FOLDER)]
    for start in range(0, len(paths), 16):  # they can be large
        for path, data in read_files(root, paths[start : start + 16]).items():
            file = path.rpartition("/")[2]
            if not _is_stored_under(file, data):
                yield f"{path} was changed, or was not written completely"
            elif file in recorded and sha256(data).hexdigest() not in recorded[file]:
                yield f"{path} is not the file that was stored with the plan: it was changed or replaced"


def _is_stored_under(file: str, data: bytes) -> bool:
    if match := re.fullmatch(r"[0-9a-f]{64}\.([0-9a-f]{64})\.md", file):
        return sha256(data).hexdigest() == match[1]
    match = re.fullmatch(r"([0-9a-f]{64})(\.use|\.verdicts)?\.json", file)
    try:
        value = json.loads(data)
        if match is None or not isinstance(value, dict) or canonical_json(value) != data:
            return False
    except (ValueError, RecursionError):
        return False
    if match[2] == ".verdicts":
        return True
    if value.get("digest") != digest_of(value):
        return False
    return bool(value.get("plan_digest" if match[2] else "digest") == match[1])


def compare_report(attempts: Iterable[Attempt], report: Mapping[str, Any]) -> list[str]:
    """
    Compare a report with the attempt that it refers to, or the report of a whole plan with all attempts.

    :param attempts: in the order in which they started
    :param report: the XCom ``return_value`` of an apply or summary task
    :returns: one sentence for each id whose outcomes differ, and one if the ledger has other records than
        when the report was made. If nothing differs, one sentence if the report is not the one whose digest
        was recorded.
    """
    name, head = report.get("ledger"), report.get("ledger_head")
    attempts = list(attempts)
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
    if head is not None and head not in _heads(recorded_by, name):
        differences.append(f"the records of {name} are not those that the report was made from")
    if not differences and any(attempt.records[-1].get("report_digest") != digest for attempt in closed):
        return ["the report is not the one that was recorded when its attempt ended"]
    return differences


def _heads(attempts: Sequence[Attempt], name: object) -> set[str | None]:
    """Return what a report about an attempt, or about a job, could have named as its head."""
    if any(attempt.name == name for attempt in attempts):
        return {record["digest"] for attempt in attempts for record in attempt.records}
    return {head_of(attempts[:count]) for count in range(1, len(attempts) + 1)}
