"""
What must hold of every erasure: random accounts of two persons, everything undocumented about Tavus both
ways, faults, kills, and changes by others.

Run more with ``ERASURE_CASES=1000`` and ``ERASURE_CHANGES=1000``, one account again with
``ERASURE_CASE=<number>``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from erasures import ACTIVE, FACE, REQUEST, erase
from operators.tasks import Ti, delete, run
from plans import approve_plan
from test_crash import Fuse, Killed

from tavus_provider.client.transport import Transport
from tavus_provider.digest import canonical_json, seal
from tavus_provider.operators.tavus import ApplyErasureOperator, CertifyErasureOperator, PlanErasureOperator
from tavus_provider.sandbox import Sandbox
from tavus_provider.storage import object_storage

CHANGES = int(os.environ.get("ERASURE_CHANGES", "100"))
CASES = int(os.environ.get("ERASURE_CASES", "20"))
NUMBERS = [int(os.environ["ERASURE_CASE"])] if "ERASURE_CASE" in os.environ else range(CASES)
KILLED = 5
"""The account whose erasure is killed at every step."""
MAX_RUNS = 4
"""Runs of one request. The last one meets no fault and is not killed."""

KINDS = ("replica", "video", "conversation")
SWITCHES: dict[str, list[Any]] = {
    "delete_status": [200, 204, "swapped"],
    "unknown_id": ["400-error", "400-message", "404"],
    "soft_deleted": ["hidden", "listed"],
    "soft_items": ["videos", "none", "conversations", "all"],
    "soft_then_hard": ["failed", "works", "works"],
    "cascade": ["none", "videos", "conversations", "all"],
    "replica_id": ["kept", "null"],
    "delete_active": ["works", "ends", "rejected"],
    "end_ended": ["works", "rejected", "unknown"],
    "vocabulary": ["replica", "face", "both"],
    "nulls": ["null", "empty"],
    "order": ["oldest", "newest"],
    "status_filter": ["works", "ignored", "rejected"],
    "clamp_limit": [None, 3],
    "list_lag": [0, 0, 0, 0, 600],
}
BENIGN = {"list_lag": 0, "soft_then_hard": "works"}
"""Without these, a run may not be complete, whatever the client does."""
ALWAYS = {"times": None}
FAULTS = [
    {"method": "DELETE", "close": True},
    {"method": "DELETE", "close": True, "when": "after"},
    {"method": "DELETE", "status": 500},
    {"method": "DELETE", "status": 502, "when": "after"},
    {"method": "DELETE", "status": 202},
    {"method": "DELETE", "status": 404},
    {"method": "DELETE", "status": 200, "body": "{}"},
    {"method": "DELETE", "status": 200, "html": True},
    {"method": "DELETE", "status": 429, "retry_after": "1"},
    {"method": "DELETE", "status": 409},
    {"method": "DELETE", "status": 403},
    {"method": "DELETE", "path": "/v2/videos", "status": 503, **ALWAYS},
    {"method": "DELETE", "path": "/v2/conversations", "status": 500, "when": "after", **ALWAYS},
    {"method": "DELETE", "path": "/v2/replicas", "status": 400, "body": '{"error": "no"}', **ALWAYS},
    {"method": "POST", "status": 500},
    {"method": "POST", "status": 502, "when": "after"},
    {"method": "POST", "status": 404, **ALWAYS},
    {"method": "GET", "path": "/v2/replicas/", "status": 500, **ALWAYS},
    {"method": "GET", "path": "/v2/videos/", "status": 503, "times": 4},
    {"method": "GET", "path": "/v2/conversations", "close": True},
    {"method": "GET", "path": "/v2/conversations", "status": 200, "body": '{"data": []}', **ALWAYS},
    {"method": "GET", "path": "/v2/videos", "status": 500, "times": 8},
    {"method": "GET", "path": "/v2/personas", "status": 401},
]
"""Servers that lie about a delete are among them; servers that lie about what exists are not."""


def key_of(kind: str, row_id: str) -> str:
    return row_id if kind == "replica" else f"{kind}/{row_id}"


def kind_of(key: str) -> str:
    kind, slash, _ = key.partition("/")
    return kind if slash else "replica"


def key_of_path(path: str) -> str:
    _, _, kinds, row_id, *_ = path.split("/")
    return key_of(kinds.removesuffix("s"), row_id)


class Case:
    """A random account of two persons, and a request about the first of them."""

    def __init__(self, number: int) -> None:
        self.rng = random.Random(f"erasure {number}")
        self.seed: dict[str, list[dict[str, Any]]] = {f"{kind}s": [] for kind in (*KINDS, "persona")}
        self.faces: tuple[list[str], list[str]] = ([], [])
        self._make_account()
        self.arguments = self._make_request()
        self.is_soft_deleted_before = random.Random(f"soft {number}").random() < 0.15
        """Whether this package soft-deleted a replica of the person before."""

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def new_row(self, kind: str, replica_id: str | None, **more: Any) -> dict[str, Any]:
        prefix, digits = {"replica": ("r", 11), "video": ("", 10), "conversation": ("c", 15)}[kind]
        statuses = {
            "replica": ["completed", "error", "started"],
            "video": ["ready", "queued", "error"],
            "conversation": ["active", "ended", "ended"],
        }
        return {
            f"{kind}_id": prefix + f"{self.rng.randrange(16**digits):0{digits}x}",
            "status": self.rng.choice(statuses[kind]),
            "age": self.rng.choice(["3h", "40d", "300d"]),
            **({} if kind == "replica" else {"replica_id": replica_id}),
            **more,
        }

    def _make_account(self) -> None:
        for faces in self.faces:
            for _ in range(self.rng.randint(1, 2)):
                replica = self.new_row("replica", None)
                faces.append(replica["replica_id"])
                self.seed["replicas"].append(replica)
                for kind in KINDS[1:]:
                    for _ in range(self.rng.randint(0, 3)):
                        more = {"deleted": "soft"} if self.chance(0.05) else {}
                        self.seed[f"{kind}s"].append(self.new_row(kind, faces[-1], **more))
        self.seed["replicas"].append(self.new_row("replica", None, replica_type="system"))
        for number, faces in enumerate(self.faces):
            if self.chance(0.3):
                row = {"persona_id": f"p{number:011x}", "default_replica_id": faces[0]}
                self.seed["personas"].append(row)
        self.rng.shuffle(self.seed["conversations"])

    def _make_request(self) -> dict[str, Any]:
        named = [
            row["conversation_id"]
            for row in self.seed["conversations"]
            if row["replica_id"] in self.faces[1] and not row.get("deleted") and self.chance(0.3)
        ]
        is_participant_only = bool(named) and self.chance(0.3)
        arguments: dict[str, Any] = {
            "replica_ids": [] if is_participant_only else list(self.faces[0]),
            "conversation_ids": named,
            "on_reference": self.rng.choice(["fail", "leave", "leave"]),
            "hold_covers": self.rng.choice(["related", "item"]),
        }
        return arguments | ({"kinds": ["replica", "conversation"]} if self.chance(0.15) else {})

    def is_ours(self, kind: str, row: dict[str, Any]) -> bool:
        """Return whether a row is of the person, even if the request does not name its kind."""
        if kind == "conversation" and row["conversation_id"] in self.arguments["conversation_ids"]:
            return True
        return row.get("replica_id") in self.arguments["replica_ids"]

    def is_wanted(self, kind: str, row: dict[str, Any]) -> bool:
        return kind in self.arguments.get("kinds", KINDS) and self.is_ours(kind, row)


class World:
    """The sandbox of a case, and what was seen while the tasks of its runs were executed."""

    def __init__(self, case: Case, sandbox: Sandbox, holds_file, monkeypatch) -> None:
        self.case, self.sandbox, self.holds_file, self.monkeypatch = case, sandbox, holds_file, monkeypatch
        self.holds: frozenset[str] = frozenset()
        self.ever_held: set[str] = set()
        self.approved: set[str] = set()
        self.to_end: set[str] = set()
        self.certificates: list[dict[str, Any]] = []
        if case.is_soft_deleted_before:
            run(delete(case.faces[0][0]), Ti(run_id="before"))
        self.note_others()

    # -- the account

    def rows(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return the kind and the row of every object, deleted ones too."""
        state = self.sandbox.state()
        return {key_of(kind, row[f"{kind}_id"]): (kind, row) for kind in KINDS for row in state[f"{kind}s"]}

    def wanted(self) -> set[str]:
        return {key for key, (kind, row) in self.rows().items() if self.case.is_wanted(kind, row)}

    @property
    def is_blind(self) -> bool:
        """Return whether rows do not name a replica that was deleted."""
        return bool(self.sandbox.state()["switches"]["replica_id"] == "null")

    def log(self) -> list[dict[str, Any]]:
        return self.sandbox.state()["requests"]

    def note_others(self) -> None:
        """Remember everybody else's rows as they are now."""
        rows = self.rows().items()
        self.others = {key: row for key, (kind, row) in rows if not self.case.is_ours(kind, row)}
        self.personas = self.sandbox.state()["personas"]

    def others_act(self) -> None:
        """Somebody makes a video or a conversation, perhaps with a replica of the person."""
        for faces in self.case.faces:
            replica_id = self.case.rng.choice(faces)
            if self.case.chance(0.2) and self.rows()[replica_id][1]["deleted"] is None:
                kind = self.case.rng.choice(KINDS[1:])
                self.sandbox.put(f"{kind}s", self.case.new_row(kind, replica_id))
        self.note_others()

    def change_holds(self) -> None:
        rows = self.rows().values()
        ids = sorted(row[f"{kind}_id"] for kind, row in rows if row["deleted"] is None)
        chosen = self.case.rng.sample(ids, min(len(ids), self.case.rng.choice([0, 0, 0, 1, 2])))
        self.holds = frozenset(chosen)
        self.holds_file.write_text(json.dumps(sorted(chosen)))
        self.ever_held |= self.held()

    def held(self) -> set[str]:
        """Return what is under legal hold now: what is named, and what is related to it."""
        rows = {key: (kind, row) for key, (kind, row) in self.rows().items() if self.case.is_ours(kind, row)}
        held = {key for key, (kind, row) in rows.items() if row[f"{kind}_id"] in self.holds}
        if self.case.arguments["hold_covers"] == "item":
            return held
        made_with = {rows[key][1]["replica_id"] for key in held if kind_of(key) != "replica"}
        made = {key for key, (_, row) in rows.items() if row.get("replica_id") in self.holds}
        return held | made | (made_with & rows.keys())

    def set_faults(self, *, last: bool) -> None:
        rng = self.case.rng
        faults = rng.sample(FAULTS, rng.choice([0, 0, 1, 2, 3]))
        self.sandbox.switch(**({"faults": [], **BENIGN} if last else {"faults": faults}))

    # -- the tasks

    def execute(self, operator, ti: Ti, *, kill_after: int | None = None) -> Any:
        """
        Execute a task. Return what it returns, or the exception that ended it.

        :param kill_after: number of requests and written files after which the worker is killed
        """
        fuse = Fuse(-1 if kill_after is None else kill_after)
        real_send, real_create = Transport.send, object_storage._create_local_file
        with self.monkeypatch.context() as patch:
            patch.setattr(
                Transport, "send", lambda *args, **named: fuse.step(lambda: real_send(*args, **named))
            )
            patch.setattr(
                object_storage, "_create_local_file", lambda *args: fuse.step(lambda: real_create(*args))
            )
            try:
                return run(operator, ti)
            except (Exception, Killed) as error:  # noqa: BLE001  # whatever ends a task
                return error
            finally:
                self.sandbox.wait_until_idle()

    def steps(self, most: int, *, last: bool) -> int | None:
        """Return after how many steps a task is killed, or ``None``."""
        return None if last or self.case.chance(0.5) else self.case.rng.randrange(most)

    def erase(self, number: int) -> None:
        """One run of the DAG: plan, approve, apply with its retries, certify."""
        last, run_id = number == MAX_RUNS, f"manual__{number}"
        self.change_holds()
        self.set_faults(last=last)
        plan = self.plan(run_id, kill_after=self.steps(14, last=last))
        if plan is None:
            return
        if not last:
            self.others_act()
            if self.case.chance(0.2):
                self.change_holds()
        self.apply(plan, run_id, last=last)
        self.certify(plan, run_id, last=last)

    def plan(self, run_id: str, *, kill_after: int | None = None) -> Any:
        """Run the plan task, and approve its plan. Return the plan, if it was made."""
        begin = len(self.log())
        plan = self.execute(
            PlanErasureOperator(task_id="plan", **REQUEST | self.case.arguments),
            Ti(run_id=run_id),
            kill_after=kill_after,
        )
        assert self.changes_since(begin) == [], "the plan task changes nothing"
        self.was_planned = isinstance(plan, dict)
        if not self.was_planned:
            self.last_error = plan
            return None
        assert {row["key"] for row in plan["delete"]} <= self.wanted()
        approve_plan(plan, run_id=run_id)
        self.approved |= {row["key"] for row in plan["delete"]}
        self.to_end |= set(plan["end"])
        return plan

    was_planned = False
    last_error: Any = None

    def apply(self, plan: Any, run_id: str, *, last: bool) -> None:
        for try_number in (1, 2, 3):
            self.set_faults(last=last)
            kill_after = self.steps(60, last=last)
            report = self.try_to_apply(plan, run_id, try_number=try_number, kill_after=kill_after)
            if isinstance(report, dict) or type(report).__name__ == "AirflowFailException":
                break

    def try_to_apply(self, plan: Any, run_id: str, *, try_number: int, kill_after: int | None = None) -> Any:
        begin, held = len(self.log()), self.held()
        concurrency = self.case.rng.choice([1, 4])
        report = self.execute(
            ApplyErasureOperator(task_id="apply", plan=plan, concurrency=concurrency),
            Ti(run_id=run_id, try_number=try_number),
            kill_after=kill_after,
        )
        self.check_sent(begin, held=held)
        self.check_others()
        return report

    def certify(self, plan: Any, run_id: str, *, last: bool) -> None:
        begin = len(self.log())
        for kill_after in (self.steps(4, last=last), None):
            ti = Ti(run_id=run_id)
            operator = CertifyErasureOperator(task_id="certify", plan=plan)
            self.last_error = self.execute(operator, ti, kill_after=kill_after)
            if not isinstance(self.last_error, Killed):
                break
        assert len(self.log()) == begin, "the certify task sends nothing"
        if (certificate := ti.pushed.get("return_value")) is not None:
            self.certificates.append(certificate)
            self.check_certificate(certificate)

    # -- what must hold

    def changes_since(self, begin: int) -> list[dict[str, Any]]:
        return [request for request in self.log()[begin:] if request["method"] != "GET"]

    def check_sent(self, begin: int, *, held: set[str]) -> None:
        """Nothing held was sent, and nothing that was not approved."""
        for request in self.changes_since(begin):
            key = key_of_path(request["path"])
            what = f"{request['method']} {request['path']}?{request['query']}"
            assert key not in held, f"{what}, which is held"
            if request["method"] == "POST":
                assert request["path"].endswith("/end"), what
                assert key in self.to_end, f"{what}, which was not approved"
            else:
                assert (request["method"], request["query"]) == ("DELETE", "hard=true"), what
                assert key in self.approved, f"{what}, which was not approved"

    def check_others(self) -> None:
        rows = self.rows()
        assert {key: rows[key][1] for key in self.others} == self.others
        assert self.sandbox.state()["personas"] == self.personas

    def shown(self) -> tuple[set[str], set[str]]:
        """Ask every documented endpoint. Return the objects that are listed, and those returned alone."""
        self.sandbox.switch(faults=[])
        listed, returned = set(), set()
        with requests.Session() as session:
            session.headers["x-api-key"] = self.sandbox.key
            for kind in KINDS:
                url, page = f"{self.sandbox.url}/v2/{kind}s", 0 if kind == "video" else 1
                while rows := session.get(url, params={"limit": 100, "page": page}).json()["data"]:
                    ids = {row.get(f"{kind}_id") or row["face_id"] for row in rows}
                    listed |= {key_of(kind, one) for one in ids}
                    page += 1
            for key, (kind, row) in self.rows().items():
                if session.get(f"{self.sandbox.url}/v2/{kind}s/{row[f'{kind}_id']}").status_code == 200:
                    returned.add(key)
        return listed, returned

    def check_certificate(self, certificate: dict[str, Any]) -> None:
        log = self.log()
        listed, returned = self.shown()
        wanted = self.wanted()
        held = {one["key"] for one in certificate["held"]}
        items = {item["key"]: item for item in certificate["items"]}
        remaining = wanted & (listed | returned)
        if certificate["state"] == "complete":
            assert remaining == set()
            assert held == set()
        elif certificate["state"] == "partly_refused":
            assert remaining <= held
            assert held
        if certificate["state"] != "incomplete":
            assert certificate["open"] == []
            assert self.going_on() == set(), "conversations go on that nobody can end any more"
        # Of a held row that names no replica, it cannot be seen which one it was made with.
        may_be_related = set(self.case.arguments["replica_ids"]) if self.is_blind else set()
        assert held <= self.ever_held | may_be_related
        assert items.keys() <= wanted
        for key, item in items.items():
            self.check_item(item, log, is_listed=key in listed, is_returned=key in returned)
            assert (item["outcome"] == "held") == (key in held)
        for kind, counts in certificate["counts"].items():
            of_kind = [item for item in items.values() if kind_of(item["key"]) == kind]
            assert counts["found"] == len(of_kind)
            assert counts["accepted"] == sum(item["is_accepted"] for item in of_kind)
            assert counts["not_found"] == sum(item["asked"] == "not_found" for item in of_kind)
            assert counts["not_listed"] == sum(item["listed"] is False for item in of_kind)
            assert counts["held"] == sum(item["outcome"] == "held" for item in of_kind)

    def going_on(self) -> set[str]:
        """Return the conversations that were deleted although they were active. Old ones are stale."""
        rows, yesterday = self.rows(), datetime.now(UTC) - timedelta(days=1)
        deleted = {key_of_path(one["path"]) for one in self.log() if one["effect"] == "hard"}
        return {
            key
            for key in self.to_end & deleted
            if rows[key][1]["status"] == "active"
            and datetime.fromisoformat(rows[key][1]["created_at"]) > yesterday
        }

    def check_end(self) -> None:
        """Without faults, a request is not left incomplete, except where only a person can decide."""
        if not self.was_planned:
            named = {row["default_replica_id"] for row in self.personas}
            assert self.case.arguments["on_reference"] == "fail", self.last_error
            assert named & set(self.case.arguments["replica_ids"]), self.last_error
        elif self.certificates[-1]["state"] == "incomplete":
            reasons = {one["what"] for one in self.certificates[-1]["open"]}
            if self.is_blind:
                reasons -= {
                    "It may be of this person, which cannot be seen",
                    "It appeared during the run, and it cannot be seen whose it is",
                }
            if self.case.is_soft_deleted_before:
                reasons = {
                    one for one in reasons if not one.startswith("It was soft-deleted before and Tavus")
                }
            assert reasons == set()

    def check_item(
        self, item: dict[str, Any], log: list[dict[str, Any]], *, is_listed: bool, is_returned: bool
    ) -> None:
        """Each line of a certificate agrees with the log of the server."""
        key, item_id = item["key"], item["key"].rpartition("/")[2]
        own = [one for one in log if one["path"] == f"/v2/{kind_of(key)}s/{item_id}"]
        deletes = [one for one in own if one["method"] == "DELETE"]
        asked = [one["status"] for one in own if one["method"] == "GET"]
        if item["is_accepted"]:
            assert any(one["status"] in (200, 204) for one in deletes), f"no DELETE of {key} had a 2xx"
        if item["outcome"] in ("deleted", "confirmed", "failed", "unknown"):
            assert deletes or item["outcome"] == "failed", f"{key} is {item['outcome']} without a DELETE"
        if item["outcome"] == "deleted":
            assert item["is_accepted"], key
        if item["asked"] == "not_found":
            assert asked, key
            assert asked[-1] in (400, 404), key
            assert not is_returned, key
        if item["asked"] == "found":
            assert 200 in asked, key
        if item["listed"] is False:
            assert not is_listed, key
        if item["listed"]:
            assert is_listed or self.sandbox.state()["switches"]["list_lag"] == 0, key


@pytest.fixture
def world(connect, clock, tmp_path, monkeypatch):
    """Return a function that makes the world of a case."""
    holds = tmp_path / "holds.yaml"
    holds.write_text("[]")
    policy = {"expire": [{"older_than": "90d"}], "legal_holds": {"file": str(holds), "max_age": "7d"}}
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    monkeypatch.setenv("AIRFLOW__TAVUS__POLICY", str(tmp_path / "policy.yaml"))
    with contextlib.ExitStack() as stack:

        def make(number: int) -> World:
            case = Case(number)
            sandbox = stack.enter_context(Sandbox(case.seed, key="sandbox-key-8f2b6c91"))
            sandbox.switch(**{name: case.rng.choice(values) for name, values in SWITCHES.items()})
            connect(sandbox.url, extra={"timeout": 60})
            return World(case, sandbox, holds, monkeypatch)

        yield make


@pytest.mark.parametrize("number", NUMBERS)
def test_laws_of_erasure(world, number):
    from tavus_provider.storage.certificates import compare_certificate

    one = world(number)
    for run_number in range(1, MAX_RUNS + 1):
        one.erase(run_number)
        if one.certificates and one.certificates[-1]["state"] == "complete":
            break
    one.check_end()
    for certificate in one.certificates:
        assert compare_certificate(certificate) == []


@pytest.mark.parametrize("steps", range(1, 31, 1 if CASES >= 1_000 else 6))
def test_run_that_was_killed_is_completed_by_its_retry(world, steps):
    """A step is a request or a written file."""
    one = world(KILLED)
    one.sandbox.switch(**BENIGN, replica_id="kept")
    one.case.arguments["on_reference"] = "leave"
    plan = one.plan("manual__1")
    assert len(plan["delete"]) >= 6
    begin = len(one.log())
    killed = one.try_to_apply(plan, "manual__1", try_number=1, kill_after=steps)
    assert isinstance(killed, Killed)
    report = one.try_to_apply(plan, "manual__1", try_number=2)
    assert report["state"] == "complete"
    one.certify(plan, "manual__1", last=True)
    assert one.certificates[0]["state"] == "complete"
    effects = [request["path"] for request in one.log()[begin:] if request["effect"] == "hard"]
    assert len(effects) == len(set(effects))


# -- changes of certificates and of the ledger


@pytest.fixture
def erased(sandbox, clock, tmp_path, monkeypatch):
    """A person was erased in two runs, because a legal hold ended. Returns the folder of the ledger."""
    (tmp_path / "holds.yaml").write_text(f"[{ACTIVE.removeprefix('conversation/')}]")
    holds = {"file": str(tmp_path / "holds.yaml"), "max_age": "7d"}
    monkeypatch.chdir(tmp_path)
    sandbox.put("videos", *({"video_id": f"a12345678{n}", "replica_id": FACE} for n in range(3)))
    named = {"legal_holds": holds, "hold_covers": "item"}
    assert erase("one", **named)["state"] == "partly_refused"
    (tmp_path / "holds.yaml").write_text("[]")
    assert erase("two", **named)["state"] == "complete"
    return tmp_path / "ledger"


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return the content with one change: bytes replaced, added or removed."""
    at, length = rng.randrange(len(data)), rng.choice([1, 1, 1, 2, 20])
    new = bytes(rng.choice(b'0123456789abcdef "{},:') for _ in range(length))
    replaced = data[:at] + new + data[at + length :]
    return rng.choice([replaced, data[:at] + new + data[at:], data[:at] + data[at + length :], data[:at]])


def change_value(rng: random.Random, data: bytes) -> bytes:
    """Return the JSON with one value changed, and with the digest of its new content: a forgery."""
    document = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        names = (
            value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        )
        for name in names:
            places.append((value, name))
            walk(value[name])

    walk(document)
    parent, name = rng.choice([place for place in places if place[1] != "digest"])
    value = parent[name]
    match value:
        case bool():
            parent[name] = not value
        case int():
            parent[name] = value + rng.choice([-1, 1])
        case str() if value:
            parent[name] = value[:-1] + ("1" if value[-1] == "0" else "0")
        case _:
            del parent[name]
    return canonical_json(seal({key: value for key, value in document.items() if key != "digest"}))


def own_records(ledger, certificate: dict[str, Any]) -> list[Any]:
    """Return the files of the record of a certificate itself."""
    digest = f'"{certificate["digest"]}"'
    (first,) = (path for path in ledger.glob("*/*/erasure-*/*/000001.json") if digest in path.read_text())
    return sorted(first.parent.glob("*.json"))


@pytest.mark.parametrize("number", [1, 2])
def test_every_change_is_found(erased, capsys, number):
    from tavus_provider.cli.main import main

    rng = random.Random(f"change {number}")
    file = erased / "_certificates" / "DSR-2026-0142" / f"{number}.json"
    page = file.with_suffix(".html")
    certificate = json.loads(file.read_bytes())
    own = own_records(erased, certificate)
    records = [
        path for name in certificate["ledger"] for path in sorted((erased / name).glob("*.json"))
    ] + own

    def found(path) -> bool:
        code = main(["erasure", "verify", str(path)])
        assert code in (0, 1)
        return code == 1

    assert not found(file)
    assert not found(page)
    missed = []
    for _ in range(CHANGES // 2):
        target = rng.choice([file, file, page, *records])
        data = target.read_bytes()
        is_record = target in records
        # The record that closes that of the certificate is the last of all: nothing has the digest of it.
        is_last = target == own[-1]
        how = rng.choice(["bytes", "bytes", "bytes" if is_last else "value", "remove"])
        if how == "bytes" or target == page:
            new = change_bytes(rng, data)
        elif how == "value":
            new = change_value(rng, data)
        else:
            new = None if is_record else change_value(rng, data)
        if new == data:
            continue
        target.unlink()
        if new is not None:
            target.write_bytes(new)
        if not found(page if target == page else file):
            missed.append((target.relative_to(erased), how, data, new))
        target.unlink(missing_ok=True)
        target.write_bytes(data)
    assert missed == []
    capsys.readouterr()
    assert not found(file)
