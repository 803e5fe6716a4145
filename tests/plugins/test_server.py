"""The files of the Tavus page as a browser gets them, and what must hold for their text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tavus_provider.execution.executor import OUTCOMES
from tavus_provider.operators import tavus as operators
from tavus_provider.plugins.server import PageServer

ROOT = Path(__file__).parents[2]
WWW = ROOT / "tavus_provider" / "plugins" / "www"
OWN = [WWW / "index.html", WWW / "app.js", WWW / "style.css", WWW / "icon.svg", WWW / "icon-dark.svg"]
APP = (WWW / "app.js").read_text(encoding="utf-8")


@pytest.fixture(params=["", "/airflow"], ids=["at the root", "under a sub-path"])
def client(request):
    app = FastAPI(root_path=request.param)
    app.mount("/tavus", PageServer())
    return TestClient(app, base_url=f"http://testserver{request.param}")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tavus/", "text/html"),
        ("/tavus/app.js", "text/javascript"),
        ("/tavus/style.css", "text/css"),
        ("/tavus/icon.svg", "image/svg+xml"),
        ("/tavus/vendor/chart.umd.min.js", "text/javascript"),
    ],
)
def test_each_file_of_the_page_is_served_and_may_load_nothing_from_elsewhere(client, path, kind):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
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
def test_nothing_beside_the_page_is_served(client, path):
    assert client.get(path).status_code == 404


def test_the_page_is_only_read(client):
    assert client.post("/tavus/", content=b"x").status_code == 405


# -- what must hold for the text, whoever changes it


def test_no_text_becomes_markup():
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc", APP
    )


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.name)
def test_nothing_is_fetched_from_another_host_and_nothing_is_inline(file):
    text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://|url\(|@import|\bon[a-z]+=\"|<style|style=\"", text)
    if file.suffix == ".html":
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)


def test_the_only_requests_are_reads_of_airflows_public_api():
    assert re.findall(r"\bfetch\(([^,]*),", APP) == ["new URL(path"]
    assert "await fetch(new URL(path, API), {" in APP
    assert 'const API = new URL("../api/v2/", location.href);' in APP
    assert not re.search(r"method:|XMLHttpRequest|WebSocket|sendBeacon|tavusapi", APP)


def test_the_page_looks_for_the_operators_by_their_names():
    block = re.search(r"const OPERATORS = \{(.*?)\}", APP, re.DOTALL)[1]
    named = set(re.findall(r'"(\w+)"', block))
    assert named == {
        "PlanRetentionOperator",
        "ApproveRetentionOperator",
        "ApplyRetentionOperator",
        "DeleteReplicaOperator",
    }
    assert all(hasattr(operators, name) for name in named)


def test_the_page_knows_every_outcome():
    block = re.search(r"const OUTCOMES = \{(.*?)\n\}", APP, re.DOTALL)[1]
    assert set(re.findall(r"^  (\w+):", block, re.MULTILINE)) == set(OUTCOMES)


def test_each_chart_has_a_label_and_a_table_with_its_numbers():
    html = (WWW / "index.html").read_text(encoding="utf-8")
    charts = re.findall(r'<canvas id="([a-z]+)-chart" role="img">', html)
    assert charts == ["decides", "ages", "runs"]
    for name in charts:
        assert re.search(rf'chart\("{name}-chart", `Bars: .*table (beside|below) has the numbers', APP)
        assert f'id="{name}-table"' in html or f'id="{name}"' in html


def test_the_chart_library_is_that_of_the_makefile_with_its_licence_beside_it():
    version = re.search(r"^CHARTS := chart\.js@([0-9.]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    head = (WWW / "vendor" / "chart.umd.min.js").read_text(encoding="utf-8")[:200]
    assert f"Chart.js v{version}\n" in head
    assert "MIT" in (WWW / "vendor" / "chart.js.LICENSE.md").read_text()
