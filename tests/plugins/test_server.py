"""The files of the Tavus page: how they are served, and rules for their source text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tavus_provider.operators import tavus as operators
from tavus_provider.outcomes import Outcome
from tavus_provider.plugins.server import PageServer
from tavus_provider.rendering.labels import OUTCOMES, STATUSES

ROOT = Path(__file__).parents[2]
WWW = ROOT / "tavus_provider" / "plugins" / "www"
OWN = sorted(file for file in WWW.iterdir() if file.is_file())
SCRIPTS = {file.name: file.read_text(encoding="utf-8") for file in sorted(WWW.glob("*.js"))}


@pytest.fixture(params=["", "/airflow"], ids=["root", "sub-path"])
def client(request):
    app = FastAPI(root_path=request.param)
    app.mount("/tavus", PageServer())
    return TestClient(app, base_url=f"http://testserver{request.param}")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tavus/", "text/html"),
        ("/tavus/app.js", "text/javascript"),
        ("/tavus/labels.json", "application/json"),
        ("/tavus/style.css", "text/css"),
        ("/tavus/icon.svg", "image/svg+xml"),
        ("/tavus/views.js", "text/javascript"),
    ],
)
def test_files_are_served_with_a_strict_content_security_policy(client, path, kind):
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("form-action") == "'none'"
    assert set(policy.values()) == {"'self'"}
    assert {"script-src", "style-src", "connect-src", "frame-ancestors"} <= set(policy)


@pytest.mark.parametrize(
    "path",
    [
        "/tavus/../server.py",
        "/tavus/%2e%2e/server.py",
        "/tavus/..%2fserver.py",
        "/tavus/x",
        "/tavus//etc/passwd",
    ],
)
def test_other_paths_are_not_found(client, path):
    assert client.get(path).status_code == 404


def test_page_rejects_writes(client):
    assert client.post("/tavus/", content=b"x").status_code == 405


# -- the source text of the page


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_scripts_never_create_markup_from_text(text):
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc", text
    )


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.name)
def test_files_load_nothing_from_other_hosts_and_have_no_inline_code(file):
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|url\(|@import|\bon[a-z]+=\"|<style|style=\"", text)
    if file.suffix == ".html":
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    for module in re.findall(r"\bfrom \"([^\"]+)\";", text) if file.suffix == ".js" else ():
        assert (WWW / module).is_file()


def test_scripts_only_read_airflow_and_the_labels():
    """The page sends GET requests to Airflow's public API and for its own labels.json, and no others."""
    fetches = {name: re.findall(r"\bfetch\((.*?)[,)]", text) for name, text in SCRIPTS.items()}
    assert {name: found for name, found in fetches.items() if found} == {
        "airflow.js": ["new URL(path"],
        "labels.js": ['new URL("labels.json"'],
    }
    assert "await fetch(new URL(path, API), {" in SCRIPTS["airflow.js"]
    assert 'const API = new URL("../api/v2/", location.href);' in SCRIPTS["airflow.js"]
    for text in SCRIPTS.values():
        assert not re.search(r"method:|XMLHttpRequest|WebSocket|sendBeacon|tavusapi", text)


def test_scripts_look_for_existing_operators():
    block = re.search(r"const OPERATORS = \{(.*?)\}", SCRIPTS["airflow.js"], re.DOTALL)[1]
    names = set(re.findall(r'"(\w+)"', block))
    assert names == {
        "PlanRetentionOperator",
        "LookUpReplicaOperator",
        "ApproveRetentionOperator",
        "SplitRetentionOperator",
        "ApplyRetentionOperator",
        "SummarizeRetentionOperator",
        "DeleteReplicaOperator",
        "PlanErasureOperator",
        "ApplyErasureOperator",
        "CertifyErasureOperator",
    }
    assert all(hasattr(operators, name) for name in names)


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_scripts_take_labels_of_outcomes_from_labels_json(text):
    """A new outcome needs a row in rendering/labels.py and no change of a script."""
    # Airflow's task states have some of these names too, and "unknown" is also an age.
    for outcome in set(Outcome) - {Outcome.FAILED, Outcome.SKIPPED, Outcome.UNKNOWN}:
        assert not re.search(rf"[\"'`]{outcome}[\"'`]|\b{outcome}: ", text)


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_scripts_are_small_enough_to_read(text):
    assert len(text.splitlines()) <= 500


def test_every_tone_of_a_label_has_its_colours_in_both_themes():
    style = (WWW / "style.css").read_text(encoding="utf-8")
    for tone in {row.tone for row in (*STATUSES.values(), *OUTCOMES.values())}:
        rules = [line for line in style.splitlines() if f'[data-tone="{tone}"]' in line and "--fill" in line]
        assert [line.startswith(':root[data-theme="dark"]') for line in rules] == [False, True], tone
        assert all("--fg" in line and "--back" in line for line in rules)
        assert f'{tone}: "' in SCRIPTS["dom.js"] or f'"{tone}": "' in SCRIPTS["dom.js"], "an icon"
