"""The difference and the forecast that a plan task pushes, and the error of a task that fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import EXPIRED, KEY, POLICY, Ti, plan_task, run

from tavus_provider.exceptions import TavusError
from tavus_provider.operators import page_xcoms


class LaterTi(Ti):
    """The task instance of a later run, which can pull the XComs of earlier ones."""

    def __init__(self, *, prior=None, scheduled=None) -> None:
        super().__init__(run_id="scheduled__2")
        self.prior, self.scheduled = prior, scheduled

    def xcom_pull(self, task_ids=None, key="return_value", **kwargs):
        assert kwargs.pop("map_indexes") == -1
        assert not self.pushed.get("verdicts"), "the run before is asked for before this one pushes"
        before = self.scheduled if kwargs == {"run_id": "scheduled__1"} else self.prior
        return before.pushed.get(key) if before else None

    def get_previous_dagrun(self):
        return SimpleNamespace(run_id="scheduled__1") if self.scheduled else None


def finished(made_at: str | None = None) -> Ti:
    ti = Ti()
    ti.pushed["return_value"] = run(plan_task(), ti)
    if made_at:
        ti.pushed["return_value"]["made_at"] = made_at
    return ti


def test_first_plan_has_no_difference_and_a_forecast(sandbox):
    ti = Ti()
    run(plan_task(POLICY | {"limits": {"max_deletion_percent": 100}}), ti)
    assert ti.pushed["difference"] == {"version": 1, "notice": "There is no plan before this one"}
    assert ti.pushed["forecast"]["weeks"][0]["count"] >= len(EXPIRED)


def test_plan_is_compared_with_the_newest_run_before(sandbox):
    ti = LaterTi(prior=finished("2026-01-01T00:00:00Z"), scheduled=finished("2026-11-01T00:00:00Z"))
    run(plan_task(), ti)
    assert ti.pushed["difference"]["made_at"] == "2026-11-01T00:00:00Z"
    assert ti.pushed["difference"]["counts"]["unchanged"] == len(EXPIRED)


def test_plan_does_not_fail_if_its_difference_does(sandbox, monkeypatch, log):
    def fail(*args):
        raise ConnectionError(KEY)

    monkeypatch.setattr(page_xcoms, "_pull_before", fail)
    ti = Ti()
    assert len(run(plan_task(), ti)["delete"]) == len(EXPIRED)
    assert "difference" not in ti.pushed
    assert "weeks" in ti.pushed["forecast"]
    lines = [line for line in log() if "The difference is missing on the Tavus page: ConnectionError" in line]
    assert lines
    assert KEY not in lines[0]


@pytest.mark.parametrize("fault", [401, 500])
def test_error_of_a_task_is_pushed(sandbox, fault):
    sandbox.switch(faults=[{"method": "GET", "status": fault, "times": None}])
    ti = Ti()
    with pytest.raises((AirflowFailException, TavusError)) as caught:
        run(plan_task(), ti)
    error = ti.pushed["error"]
    assert error["message"] == str(caught.value)
    assert error["kind"] == ("TavusAuthError" if fault == 401 else "TavusInvalidResponseError")
    assert KEY not in error["message"]


def test_error_that_cannot_be_pushed_does_not_hide_the_error(sandbox):
    class Broken(Ti):
        def xcom_push(self, key, value):
            raise ConnectionError("the API server does not respond")

    sandbox.switch(faults=[{"method": "GET", "status": 401, "times": None}])
    with pytest.raises(AirflowFailException, match="key"):
        run(plan_task(), Broken())
