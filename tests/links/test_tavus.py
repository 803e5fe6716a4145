from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.links.tavus import PORTAL, ReplicaLibraryLink, TavusPageLink
from tavus_provider.operators import tavus as operators

KEY = SimpleNamespace(dag_id="d", run_id="manual__2026-01-01T00:00:00+00:00", task_id="a.b", map_index=-1)
OPERATORS = [
    operators.PlanRetentionOperator,
    operators.ApproveRetentionOperator,
    operators.ApplyRetentionOperator,
    operators.DeleteReplicaOperator,
    operators.LookUpReplicaOperator,
]


@pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.__name__)
def test_operators_have_both_links(kind):
    assert {link.name for link in kind.operator_extra_links} >= {"Tavus page", "Replicas at Tavus"}


@pytest.mark.parametrize(
    "base", ["https://airflow.test", "https://airflow.test/", "https://airflow.test/sub/path"]
)
def test_page_link_is_under_the_base_url_and_encodes_the_run_id(monkeypatch, base):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    address = urlsplit(TavusPageLink().get_link(None, ti_key=KEY))
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{base.rstrip('/')}/plugin/tavus"
    assert parse_qs(address.query) == {
        "dag_id": ["d"],
        "run_id": [KEY.run_id],
        "task_id": ["a.b"],
        "map_index": ["-1"],
    }


@pytest.mark.parametrize(
    ("given", "address"),
    [("", PORTAL), (" ", PORTAL), ("https://maker.tavus.io/dev/faces", "https://maker.tavus.io/dev/faces")],
)
def test_portal_link_is_the_setting_or_its_default(monkeypatch, given, address):
    monkeypatch.setenv("AIRFLOW__TAVUS__PORTAL", given)
    assert ReplicaLibraryLink().get_link(None, ti_key=KEY) == address


@pytest.mark.parametrize(
    "bad", ["javascript:alert(1)", "platform.tavus.io", "https://a b", 'https://a/"onclick=']
)
def test_portal_that_is_no_web_url_is_rejected(monkeypatch, bad):
    monkeypatch.setenv("AIRFLOW__TAVUS__PORTAL", bad)
    with pytest.raises(
        TavusValidationError,
        match=r"^\[tavus\] portal: .* is not the URL of a web page; expected a URL such as https://",
    ):
        ReplicaLibraryLink().get_link(None, ti_key=KEY)


def test_links_are_pushed_to_xcom(sandbox, run_dag):
    run = run_dag("tavus_prune_replicas", {"dry_run": True})
    for task_id in ("plan", "apply"):
        assert run.pull(task_id, "_link_ReplicaLibraryLink") == PORTAL
        assert f"task_id={task_id}" in run.pull(task_id, "_link_TavusPageLink")
