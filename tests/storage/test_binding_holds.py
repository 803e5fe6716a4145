"""Legal holds of the deployment bind every task, whatever policy it was given."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.policy import LegalHolds
from tavus_provider.storage.binding_holds import read_binding_holds

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Write a file of held ids and return its location: ``source(name, ids)``."""
    monkeypatch.delenv("AIRFLOW__TAVUS__POLICY", raising=False)

    def write(name, ids, as_of="2026-09-01T11:00:00Z"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"{{as_of: {as_of}, replica_ids: [{ids}]}}")
        return str(path)

    return write


@pytest.fixture
def deployment(source, monkeypatch, tmp_path):
    """``r1`` is held by ``[tavus] legal_holds``, ``r2`` by the file ``[tavus] policy``."""
    monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS", source("setting", "r1"))
    (tmp_path / "policy.yaml").write_text(
        "{expire: [{older_than: 90d}], legal_holds: "
        f"{{file: {source('policy-holds', 'r2')}, max_age: 2d}}}}"
    )
    monkeypatch.setenv("AIRFLOW__TAVUS__POLICY", str(tmp_path / "policy.yaml"))


def test_without_settings_only_the_policy_holds(source):
    assert read_binding_holds(now=NOW) == frozenset()
    assert read_binding_holds(LegalHolds(file=source("own", "r3"), max_age="2d"), now=NOW) == {"r3"}


def test_holds_of_the_deployment_are_added_to_those_of_the_policy(deployment, source):
    assert read_binding_holds(now=NOW) == {"r1", "r2"}
    own = LegalHolds(file=source("own", "r3"), max_age="2d")
    assert read_binding_holds(own, now=NOW) == {"r1", "r2", "r3"}


@pytest.mark.parametrize("missing", ["setting.yaml", "policy-holds.yaml", "policy.yaml"])
def test_file_that_cannot_be_read_is_an_error(deployment, tmp_path, missing):
    (tmp_path / missing).unlink()
    with pytest.raises(TavusValidationError, match=missing):
        read_binding_holds(now=NOW)


@pytest.mark.parametrize(("max_age", "accepted"), [(None, True), ("7d", True), ("5d", False)])
def test_list_of_the_deployment_has_a_maximum_age_of_a_week_unless_set(
    source, monkeypatch, max_age, accepted
):
    monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS", source("old", "r1", "2026-08-26T11:00:00Z"))
    if max_age is not None:
        monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS_MAX_AGE", max_age)
    if accepted:
        assert read_binding_holds(now=NOW) == {"r1"}
        with pytest.raises(TavusValidationError, match=r"max_age is 7d"):
            read_binding_holds(now=NOW.replace(day=3))
    else:
        with pytest.raises(TavusValidationError, match=r"max_age is 5d"):
            read_binding_holds(now=NOW)


def test_invalid_maximum_age_names_the_setting(source, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS", source("setting", "r1"))
    monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS_MAX_AGE", "1m")
    with pytest.raises(
        TavusValidationError, match=r"^\[tavus\] legal_holds_max_age: '1m' is ambiguous; write"
    ):
        read_binding_holds(now=NOW)
