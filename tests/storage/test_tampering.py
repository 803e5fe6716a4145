"""
Single changes of a ledger are found by ``verify``, or what was changed is refused.

Each change is made by somebody who can write to the storage and knows the format: digests are made anew where
that helps. What cannot be shown is in ``EXCEPTIONS``, and in docs/ledger.md.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from airflow.sdk import ObjectStoragePath
from storage.attempts import ORIGIN

from tavus_provider.digest import canonical_digest, canonical_json, seal
from tavus_provider.exceptions import LedgerUnavailableError, PlanRejectedError
from tavus_provider.storage import attempts as attempts_module
from tavus_provider.storage import checkpoints, plan_store
from tavus_provider.storage import ledger as ledger_module
from tavus_provider.storage.ledger import Ledger, job_name
from tavus_provider.storage.ledger_verify import compare_report, verify
from tavus_provider.storage.object_storage import StorageError

HISTORIES = 20
CHANGES = 50
"""Changes of each history."""

EXCEPTIONS = {
    "newest attempt": "no later record names it; object lock prevents the change, a kept report shows it",
    "removed plan": "a lifecycle rule may remove stored plans, texts and past use; apply needs the plan",
    "text of another plan": "records name the digests of the plan and of the texts and verdicts of it",
}
"""Changes that ``verify`` does not find, and why that is so."""

ROOT = "/ledger"


class Store(dict):
    """Files by path, in place of a storage."""

    def read_bytes(self, path, *, limit=None):
        try:
            return self[str(path)]
        except KeyError:
            raise StorageError(str(path), "no such file", is_missing=True) from None

    def write_once(self, path, data):
        if str(path) in self:
            raise StorageError(str(path), "File exists", exists=True)
        self[str(path)] = data

    def list_names(self, folder):
        start = f"{folder}/"
        return sorted({path.removeprefix(start).split("/")[0] for path in self if path.startswith(start)})


@pytest.fixture
def store(monkeypatch):
    store = Store()
    for module in (attempts_module, checkpoints, ledger_module, plan_store):
        for name in ("read_bytes", "write_once", "list_names"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(store, name))
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", ROOT)
    return store


class History:
    """Random runs of a few weeks, with parallel attempts, kills, schedules, approvals and stored plans."""

    def __init__(self, rng) -> None:
        self.rng = rng
        self.time = datetime(2026, 9, 1, tzinfo=UTC)
        self.ledger = Ledger(ORIGIN, "tavus_default", ObjectStoragePath(ROOT), now=self.now)
        self.other = Ledger(ORIGIN, "eu", ObjectStoragePath(ROOT), now=self.now)
        self.reports = []

    def now(self):
        self.time += timedelta(milliseconds=7)
        return self.time

    def write(self, runs):
        for number in range(runs):
            self.time += timedelta(hours=self.rng.choice([1, 24, 50]))
            self.run(self.rng.choice([self.ledger, self.ledger, self.other]), f"run{number}")
        self.run(self.ledger, "last")

    def run(self, ledger, run_id):
        rng, task = self.rng, {"dag_id": "d", "run_id": run_id, "task_id": "t", "map_index": -1}
        hard = rng.random() < 0.3
        ids = [f"r{rng.randrange(1000):03}x" for _ in range(rng.randint(1, 3))]
        plan = seal({"version": 1, "run": run_id, "delete": ids, "hard": hard})
        plan_store.store(plan)
        use = seal({"version": 1, "plan_digest": plan["digest"]})
        beside = {}
        for name, value in (("use.json", use), ("verdicts.json", {"counts": {"kept": 1}, "at": run_id})):
            path = ObjectStoragePath(f"{ROOT}/_plans/{plan['digest']}.{name}")
            plan_store._store_once(path, canonical_json(value))
            beside[name] = sha256(canonical_json(value)).hexdigest()
        if rng.random() < 0.4:
            at = self.now().isoformat()
            job = job_name("schedule", rng.choice(["stale", "old"]))
            ledger.begin_attempt(job, **task, scheduled={ids[0]: at}, due={}, cancelled=[]).close()
        run = job_name("run", "d", run_id)
        planned = {"plan_digest": plan["digest"], "hard": hard, "beside": beside}
        ledger.begin_attempt(run, kind="planned", **task, **planned).close()
        if hard:
            text = f"Delete {run_id}?".encode()
            shown = {"plan_digest": plan["digest"], "shown_digest": sha256(text).hexdigest()}
            plan_store.store_text(text, **shown)
            ledger.begin_attempt(run, kind="shown", **task, **shown).close()
            answer = {"answer": rng.choice(["approve", "reject"]), "answered_by": "alice"}
            answer |= {"answered_at": self.now().isoformat(), "triggered_by_other": True}
            ledger.begin_attempt(run, kind="answered", **task, **shown, **answer).close()
        job = job_name("plan", plan["digest"])
        writers = [
            ledger.begin_attempt(job, **task, hard=hard, intent=ids, plan_digest=plan["digest"])
            for _ in range(rng.choice([1, 1, 2]))
        ]
        for writer in writers:
            outcomes = {i: rng.choice(["deleted", "failed", "unknown"]) for i in ids}
            writer.write("outcome", outcomes=outcomes)
            if rng.random() < 0.1:
                continue  # killed
            writer.write("verification", listed=9, still_listed=[])
            report = {"ledger": writer.name, "ledger_head": writer.last_digest}
            report["items"] = [{"replica_id": i, "outcome": outcome} for i, outcome in outcomes.items()]
            writer.close(outcomes=outcomes, report_digest=canonical_digest(report))
            self.reports.append(report)


# -- changes


def kind_of(path):
    name = path.rpartition("/")[2]
    if "/_plans/" in path:
        if name.endswith(".md"):
            return "text"
        for kind in ("use", "verdicts"):
            if name.endswith(f".{kind}.json"):
                return kind
        return "plan"
    if "/_index/" in path:
        return "checkpoint" if name.startswith("checkpoint-") else "pointer"
    return "record"


def flip(rng, store, path):
    data = bytearray(store[path])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    store[path] = bytes(data)


def cut(rng, store, path):
    store[path] = store[path][: rng.randrange(len(store[path]))]


def remove(rng, store, path):
    del store[path]


def rename(rng, store, path):
    folder, _, name = path.rpartition("/")
    digits = [at for at, letter in enumerate(name) if letter.isdigit()]
    at = rng.choice(digits)
    new = f"{folder}/{name[:at]}{(int(name[at]) + 1) % 10}{name[at + 1 :]}"
    if new in store:
        store[path], store[new] = store[new], store[path]
    else:
        store[new] = store.pop(path)


def copy(rng, store, path):
    folder, _, name = path.rpartition("/")
    stem, dot, rest = name.partition(".")
    new = f"{folder}/{stem[:-1]}{(int(stem[-1], 16) + 1) % 10}{dot}{rest}"
    if new in store:
        store[new + ".copy"] = store[path]
    else:
        store[new] = store[path]


VALUES = {
    "at": "2026-09-09T09:09:09+00:00",
    "hard": True,
    "number": 7,
    "previous": "0" * 64,
    "outcomes": {"r999x": "deleted"},
    "intent": ["r999x"],
    "plan_digest": "9" * 64,
    "answer": "approve",
    "answered_by": "mallory",
    "scheduled": {"r999x": "2026-01-01T00:00:00+00:00"},
    "seen": {},
    "attempt": "elsewhere",
    "run_id": "other",
    "listed": 3,
    "records": 9,
    "report_digest": "8" * 64,
    "origin": "https://elsewhere",
    "until": "20260915T000000.000000Z",
    "window": [],
    "open": [],
    "heads": {},
    "schedules": {},
    "deletions": {"soft": {}, "permanent": [], "unresolved": {}},
    "delete": [],
    "run": "another",
}


def reseal(rng, store, path):
    """Change one field of a JSON file and make its digest anew."""
    record = json.loads(store[path])
    known = [name for name, value in VALUES.items() if name in record and record[name] != value]
    field = rng.choice(known)
    store[path] = canonical_json(seal(record | {field: VALUES[field]}))


def rechain(rng, store, path):
    """Change one field of a record, and make all digests of its attempt anew."""
    reseal(rng, store, path)
    folder = path.rpartition("/")[0]
    previous = None
    for name in sorted(name for name in store if name.startswith(f"{folder}/")):
        record = json.loads(store[name])
        store[name] = canonical_json(seal(record | {"previous": previous}))
        previous = json.loads(store[name])["digest"]


def folder_of(path):
    return path.rpartition("/")[0]


def remove_attempt(rng, store, path):
    for name in [name for name in store if name.startswith(f"{folder_of(path)}/")]:
        del store[name]


def pointer_of(store, path):
    stem = folder_of(path).rpartition("/")[2]
    return next(name for name in store if "/_index/" in name and f"/{stem}." in name)


def remove_attempt_and_pointer(rng, store, path):
    del store[pointer_of(store, path)]
    remove_attempt(rng, store, path)


def remove_end(rng, store, path):
    names = sorted(name for name in store if name.startswith(f"{folder_of(path)}/"))
    del store[names[-1]]


def copy_attempt(rng, store, path):
    """Copy an attempt and its pointer under another name, as if an approval were of another run."""
    folder = folder_of(path)
    stem = folder.rpartition("/")[2]
    new = f"{stem[:-8]}{rng.getrandbits(32):08x}"
    for name in [name for name in store if name.startswith(f"{folder}/")]:
        store[name.replace(stem, new)] = store[name]
    pointer = pointer_of(store, path)
    store[pointer.replace(stem, new)] = store[pointer].replace(stem.encode(), new.encode())


def move_attempt(rng, store, path):
    """Move an attempt to another job, with its pointer."""
    job = folder_of(path).rsplit("/", 2)[1]
    new = f"plan-{rng.getrandbits(128):032x}"
    pointer = pointer_of(store, path)
    store[pointer.replace(job, new)] = store.pop(pointer).replace(job.encode(), new.encode())
    for name in [name for name in store if name.startswith(f"{folder_of(path)}/")]:
        store[name.replace(job, new)] = store.pop(name)


FILE_CHANGES = (flip, cut, remove, rename, copy)
CHANGES_BY_KIND = {
    "record": (
        *FILE_CHANGES,
        reseal,
        reseal,
        rechain,
        rechain,
        remove_attempt,
        remove_attempt_and_pointer,
        remove_end,
        copy_attempt,
        move_attempt,
    ),
    "pointer": FILE_CHANGES,
    "checkpoint": (*FILE_CHANGES, reseal, reseal, reseal),
    "plan": (*FILE_CHANGES, reseal),
    "text": FILE_CHANGES,
    "use": (*FILE_CHANGES, reseal),
    "verdicts": (*FILE_CHANGES, reseal),
}


def find_exception(change, store, path, named):
    """Return the key of the exception that a change falls under, if it does."""
    kind = kind_of(path)
    if kind in ("plan", "text", "use", "verdicts") and change is remove:
        return "removed plan"
    if kind in ("text", "verdicts") and change in (rename, copy):
        return "text of another plan"
    if kind != "record" or change not in (reseal, rechain, remove_attempt_and_pointer, remove, remove_end):
        return None
    folder = folder_of(path)
    last = json.loads(store[max(name for name in store if name.startswith(f"{folder}/"))])
    return None if (folder.removeprefix(f"{ROOT}/"), last["digest"]) in named else "newest attempt"


def references(store):
    """All attempts and their last digests that some record names."""
    named = set()
    for path, data in store.items():
        if kind_of(path) in ("record", "checkpoint"):
            record = json.loads(data)
            for key in ("seen", "heads"):
                named |= set(record.get(key, {}).items())
    return named


def is_time_of_end(store, intact, path):
    """Whether only the time of the record after the report was changed, which the report does not show."""
    before, after = json.loads(intact[path]), json.loads(store.get(path, b"{}"))
    changed = {name for name in before if before[name] != after.get(name)}
    return before["kind"] == "end" and changed == {"at", "digest"}


def is_refused(store, path):
    """Whether a stored plan cannot be loaded any more."""
    if kind_of(path) != "plan":
        return False
    try:
        plan_store.load(path.rpartition("/")[2].removesuffix(".json"))
    except (PlanRejectedError, LedgerUnavailableError):
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_every_single_change_is_found(store, seed):
    rng = random.Random(seed)
    history = History(rng)
    history.write(runs=18)
    root = history.ledger.root
    known = set(verify(root)[1])  # attempts that were killed
    assert all("is not closed" in finding for finding in known)
    intact, named = dict(store), references(store)
    assert any(kind_of(path) == "checkpoint" for path in intact)
    missed = []
    excepted = 0
    for _ in range(CHANGES):
        kind = rng.choice(list(CHANGES_BY_KIND))
        path = rng.choice(sorted(path for path in intact if kind_of(path) == kind))
        change = rng.choice(CHANGES_BY_KIND[kind])
        while store == intact:  # some values are replaced by those that they have
            change(rng, store, path)
        attempts, findings = verify(root)
        if set(findings) <= known and not is_refused(store, path):
            exception = find_exception(change, intact, path, named)
            if exception is None:
                missed.append(f"{change.__name__} of {path}")
            excepted += exception is not None
            if exception == "newest attempt":  # a kept report shows it
                name = folder_of(path).removeprefix(f"{ROOT}/")
                for report in history.reports:
                    if report["ledger"] == name and change is not remove_end:
                        assert compare_report(attempts, report)
        store.clear()
        store.update(intact)
    assert missed == [], "\n".join(missed)
    assert excepted < CHANGES / 3
    assert set(verify(root)[1]) == known
