"""What the README shows is run here, so that it cannot drift."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def readme_dag(tmp_path, run_dag):
    """Put a snippet into a DAG folder of its own and run it."""

    def run(containing: str, dag_id: str, **kwargs):
        snippet = next(block for block in blocks("python") if containing in block)
        (tmp_path / f"{dag_id}.py").write_text(snippet, encoding="utf-8")
        return run_dag(dag_id, folder=tmp_path, **kwargs)

    return run


def test_the_smallest_dag_deletes_its_replica_or_finds_it_gone(readme_dag, serve):
    tavus = serve({"replicas": [{"replica_id": "rf4e9d9790f0", "replica_name": "one", "age": "5d"}]})
    assert readme_dag('"delete_one"', "delete_one").pull("delete")["outcome"] == "deleted"
    assert tavus.state()["deletes"] == [{"replica_id": "rf4e9d9790f0", "hard": False}]
    assert readme_dag('"delete_one"', "delete_one").pull("delete")["outcome"] == "already_gone"


def test_the_worked_policy_gives_the_verdicts_of_its_table(readme_dag, sandbox):
    run = readme_dag('"retention"', "retention")
    assert run.state == "success"
    table = re.findall(r"^\| `([a-z0-9_-]+)` \| (stays|goes) \| (.*) \|$", README, re.MULTILINE)
    verdicts = {row["replica_name"]: row for row in run.pull("plan", key="verdicts")["rows"]}
    assert len(table) == 7
    for name, fate, reason in table:
        assert (verdicts[name]["status"] == "expired") == (fate == "goes"), name
        assert verdicts[name]["reason"] == reason
    assert {row["replica_id"] for row in sandbox.state()["deletes"]} == {
        row["replica_id"] for row in run.pull("plan")["delete"]
    }


@pytest.fixture
def chat(monkeypatch):
    """A chat's webhook on loopback: the texts that it was sent."""
    texts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            texts.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("CHAT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/")
        yield texts
        server.shutdown()


def test_the_notices_of_the_example_reach_the_chat(readme_dag, sandbox, chat):
    run = readme_dag('"retention_told"', "retention_told")
    assert run.state == "failed"
    (text,) = chat
    assert text.startswith(f"retention_told / plan failed in run {run.run_id}; 6 of 26 replicas to delete")
    scope: dict = {}
    exec(next(block for block in blocks("python") if '"pruned"' in block), scope)
    events = {"asset": [SimpleNamespace(extra={"counts": {"deleted": 3}})]}
    scope["tell"].function(triggering_asset_events=events)
    assert chat[1:] == ["Pruned: 3 replicas"]


def test_the_dag_over_workers_carries_out_its_whole_plan(readme_dag, sandbox):
    run = readme_dag('"over_workers"', "over_workers")
    assert run.state == "success"
    planned = {row["replica_id"] for row in run.pull("plan")["delete"]}
    assert planned
    assert planned == {row["replica_id"] for row in sandbox.state()["deletes"]}
    assert run.pull("summary")["counts"]["deleted"] == len(planned)


@pytest.mark.parametrize("number", [0, 1], ids=["JSON", "URI"])
def test_each_way_to_define_the_connection_is_read(number, monkeypatch):
    from tavus_provider.hooks.tavus import TavusHook

    given = re.findall(r"export AIRFLOW_CONN_TAVUS_DEFAULT='(.*)'", README)
    monkeypatch.setenv("AIRFLOW_CONN_TAVUS_DEFAULT", given[number])
    with TavusHook() as hook:
        assert hook.origin == "https://tavusapi.com"
        assert hook.client._transport._key == "YOUR-API-KEY"


def test_the_origins_of_the_example_are_admitted(monkeypatch, connect):
    from tavus_provider.hooks.tavus import TavusHook

    connect("http://127.0.0.1:8600")
    monkeypatch.setenv(
        "AIRFLOW__TAVUS__ALLOWED_ORIGINS",
        re.search(r"export AIRFLOW__TAVUS__ALLOWED_ORIGINS='(.*)'", README)[1],
    )
    with TavusHook() as hook:
        assert hook.origin == "http://127.0.0.1:8600"


def test_every_make_word_in_the_readme_is_in_the_makefile():
    words = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "airflow", "plan"} <= words
    assert words <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_the_table_of_extras_has_the_defaults_of_the_code():
    from tavus_provider.client.config import ClientOptions

    rows = dict(re.findall(r"^\| `(timeout|concurrency|requests_per_second)` \| ([^|]*) \|", README, re.M))
    defaults = ClientOptions()
    assert set(rows) == set(ClientOptions.__dataclass_fields__)
    assert float(rows["timeout"]) == defaults.timeout
    assert int(rows["concurrency"]) == defaults.concurrency
    assert rows["requests_per_second"] == "no limit"
    assert defaults.requests_per_second is None


def test_the_table_of_outcomes_has_all_of_them_with_the_red_ones_last():
    from tavus_provider.outcomes import ORDER, UNFINISHED

    rows = re.findall(r"^\| `([a-z_]+)` \|", README[README.index("## Outcomes") :], re.MULTILINE)
    assert set(rows) == set(ORDER)
    assert set(rows[-3:]) == UNFINISHED


def test_picture_of_the_plan_shows_the_reasons_that_are_logged():
    logged = subprocess.run(
        [sys.executable, "-c", "import picture; print(*picture.plan_lines(), sep='\\n')"],
        cwd=ROOT / "scripts",
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    picture = (ROOT / "docs" / "plan.svg").read_text(encoding="utf-8")
    shown = html.unescape(re.sub(r"<[^>]*>", "", picture)).replace("\N{NO-BREAK SPACE}", " ")
    reasons = [
        re.split(r" {2,}", line.strip())[-1]
        for line in logged.splitlines()
        if re.match(r"DELETE|keep", line) and not re.search(r"\d{4}-\d{2}-\d{2}T", line)
    ]
    assert len(reasons) > 20
    assert [reason for reason in reasons if reason not in shown] == []


def test_the_floors_in_the_readme_are_those_of_the_package():
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    airflow = re.search(r"apache-airflow>=(\S+)", setup)[1]
    python = re.search(r"python_requires = >=(\S+)", setup)[1]
    assert f"Airflow {airflow} or newer, Python {python} or newer" in README
