"""``strict_conf``: a run is refused before anything is read if its conf has a key without effect."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import Ti, delete, look_up, plan_task, requests

PARAMS = {"older_than": "90d", "dry_run": False}


def context(conf, params=None):
    return {
        "ti": Ti(),
        "dag_run": SimpleNamespace(conf=conf),
        "dag": SimpleNamespace(params=PARAMS),
        "params": PARAMS | (conf or {}) if params is None else params,
    }


@pytest.mark.parametrize(
    ("conf", "unknown"),
    [
        pytest.param({"dryrun": True}, "'dryrun'", id="mistyped switch"),
        pytest.param({"olderthan": "365d", "dry_run": True}, "'olderthan'", id="beside a known key"),
        pytest.param({"Dry_run": True, "hard": True}, "'Dry_run', 'hard'", id="two"),
        pytest.param({"conf": {"dry_run": True}}, "'conf'", id="wrapped"),
        pytest.param({f"k{n}": 1 for n in range(7)}, "'k0', 'k1', 'k2', 'k3', 'k4' and 2 more", id="many"),
    ],
)
@pytest.mark.parametrize("make", [plan_task, look_up, delete])
def test_unknown_key_is_refused_before_anything_is_read(sandbox, make, conf, unknown):
    with pytest.raises(AirflowFailException) as error:
        make(strict_conf=True).execute(context(conf))
    assert str(error.value).startswith(f"conf: unknown key {unknown}; known: older_than, dry_run. Nothing")
    assert requests(sandbox) == []


@pytest.mark.parametrize("conf", [None, {}, {"dry_run": False}, {"older_than": "200d", "dry_run": False}])
def test_known_keys_are_accepted(sandbox, conf):
    plan_task(strict_conf=True).execute(context(conf))


def test_conf_that_airflow_ignores_is_refused(sandbox):
    with pytest.raises(AirflowFailException, match=r"^conf: dry_run has no effect, because \[core\] dag_run"):
        plan_task(strict_conf=True).execute(context({"dry_run": True}, params=PARAMS))
    assert requests(sandbox) == []


def test_without_strict_conf_a_dag_may_have_keys_of_its_own(sandbox):
    plan_task().execute(context({"ticket": "T-1"}))
