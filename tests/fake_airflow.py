"""
A small stand-in for Airflow's REST API, for states of the Tavus page that a real Airflow reaches too slowly.

It serves the real files of the page with their real headers, in a frame as Airflow's UI does, and XComs that
the functions of the package made. Which runs exist is up to the test.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route

from tavus_provider.models import Conversation, Persona, Replica
from tavus_provider.outcomes import Outcome
from tavus_provider.planning.difference import make_difference
from tavus_provider.planning.forecast import make_forecast
from tavus_provider.planning.plan import make_plan, plan_reference
from tavus_provider.planning.report import Result, dry_run_report, make_report
from tavus_provider.planning.verdicts import fit_xcom, make_verdicts, with_location
from tavus_provider.plugins.server import PageServer
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

NOW = datetime.now(UTC).replace(microsecond=0)
NEXT_RUN = NOW + timedelta(days=1)
"""When the next scheduled run begins."""
OPERATORS = {
    "plan": "PlanRetentionOperator",
    "look": "LookUpReplicaOperator",
    "approve": "ApproveRetentionOperator",
    "split": "SplitRetentionOperator",
    "apply": "ApplyRetentionOperator",
    "summary": "SummarizeRetentionOperator",
    "delete": "DeleteReplicaOperator",
    "planErasure": "PlanErasureOperator",
    "applyErasure": "ApplyErasureOperator",
    "certify": "CertifyErasureOperator",
    "choose": "@task.branch",
}
POLICY = {
    "name": "stale",
    "expire": [
        {"rule": "failed-training", "status": ["error"], "older_than": "14d"},
        {"rule": "stale", "older_than": "180d", "unused_for": "90d"},
    ],
    "scope": {"include": ["*"], "exclude": ["brand_*"]},
    "keep": {"keep_within": "7d", "protected_ids": ["r9c2e41b7d05"]},
    "limits": {"max_deletions": 10, "max_deletion_percent": 25},
}
NAMES = (
    ("onboarding_anna-weber", 412, "completed"),
    ("onboarding_ben-okafor", 388, "completed"),
    ("webinar-q1_claire-dupont", 301, "completed"),
    ("webinar-q1_daniel-costa", 296, "completed"),
    ("sales-intro_emma-lindqvist", 266, "completed"),
    ("sales-intro_farid-haddad", 251, "completed"),
    ("support-faq_grace-kim", 233, "completed"),
    ("support-faq_henry-moyo", 220, "completed"),
    ("recruiting_ines-garcia", 199, "completed"),
    ("recruiting_jonas-berg", 187, "completed"),
    ("product-tour_kavya-rao", 171, "completed"),
    ("product-tour_liam-novak", 164, "completed"),
    ("webinar-q2_mina-sato", 158, "completed"),
    ("webinar-q2_noah-silva", 120, "completed"),
    ("sales-intro_olga-petrova", 96, "completed"),
    ("training-2026_paul-meier", 88, "error"),
    ("training-2026_quinn-osei", 61, "completed"),
    ("brand_ceo-keynote", 340, "completed"),
    ("brand_cfo-results", 210, "completed"),
    ("webinar-q3_rosa-bianchi", 45, "completed"),
    ("webinar-q3_samir-patel", 31, "completed"),
    ("onboarding_tara-lewis", 12, "completed"),
    ("onboarding_umar-farouk", 5, "started"),
    ("archive_unknown-date", None, "completed"),
)


def replica_id(number: int) -> str:
    return f"r{(number * 2654435761 + 0x5EED) % 16**10:010x}"


def replicas(now: datetime = NOW, names=NAMES) -> list[Replica]:
    """Return the replicas of an account as a company could have it."""
    return [
        Replica(
            replica_id(number),
            replica_name=name,
            status=status,
            replica_type="user",
            model_name="phoenix-4",
            created_at=None if age is None else now - timedelta(days=age, hours=3),
            unreadable={"created_at": "created_at is missing"} if age is None else {},
        )
        for number, (name, age, status) in enumerate(names)
    ]


def many(count: int) -> list[tuple[str, int | None, str]]:
    groups = ("onboarding", "webinar", "sales-intro", "support-faq", "recruiting", "product-tour")
    return [(f"{groups[n % 6]}_speaker-{n:04}", 1 + n * 7 % 700, "completed") for n in range(count)]


def many_verdicts(count: int) -> dict[str, Any]:
    """Return an XCom with this number of verdicts, a quarter of them of each of four statuses."""
    rows = [
        {
            "replica_id": replica_id(number),
            "replica_name": name,
            "status": ("kept", "not_expired", "held", "expired")[number % 4],
            "reason_code": "any",
            "reason": f"{age} days old",
            "next_reason": None,
            "age_days": age,
        }
        for number, (name, age, _) in enumerate(many(count))
    ]
    return {"version": 1, "rows": rows, "counts": {}}


def inventory(rows: list[Replica], now: datetime = NOW, *, used: tuple[int, ...] = (2, 6)) -> Inventory:
    """Return an account in which two replicas are in use and one was used lately."""
    personas = [Persona(f"p{number}", replica_id(number)) for number in used]
    talks = [Conversation("c1", replica_id(8), None, "ended", now - timedelta(days=20))]
    return Inventory(rows, personas, talks, [], read_at=now)


@dataclass
class Run:
    """One Dag run with its tasks, their XComs, and the answer of a person."""

    dag_id: str
    run_id: str
    when: datetime
    state: str = "success"
    connection: str = "tavus_default"
    origin: str = "https://tavusapi.com"
    hard: bool = False
    user: str | None = None
    tasks: list[dict[str, Any]] = field(default_factory=list)
    xcoms: dict[tuple[str, int, str], Any] = field(default_factory=dict)
    hitl: list[dict[str, Any]] = field(default_factory=list)
    plan: Any = None
    decision: Any = None
    conf: dict[str, Any] = field(default_factory=dict)
    is_dry: bool = False

    def add(
        self,
        task_id: str,
        state: str | None = "success",
        *,
        kind: str | None = None,
        map_index: int = -1,
        minutes: float = 1,
    ):
        started = self.when + timedelta(minutes=minutes - 0.4)
        ended = state in ("success", "failed", "skipped")
        self.tasks.append(
            {
                "id": f"{self.dag_id}/{self.run_id}/{task_id}/{map_index}",
                "task_id": task_id,
                "dag_id": self.dag_id,
                "dag_run_id": self.run_id,
                "map_index": map_index,
                "run_after": stamp(self.when),
                "start_date": stamp(started) if state not in (None, "upstream_failed") else None,
                "end_date": stamp(self.when + timedelta(minutes=minutes)) if ended else None,
                "duration": 24.0,
                "state": state,
                "try_number": 0 if state in (None, "upstream_failed", "skipped") else 1,
                "operator": OPERATORS.get(kind or task_id, "PythonOperator"),
                "operator_name": OPERATORS.get(kind or task_id, "PythonOperator"),
                "rendered_map_index": None,
                "rendered_fields": {"tavus_conn_id": self.connection},
            }
        )
        return self

    def push(self, task_id: str, value: Any, key: str = "return_value", *, map_index: int = -1) -> None:
        self.xcoms[task_id, map_index, key] = json.loads(json.dumps(value))

    def planned(
        self,
        rows: list[Replica] | None = None,
        *,
        policy: dict[str, Any] = POLICY,
        before: Run | None = None,
        state: str = "success",
        used: tuple[int, ...] = (2, 6),
        stored: bool = False,
    ):
        """Add a plan task with the XComs that it pushes."""
        rule = Policy.parse(policy)
        account = inventory(replicas(self.when) if rows is None else rows, self.when, used=used)
        decision = evaluate(rule, account, now=self.when, hard=self.hard)
        plan = make_plan(
            decision,
            rule,
            now=self.when + timedelta(minutes=1),
            hard=self.hard,
            tavus_conn_id=self.connection,
            origin=self.origin,
        )
        self.plan, self.decision = plan, decision
        folder = "s3://company-airflow/tavus-ledger/_plans"
        verdicts_at = f"{folder}/{plan['digest']}.verdicts.json"
        verdicts = with_location(fit_xcom(make_verdicts(decision)), verdicts_at)
        difference = make_difference(
            decision,
            plan,
            plan_before=before and before.plan,
            verdicts_before=before and before.xcoms["plan", -1, "verdicts"],
        )
        self.add("plan", state)
        self.push(
            "plan",
            plan_reference(plan, plan_at=f"s3://company-airflow/tavus-ledger/_plans/{plan['digest']}.json")
            if stored
            else plan,
        )
        self.push("plan", verdicts, "verdicts")
        self.push("plan", difference, "difference")
        self.push("plan", make_forecast(rule, account, now=self.when, hard=self.hard), "forecast")
        return self

    def asked(
        self,
        answer: str | None = None,
        *,
        by: str = "maria.santos",
        state: str | None = None,
        minutes: float = 24,
    ):
        """Add an approval: answered, waiting (``state="awaiting_input"``), or timed out (``"failed"``)."""
        self.add("approve", state or "success", minutes=minutes)
        ti = self.tasks[-1]
        self.hitl.append(
            {
                "task_instance": ti,
                "options": ["Approve", "Reject"],
                "subject": "Delete permanently?",
                "body": "",
                "created_at": stamp(self.when + timedelta(minutes=1)),
                "chosen_options": [answer] if answer else None,
                "responded_by_user": {"id": by, "name": by} if answer else None,
                "responded_at": stamp(self.when + timedelta(minutes=minutes)) if answer else None,
                "response_received": bool(answer),
            }
        )
        return self

    def report(
        self,
        outcome: Outcome = Outcome.DELETED,
        detail: str = "DELETE returned 200; it is no longer listed",
        **others: tuple[Outcome, str],
    ):
        results = {row["replica_id"]: Result(outcome, detail) for row in self.plan["delete"]}
        for row, result in zip(self.plan["delete"], others.values(), strict=False):
            results[row["replica_id"]] = Result(*result)
        return make_report(self.plan, self.plan["delete"], results, dry_run=False, ledger="tavusapi.com/x")

    def applied(
        self, state: str = "success", report: Any = None, *, dry_run: bool = False, minutes: float = 26
    ):
        """Add an apply task with its report."""
        self.add("apply", state, minutes=minutes)
        self.is_dry = dry_run
        if state in ("success", "failed"):
            self.push("apply", dry_run_report(self.plan) if dry_run else report or self.report())
        return self

    def to_json(self) -> dict[str, Any]:
        scheduled = self.user is None
        ended = self.state in ("success", "failed")
        return {
            "dag_id": self.dag_id,
            "dag_run_id": self.run_id,
            "state": self.state,
            "run_after": stamp(self.when),
            "queued_at": stamp(self.when),
            "start_date": stamp(self.when),
            "end_date": stamp(self.when + timedelta(minutes=27)) if ended else None,
            "duration": 1620.0 if ended else None,
            "run_type": "scheduled" if scheduled else "manual",
            "triggering_user_name": self.user,
            "conf": self.conf,
        }


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


FRAME = """<!doctype html>
<html lang="en" class="{theme}">
<head><meta charset="utf-8"><title>Airflow</title>
<style>
html, body {{ margin: 0; height: 100%; }} body {{ display: flex; }}
nav {{ width: {nav}px; background: #dce7f5; }}
iframe {{ border: 0; flex: 1; height: 100%; }}
.light {{ --chakra-colors-bg: #fdfdfd; }} .dark {{ --chakra-colors-bg: #161c2c; }}
</style></head>
<body><nav aria-label="Airflow"></nav>
<iframe sandbox="allow-scripts allow-same-origin" src="/tavus/" title="Tavus"></iframe></body></html>"""
"""The page around the Tavus page as far as it matters: a frame of the same origin, a theme and its tokens."""


class FakeAirflow:
    """Runs of a test, and the requests that were sent."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        self.reset()

    def reset(self) -> None:
        """Remove everything that a test set."""
        self.runs: list[Run] = []
        self.requests.clear()
        self.paused: set[str] = set()
        self.next_run: datetime | None = NEXT_RUN
        self.dag: dict[str, Any] = {}
        """More fields of each DAG."""
        self.structure: list[dict[str, Any]] = []
        """The tasks of each DAG: their ids and the ids of what follows."""
        self.health = {"scheduler": {"status": "healthy"}}

    def add(self, run: Run) -> Run:
        self.runs.append(run)
        return run

    def _run(self, dag_id: str, run_id: str) -> Run | None:
        return next((run for run in self.runs if (run.dag_id, run.run_id) == (dag_id, run_id)), None)

    def _is_dry(self, dag_id: str) -> bool:
        """Return whether the scheduled runs of a DAG are dry runs: as the newest of them was."""
        runs = [run for run in self._newest() if run.dag_id == dag_id and run.user is None]
        return next((run.is_dry for run in runs), False)

    def _newest(self) -> list[Run]:
        return sorted(self.runs, key=lambda run: run.when, reverse=True)

    def respond(self, path: str, query: dict[str, list[str]]) -> Any:
        """Return the response to a path below ``/api/v2``; ``None`` for 404."""
        limit, offset = int(query.get("limit", ["50"])[0]), int(query.get("offset", ["0"])[0])

        def page_of(key: str, rows: list[Any]) -> dict[str, Any]:
            return {key: rows[offset : offset + limit], "total_entries": len(rows)}

        parts = [unquote(part) for part in path.strip("/").split("/")]
        if path == "monitor/health":
            return self.health
        if re.fullmatch(r"dags/[^/]+/details", path):
            if not any(run.dag_id == parts[1] for run in self.runs):
                return None
            scheduled = "prune" in parts[1] and "batched" not in parts[1]
            return {
                "dag_id": parts[1],
                "is_paused": parts[1] in self.paused,
                "next_dagrun_run_after": stamp(self.next_run) if scheduled and self.next_run else None,
                "timetable_summary": "0 0 * * *" if scheduled else "None",
                "max_active_runs": 1,
                "params": {"dry_run": {"value": self._is_dry(parts[1])}},
                **self.dag,
            }
        if re.fullmatch(r"dags/[^/]+/tasks", path):
            return {"tasks": self.structure}
        if parts[2:] == ["dagRuns"]:
            return page_of("dag_runs", [run.to_json() for run in self._newest() if run.dag_id == parts[1]])
        if parts[1:] == ["~", "dagRuns", "~", "taskInstances"]:
            wanted = query.get("operator", [])
            tasks = [ti for run in self._newest() for ti in run.tasks if ti["operator"] in wanted]
            return page_of("task_instances", tasks)
        run = self._run(parts[1], parts[3])
        if run is None:
            return None
        if len(parts) == 4:
            return run.to_json()
        if parts[4:] == ["hitlDetails"]:
            return page_of("hitl_details", run.hitl)
        if parts[4:] == ["taskInstances"]:
            states = query.get("state")
            tasks = [
                ti
                for ti in sorted(run.tasks, key=lambda ti: ti["map_index"])
                if not states or ti["state"] in states
            ]
            return page_of("task_instances", tasks)
        if parts[6:7] == ["xcomEntries"]:
            key = (parts[5], int(query.get("map_index", ["-1"])[0]), parts[7])
            return {"key": parts[7], "value": run.xcoms[key]} if key in run.xcoms else None
        return None

    async def _api(self, request: Request) -> JSONResponse:
        path = request.scope["raw_path"].decode().split("/api/v2/", 1)[1]
        query = request.url.query
        self.requests.append(f"{path}?{query}" if query else path)
        found = self.respond(path, parse_qs(query))
        return JSONResponse(
            {"detail": "not found"} if found is None else found, 404 if found is None else 200
        )

    async def _frame(self, request: Request) -> HTMLResponse:
        theme = request.cookies.get("theme", "light")
        return HTMLResponse(
            FRAME.format(
                theme=theme,
                back="#fff" if theme == "light" else "#161c2c",
                nav=request.cookies.get("nav", "64"),
            )
        )

    @contextlib.contextmanager
    def serve(self) -> Iterator[FakeAirflow]:
        app = Starlette(
            routes=[
                Mount("/tavus", PageServer()),
                Route("/plugin/tavus", self._frame),
                Route("/{path:path}", self._api_or_nothing),
            ]
        )
        server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            thread.join(0.01)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.should_exit = True
            thread.join(20)

    async def _api_or_nothing(self, request: Request):
        if "/api/v2/" in request.scope["raw_path"].decode():
            return await self._api(request)
        return HTMLResponse("<title>Airflow</title>")


# -- erasures


def erasure(
    request: str,
    state: str = "success",
    *,
    when: datetime,
    due: str,
    certificate: dict[str, Any] | None = None,
    summary: str = "",
    connection: str = "tavus_default",
) -> Run:
    """Return a run that erases a person, with the fields of its XComs that the page reads."""
    run = Run(
        "tavus_erase_person",
        f"manual__{request}_{connection}",
        when,
        state=state,
        connection=connection,
        hard=True,
        user="jo.fischer",
    )
    run.add("plan", kind="planErasure")
    run.push("plan", {"version": 1, "request": request, "due_on": due, "tavus_conn_id": run.connection})
    if certificate is None:
        return run.asked(state="awaiting_input").add("apply", None, kind="applyErasure").add("certify", None)
    run.asked("Approve").add("apply", kind="applyErasure", minutes=25).add("certify", state, minutes=26)
    run.push("certify", {"version": 1, "kind": "erasure_certificate", "request": request, **certificate})
    run.push("certify", summary, "summary")
    return run


# -- the runs of a company


def company() -> list[Run]:
    """Return the runs of an account as a company could have them, the newest one waiting for an approval."""
    day = timedelta(days=1)
    midnight = NOW.replace(hour=0, minute=0, second=0)
    runs: list[Run] = []
    before = None
    small = {**POLICY, "limits": {"max_deletions": 20, "max_deletion_percent": 50}}
    for back in (6, 5, 4, 3, 2, 1):
        when = midnight - back * day
        run = Run("tavus_prune_replicas", f"scheduled__{stamp(when)}", when)
        rows = replicas(when)
        run.planned(rows, policy=small, before=before, used=(2, 6) if back > 2 else (2, 6, 9)).applied(
            dry_run=True, minutes=3
        )
        runs.append(run)
        before = run
    rejected = Run(
        "tavus_purge_replicas",
        "manual__rejected",
        midnight - 2 * day + timedelta(hours=9),
        hard=True,
        user="jo.fischer",
    )
    rejected.planned(policy=small).asked("Reject", by="maria.santos").add("apply", "skipped")
    waiting = Run(
        "tavus_purge_replicas",
        "manual__waiting",
        NOW - timedelta(minutes=50),
        state="running",
        hard=True,
        user="jo.fischer",
    )
    waiting.planned(policy=small, before=before).asked(state="awaiting_input").add("apply", None)
    approved = Run(
        "tavus_purge_replicas",
        "manual__approved",
        midnight - 9 * day + timedelta(hours=10),
        hard=True,
        user="jo.fischer",
    )
    earlier = [(f"webinar-2025_speaker-{number}", 420 + number, "completed") for number in range(3)]
    rows = [
        *replicas(approved.when),
        *(
            Replica(
                f"r{number}e8d10c77a{number}",
                replica_name=name,
                status=status,
                replica_type="user",
                model_name="phoenix-3",
                created_at=approved.when - timedelta(days=age),
            )
            for number, (name, age, status) in enumerate(earlier)
        ),
    ]
    only = {**small, "scope": {"include": ["webinar-2025_*"], "exclude": ["brand_*"]}}
    approved.planned(rows, policy=only).asked("Approve", by="maria.santos").applied()
    return [approved, *runs, rejected, waiting]
