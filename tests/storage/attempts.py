"""Write complete attempts for the tests of the ledger, and read their files."""

from __future__ import annotations

from tavus_provider.storage.ledger import job_name

ORIGIN = "https://tavusapi.com"
JOB = job_name("plan", "d" * 64)


def record_attempt(ledger, *, job=JOB, ids=("r1", "r2"), **fields):
    """Write an attempt with five records: begin, two outcomes, a verification, the end."""
    prior = {attempt.name: attempt.last_digest for attempt in ledger.attempts(job)}
    writer = ledger.begin_attempt(job, hard=False, intent=list(ids), prior_attempts=prior, **fields)
    for replica_id in ids:
        writer.write("outcome", outcomes={replica_id: "deleted"})
    writer.write("verification", listed=7)
    writer.close(outcomes=dict.fromkeys(ids, "deleted"))
    return writer


def record_files(writer):
    return sorted(writer.folder.iterdir(), key=lambda path: path.name)
