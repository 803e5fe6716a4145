"""
Every block of code in the documentation is run, or at least parsed.

A DAG is run against a sandbox, other Python is executed, a policy is checked, and of a shell block every line
must be a command that is known here. The API key and the URLs of the examples are replaced by those of the
sandbox.
"""

from __future__ import annotations

import configparser
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import yaml
from erasures import erase
from pages import MAKEFILE, ROOT, blocks, params, read

PYTHON = blocks("python")
DAGS = [block for block in PYTHON if "with DAG(" in block.text]
OTHER_PYTHON = [block for block in PYTHON if "with DAG(" not in block.text]
COMMANDS = [(block.where, command) for block in blocks("bash") for command in block.text.splitlines()]
RUNS = {
    "delete_one": "success",
    "retention": "success",
    "several_workers": "success",
    "several_accounts": "success",
    "retention_with_alert": "failed",  # the plan exceeds the limit of the example, so that it alerts
}
"""The state in which a run of each DAG against the sandbox's account ends."""
NOT_RUN = {
    "purge": "waits for a person; tests/test_airflow.py runs the same tasks",
    "retention_in_time": "dag.test() cannot run a DAG with a deadline",
    "report_pruned": "runs when an asset event happens; see test_asset_example_reads_the_event",
    "delete_copies": "runs when an asset event happens; see test_erasure_example_reads_the_event",
}


def test_every_block_has_a_language_that_is_tested():
    assert {block.language for block in blocks()} <= {"python", "bash", "yaml", "ini", "json", "text"}


# --- Python ---------------------------------------------------------------------------------------------


def dag_ids(block) -> list[str]:
    return re.findall(r"with DAG\(\s*\"(\w+)\"", block.text)


@pytest.fixture
def dag_of_page(tmp_path, run_dag):
    """Put a block into a DAG folder of its own and run one of its DAGs."""

    def run(dag_id: str, **kwargs):
        block = next(block for block in DAGS if dag_id in dag_ids(block))
        (tmp_path / f"{dag_id}.py").write_text(block.text, encoding="utf-8")
        return run_dag(dag_id, folder=tmp_path, **kwargs)

    return run


@pytest.fixture
def chat(monkeypatch):
    """A webhook on loopback: the texts that it received."""
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


def test_every_dag_of_the_pages_is_known():
    assert sorted(dag_id for block in DAGS for dag_id in dag_ids(block)) == sorted([*RUNS, *NOT_RUN])


@pytest.mark.parametrize("dag_id", NOT_RUN)
def test_dag_that_is_not_run_can_be_loaded(dag_id):
    block = next(block for block in DAGS if dag_id in dag_ids(block))
    exec(compile(block.text, block.where, "exec"), {"__name__": "example"})


@pytest.mark.parametrize(("dag_id", "state"), RUNS.items())
def test_dag_runs_against_the_sandbox(dag_of_page, sandbox, chat, dag_id, state):
    if dag_id == "delete_one":
        row = {"replica_id": "rf4e9d9790f0", "age": "5d"}
        requests.post(f"{sandbox.url}/_sandbox/replicas", json=row, timeout=10).raise_for_status()
    run = dag_of_page(dag_id)
    assert run.state == state
    if dag_id == "delete_one":
        expected = ["rf4e9d9790f0"]
        assert run.pull("delete")["outcome"] == "deleted"
    elif dag_id == "several_accounts":
        expected = [row["replica_id"] for row in run.pull("account.plan", at=0)["delete"]]
        assert expected
    else:
        expected = [row["replica_id"] for row in run.pull("plan")["delete"]] if state == "success" else []
    assert sorted(row["replica_id"] for row in sandbox.state()["deletes"]) == sorted(expected)
    if dag_id == "several_workers":
        assert run.pull("summary")["counts"]["deleted"] == len(expected) > 0
    if dag_id == "retention_with_alert":
        (text,) = chat
        assert text.startswith(f"retention_with_alert / plan failed in run {run.run_id}; 6 of 26 replicas")


@pytest.mark.parametrize("block", params([block for block in DAGS if set(dag_ids(block)) & NOT_RUN.keys()]))
def test_dag_that_is_not_run_is_parsed(block):
    exec(compile(block.text, block.where, "exec"), {"__name__": "dag_file"})


def test_erasure_example_reads_the_event(capsys):
    block = next(block for block in DAGS if "delete_copies" in dag_ids(block))
    scope: dict = {"__name__": "dag_file"}
    exec(block.text, scope)
    events = {"asset": [SimpleNamespace(extra={"keys": ["r1", "video/v1"]})]}
    scope["delete_copies"].function(triggering_asset_events=events)
    assert capsys.readouterr().out == "delete rows of ['r1', 'video/v1']\n"


def test_asset_example_reads_the_event(chat):
    block = next(block for block in DAGS if "report_pruned" in dag_ids(block))
    scope: dict = {"__name__": "dag_file"}
    exec(block.text, scope)
    events = {"asset": [SimpleNamespace(extra={"counts": {"deleted": 3}})]}
    scope["tell"].function(triggering_asset_events=events)
    assert chat == ["Pruned: 3 replicas"]


@pytest.mark.parametrize("block", params(OTHER_PYTHON))
def test_other_python_runs_against_the_sandbox(block, sandbox, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = block.text.replace("https://tavusapi.com", sandbox.url).replace("YOUR-API-KEY", sandbox.key)
    exec(compile(text, block.where, "exec"), {"__name__": "example"})


# --- YAML, configuration, JSON --------------------------------------------------------------------------


@pytest.mark.parametrize("block", params(blocks("yaml")))
def test_yaml_is_a_policy_or_a_list_of_holds(block, tmp_path):
    from datetime import UTC, datetime

    from tavus_provider.retention.policy import Policy
    from tavus_provider.storage.policy_files import read_legal_holds

    document = yaml.safe_load(block.text)
    if "replica_ids" not in document:
        assert Policy.find_problems(document) == []
        return
    (tmp_path / "holds.yaml").write_text(block.text, encoding="utf-8")
    holds = {"file": str(tmp_path / "holds.yaml"), "max_age": "1d"}
    policy = Policy.parse({"expire": [{"older_than": "1d"}], "legal_holds": holds})
    now = document["as_of"] if isinstance(document["as_of"], datetime) else datetime.now(UTC)
    assert read_legal_holds(policy.legal_holds, now=now) == set(document["replica_ids"])


@pytest.mark.parametrize("block", params(blocks("ini")))
def test_configuration_has_known_options(block):
    from tavus_provider.get_provider_info import get_provider_info

    parser = configparser.ConfigParser()
    parser.read_string(block.text)
    assert parser.sections() in (["tavus"], ["dag_processor"])
    if parser.has_section("tavus"):
        assert set(parser["tavus"]) <= set(get_provider_info()["config"]["tavus"]["options"])
        return
    for bundle in json.loads(parser["dag_processor"]["dag_bundle_config_list"]):
        # tests/test_wheel.py loads the DAGs from such a bundle.
        pkgutil.resolve_name(bundle["classpath"])(name=bundle["name"], **bundle["kwargs"])


@pytest.mark.parametrize("block", params(blocks("json")))
def test_json_is_json(block):
    json.loads(block.text)


# --- shell ----------------------------------------------------------------------------------------------


def shell(prefix: str):
    """Return the commands of the pages that begin with a word."""
    chosen = [(where, command) for where, command in COMMANDS if re.match(rf"{prefix}(?!\S)", command)]
    return [pytest.param(command, id=f"{where} {' '.join(command.split()[:4])}") for where, command in chosen]


# The test of the wheel runs it.
PRINT_FOLDER = "import tavus_provider.dags as dags; print(dags.__path__[0])"
ALLOWED = [
    r"make [a-z-]+(  +#.*)?",
    r"pip install \.",
    r"pip install '\.\[sandbox\]'",
    r"pip uninstall airflow-provider-tavus",
    re.escape(f'python -P -c "{PRINT_FOLDER}"'),
    re.escape('mkdir -p "${AIRFLOW_HOME:=$HOME/airflow}/dags"'),
    re.escape(f"""cp "$(python -P -c '{PRINT_FOLDER}')"/tavus_*.py "$AIRFLOW_HOME/dags/\""""),
    re.escape(f"""diff -u --to-file="$AIRFLOW_HOME/dags" "$(python -P -c '{PRINT_FOLDER}')"/tavus_*.py"""),
    r"export [A-Z_]+='[^']*'",
    r"airflow .*",
    r"curl .*",
    r"git show origin/main:retention\.yaml > old\.yaml",
    r"python -m tavus_provider(\.sandbox|\.rendering\.labels)? .*",
    r"\.venv/bin/python -m pytest .*",
]


@pytest.mark.parametrize(("where", "command"), COMMANDS)
def test_every_command_is_one_that_is_tested(where, command):
    assert any(re.fullmatch(known, command) for known in ALLOWED), where


@pytest.mark.parametrize("command", shell("make"))
def test_make_target_exists(command):
    assert re.search(rf"^{command.split()[1]}:", MAKEFILE, re.MULTILINE)


@pytest.fixture
def report_file(sandbox, run_task, tmp_path):
    """The report of a run with the policy of docs/retention.yaml, as JSON in a file."""
    from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

    policy = yaml.safe_load(read("docs/retention.yaml"))
    plan = run_task(PlanRetentionOperator(task_id="plan", policy=policy)).pushed["return_value"]
    report = run_task(ApplyRetentionOperator(task_id="apply", plan=plan)).pushed["return_value"]
    assert report["counts"]["deleted"] == 1
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report), encoding="utf-8")
    return file


@pytest.mark.parametrize("command", shell(r"python -m tavus_provider"))
def test_command_of_the_package_runs(command, sandbox, report_file, monkeypatch, capsys):
    from tavus_provider.cli.main import main

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.chdir(report_file.parent)
    Path("retention.yaml").write_text(read("docs/retention.yaml"), encoding="utf-8")
    Path("new.yaml").write_text(read("docs/retention.yaml"), encoding="utf-8")
    Path("old.yaml").write_text(read("docs/retention.yaml"), encoding="utf-8")
    if "--account" in command:
        assert main(["plan", "retention.yaml", "--save", "account.json"]) == 0
    if command.split()[3] == "erasure":
        erase()
        (stored,) = Path(os.environ["AIRFLOW__TAVUS__LEDGER"]).glob("_certificates/*/1.json")
        Path("certificate.json").write_bytes(stored.read_bytes())
    deletes = sandbox.state()["deletes"]
    arguments = shlex.split(command, comments=True)[3:]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    assert main(arguments) == 0
    assert arguments[0] in ("ledger", "erasure") or capsys.readouterr().out
    assert Path("year.svg").exists() == ("--picture" in arguments)
    assert sandbox.state()["deletes"] == deletes


def test_every_command_of_the_package_is_shown():
    from tavus_provider.cli.main import main

    shown = {command.values[0].split()[3] for command in shell(r"python -m tavus_provider")}
    assert shown == {"schema", "check", "plan", "diff", "explain", "simulate", "ledger", "erasure"}
    assert callable(main)


@pytest.mark.parametrize("command", shell("export"))
def test_exported_variable_is_read(command, connect, monkeypatch):
    from tavus_provider.get_provider_info import get_provider_info
    from tavus_provider.hooks.tavus import TavusHook

    connect("https://tavusapi.com")
    name, value = re.fullmatch(r"export ([A-Z_]+)='(.*)'", command).groups()
    monkeypatch.setenv(name, value)
    if name == "TAVUS_API_KEY":
        assert name in read("scripts/try_it.py")
        return
    if name.startswith("AIRFLOW__TAVUS__"):
        option = name.removeprefix("AIRFLOW__TAVUS__").lower()
        assert option in get_provider_info()["config"]["tavus"]["options"]
        return
    assert name == "AIRFLOW_CONN_TAVUS_DEFAULT"
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", "https://tavusapi.com,http://127.0.0.1:8600")
    with TavusHook() as hook:
        assert hook.client._transport._key in ("YOUR-API-KEY", "sandbox")
        assert hook.origin in ("https://tavusapi.com", "http://127.0.0.1:8600")


def test_origins_of_the_example_are_allowed(monkeypatch, connect):
    from tavus_provider.hooks.tavus import TavusHook

    connect("http://127.0.0.1:8600")
    pattern = r"export AIRFLOW__TAVUS__ALLOWED_ORIGINS='(.*)'"
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", re.search(pattern, read("docs/connection.md"))[1])
    with TavusHook() as hook:
        assert hook.origin == "http://127.0.0.1:8600"


@pytest.mark.parametrize("command", shell("airflow"))
def test_airflow_command_is_accepted(command, airflow_db):
    from airflow.cli.cli_parser import get_parser

    arguments = get_parser().parse_args(shlex.split(command, comments=True)[1:])
    if arguments.subcommand == "connections":
        from airflow.models import Connection
        from airflow.utils.session import create_session

        with create_session() as session:
            session.query(Connection).filter(Connection.conn_id == arguments.conn_id).delete()
        arguments.func(arguments)
        with create_session() as session:
            added = session.query(Connection).filter(Connection.conn_id == arguments.conn_id).one()
            assert (added.conn_type, added.password) in [("tavus", "YOUR-API-KEY"), ("tavus", "sandbox")]
            session.delete(added)


@pytest.mark.parametrize("command", shell("curl"))
def test_control_request_to_the_sandbox_is_accepted(command, sandbox):
    arguments = shlex.split(command, comments=True)[1:]
    (url,) = [word for word in arguments if word.startswith("http://127.0.0.1:8600")]
    body = arguments[arguments.index("-d") + 1] if "-d" in arguments else None
    response = requests.request(
        "GET" if body is None else "POST",
        url.replace("http://127.0.0.1:8600", sandbox.url),
        data=body,
        headers={"content-type": "application/json"},
        timeout=10,
    )
    assert response.ok, response.text


@pytest.mark.parametrize("command", shell(r"python -m tavus_provider\.sandbox"))
def test_sandbox_starts(command, tmp_path):
    (tmp_path / "seed.yaml").write_text("replicas:\n- {replica_id: r1, age: 200d}\n", encoding="utf-8")
    arguments = shlex.split(command, comments=True)[3:]
    if "--port" in arguments:
        arguments[arguments.index("--port") + 1] = "0"
    else:
        arguments += ["--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "tavus_provider.sandbox", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert "Tavus sandbox at http://127.0.0.1:" in process.stdout.readline()
        finally:
            process.terminate()


@pytest.mark.parametrize("command", shell(r"\.venv/bin/python"))
def test_tests_that_are_run_exist(command):
    (path,) = re.findall(r"tests\S*", command)
    assert (ROOT / path).exists()
