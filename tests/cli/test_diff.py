"""The command that compares two policies."""

from __future__ import annotations

import json

import pytest
import yaml
from cli.commands import STALE, one_error
from operators.tasks import requests


@pytest.fixture
def diff(run, tmp_path):
    """Compare STALE with a changed copy of it: ``diff(**parts)``, and ``more`` arguments."""

    def compare(*more, old=STALE, **parts):
        files = []
        for name, policy in (("old", old), ("new", {**STALE, **parts})):
            files.append(str(tmp_path / f"{name}.yaml"))
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(policy))
        return run("diff", *files, *more)

    return compare


LAXER = [{"rule": "all", "older_than": "30d"}]


def test_policy_does_not_differ_from_itself(diff, sandbox):
    assert diff() == (0, "No verdict changes\n", "")
    assert diff("-o", "json") == (0, "[]\n", "")
    assert diff("--hard")[0] == 0


def test_more_deletes_are_shown_first_and_are_a_problem(diff, sandbox):
    code, out, err = diff(expire=LAXER, limits={"max_deletions": 100, "max_deletion_percent": 100})
    assert (code, err) == (1, "")
    first = next(line for line in out.splitlines() if line.startswith(" DELETE"))
    assert "keep" in first
    assert " of them to a delete that the old policy does not have" in out.splitlines()[-1]


def test_fewer_deletes_are_no_problem(diff, sandbox):
    code, out, err = diff(keep={"keep_within": "3000d"})
    assert (code, err) == (0, "")
    assert "12 verdicts change, 0 of them to a delete that the old policy does not have" in out
    assert "DELETE" in out


def test_what_diff_announces_is_what_plan_does(diff, run, sandbox, tmp_path):
    changes = {row["replica_id"]: row for row in json.loads(diff("-o", "json", expire=LAXER)[1])}
    before, after = (
        {
            row["replica_id"]: row["status"]
            for row in json.loads(run("plan", str(tmp_path / name), "-o", "json")[1])
        }
        for name in ("old.yaml", "new.yaml")
    )
    for replica_id in before:
        change = changes.get(replica_id)
        if change is None:
            assert before[replica_id] == after[replica_id]
        else:
            assert (change["old"]["status"], change["new"]["status"]) == (
                before[replica_id],
                after[replica_id],
            )
    expired = {replica_id for replica_id in after if (before[replica_id], after[replica_id])[1] == "expired"}
    assert {i for i, row in changes.items() if row["newly_due"]} == {
        i for i in expired if before[i] != "expired"
    }
    assert len(changes) > 3


def test_schedule_for_a_later_delete_is_a_problem(diff, sandbox):
    grace = [*STALE["expire"], {"rule": "later", "older_than": "30d", "grace": "14d"}]
    code, out, _ = diff("-o", "json", expire=grace)
    assert code == 1
    assert {row["new"]["status"] for row in json.loads(out) if row["newly_due"]} == {"scheduled"}


def test_account_is_read_once(diff, run, sandbox, tmp_path):
    diff(expire=LAXER)
    both = len(requests(sandbox, "GET"))
    run("plan", str(tmp_path / "old.yaml"))
    assert len(requests(sandbox, "GET")) - both == both


def test_exceeded_limit_is_told_with_its_file(diff, sandbox, tmp_path):
    code, _, err = diff(expire=LAXER)
    assert code == 1
    assert one_error(err).startswith(f"a run with {tmp_path}/new.yaml would stop: ")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        pytest.param({"limits": {"max_deletions": -1}}, "limits.max_deletions: must be >= 0", id="invalid"),
        pytest.param({"account": {"expect_present": ["rffff"]}}, "names rffff, not listed", id="account"),
        pytest.param(
            {"legal_holds": {"file": "/nowhere/holds.yaml", "max_age": "1d"}},
            "which replicas are held",
            id="holds",
        ),
    ],
)
def test_what_cannot_be_decided_is_an_error(diff, sandbox, parts, message):
    code, out, err = diff(**parts)
    assert (code, out) == (2, "")
    assert message in one_error(err)


def test_each_policy_has_its_own_holds(diff, sandbox, tmp_path):
    (tmp_path / "holds.yaml").write_text("[r5e27d9a6c40]")
    code, out, _ = diff("-o", "json", legal_holds={"file": str(tmp_path / "holds.yaml"), "max_age": "1d"})
    assert code == 0
    (change,) = json.loads(out)
    assert (change["replica_id"], change["new"]["status"]) == ("r5e27d9a6c40", "held")


def test_pattern_of_the_new_policy_that_matches_nothing_is_told(diff, sandbox, tmp_path):
    code, _, err = diff(scope={"exclude": ["vip_*", "VIP-*"]})
    assert code == 0
    assert one_error(err).startswith(
        f"warning: {tmp_path}/new.yaml: scope.exclude: pattern 'VIP-*' matches no name"
    )
