"""``plan --save``, and the commands with ``--account``."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cli.commands import KEY, one_error

NAMES = ("webinar_lukas", "vip_", "legacy-import_1")


@pytest.fixture
def saved(run, policy, sandbox, tmp_path):
    """Save the account of the sandbox: ``saved(*more)``. Returns the file."""

    def save(*more):
        file = tmp_path / "account.json"
        code, _, err = run("plan", policy(), "--save", str(file), *more)
        assert (code, err) == (0, f"saved to {file}\n")
        return file

    return save


@pytest.fixture
def offline(monkeypatch, sandbox):
    """Without a connection and a ledger; no request may be sent."""

    def leave():
        monkeypatch.delenv("AIRFLOW_CONN_TAVUS_DEFAULT")
        monkeypatch.delenv("AIRFLOW__TAVUS__LEDGER")
        sent = len(sandbox.state()["requests"])
        return lambda: len(sandbox.state()["requests"]) == sent

    return leave


@pytest.mark.parametrize(
    "arguments",
    [
        *(["plan", "POLICY"], ["plan", "POLICY", "--hard"], ["explain", "POLICY", "r5e27d9a6c40"]),
        *(["simulate", "POLICY", "--days", "30"], ["diff", "POLICY", "OTHER"]),
    ],
    ids=" ".join,
)
def test_saved_account_gives_what_the_account_gives(run, policy, saved, offline, arguments):
    other = Path(policy(expire=[{"rule": "all", "older_than": "60d"}]))
    files = {"OTHER": str(other.rename(other.with_name("other.yaml"))), "POLICY": policy()}
    given = [*(files.get(one, one) for one in arguments), "-o", "json"]
    file = saved()
    live = run(*given)
    nothing_was_sent = offline()
    assert without_time(run(*given, "--account", str(file))) == without_time(live)
    assert nothing_was_sent()


def without_time(result):
    """Return what a command printed, without the time of the reading."""
    code, out, err = result
    data = json.loads(out)
    if isinstance(data, dict):
        data.pop("from")
    return code, data, err


def test_file_can_be_read_by_its_owner_only_and_has_no_key(saved, tmp_path):
    (tmp_path / "account.json").write_text("older")
    (tmp_path / "account.json").chmod(0o644)
    file = saved()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert KEY not in file.read_text()
    account = json.loads(file.read_text())
    assert (account["version"], len(account["replicas"]), account["tavus_conn_id"]) == (
        1,
        26,
        "tavus_default",
    )


def test_names_can_be_left_out(run, policy, saved, tmp_path):
    file = saved("--without-names")
    assert not [name for name in NAMES if name in file.read_text()]
    code, out, err = run("plan", policy(), "--account", str(file))
    assert (code, out) == (2, "")
    assert one_error(err) == (
        f"{file}: account: was saved without names, but scope.exclude of policy 'stale' asks for them; "
        "save the account with names"
    )
    code, out, err = run("plan", policy(scope={}), "--account", str(file), "-o", "json")
    assert code == 0
    assert {row["replica_name"] for row in json.loads(out)} == {None}


def test_everything_is_saved_although_the_policy_does_not_ask_for_it(run, policy, sandbox, tmp_path):
    simple, file = policy(expire=[{"older_than": "1d"}], keep={"in_use": []}), tmp_path / "account.json"
    run("plan", simple, "--save", str(file))
    asks = policy()
    assert run("plan", asks, "--account", str(file), "-o", "json")[1] == run("plan", asks, "-o", "json")[1]


def test_history_and_holds_are_saved(run, policy, saved, monkeypatch, tmp_path):
    (tmp_path / "holds.yaml").write_text("[r5e27d9a6c40]")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEGAL_HOLDS", str(tmp_path / "holds.yaml"))
    file = saved()
    monkeypatch.delenv("AIRFLOW__TAVUS__LEGAL_HOLDS")
    out = run("plan", policy(), "--account", str(file), "-o", "json")[1]
    assert {row["status"] for row in json.loads(out) if row["replica_id"] == "r5e27d9a6c40"} == {"held"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "is not JSON in UTF-8; expected what plan --save writes", id="torn"),
        pytest.param("[]", "account: must be a JSON object, as plan --save writes it", id="list"),
        pytest.param(
            '{"version": 2}', "account: version is 2, this release of the provider reads 1", id="version"
        ),
        pytest.param('{"version": 1}', "account.read_at is missing", id="key"),
    ],
)
def test_invalid_file_is_named(run, policy, content, message):
    file = Path(policy()).with_name("account.json")
    file.write_text(content)
    code, out, err = run("plan", policy(), "--account", str(file))
    assert (code, out) == (2, "")
    assert one_error(err) == f"{file}: {message}"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--without-names"], "--without-names: has no effect without --save"),
        (
            ["--save", "a.json", "--account", "b.json"],
            "--save and --account: use one of them; a saved account",
        ),
        (["--save", "/nowhere/a.json"], "/nowhere/a.json: cannot be written (No such file or directory)"),
        (["--account", "/nowhere/a.json"], "/nowhere/a.json: cannot be read (No such file or directory)"),
    ],
)
def test_unusable_arguments_are_named(run, policy, sandbox, more, message):
    code, out, err = run("plan", policy(), *more)
    assert (code, out) == (2, "")
    assert message in one_error(err)
