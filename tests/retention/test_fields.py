"""Durations, and the messages for text that is not a duration."""

from __future__ import annotations

from datetime import timedelta

import pytest
from retention.samples import (
    policy,
)

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.policy import Policy

DURATION = "must be one number and one unit such as 90d (units: y, w, d, h, min), not"
UNITS = "(units: y, w, d, h, min)"
RANGE = "must be greater than 0 and at most 36500d, not"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param("90", "'90' has no unit; write 90d (units: y, w, d, h, min)", id="text without a unit"),
        pytest.param(90, "90 has no unit; write 90d (units: y, w, d, h, min)", id="number"),
        pytest.param("", f"{DURATION} ''", id="empty"),
        pytest.param("  ", f"{DURATION} '  '", id="blank"),
        pytest.param(None, f"{DURATION} None", id="none"),
        pytest.param("None", f"{DURATION} 'None'", id="rendered none"),
        pytest.param(
            "{{ params.older_than }}", f"{DURATION} '{{{{ params.older_than }}}}'", id="not rendered"
        ),
        pytest.param("0d", f"{RANGE} '0d'", id="zero days"),
        pytest.param("0", f"{DURATION} '0'", id="zero"),
        pytest.param(0, f"{DURATION} 0", id="zero as a number"),
        pytest.param("-1d", f"{DURATION} '-1d'", id="negative"),
        pytest.param(-1, f"{DURATION} -1", id="negative number"),
        pytest.param("1.5d", f"{DURATION} '1.5d'", id="fraction"),
        pytest.param(1.5, f"{DURATION} 1.5", id="float"),
        pytest.param(float("nan"), f"{DURATION} nan", id="nan"),
        pytest.param(True, f"{DURATION} True", id="bool"),
        pytest.param("90D", f"{DURATION} '90D'", id="upper case"),
        pytest.param("90 d", f"{DURATION} '90 d'", id="space inside"),
        pytest.param("90d\n", f"{DURATION} '90d\\n'", id="newline"),
        pytest.param("1d12h", f"{DURATION} '1d12h'", id="two units"),
        pytest.param("6m", f"'6m' is ambiguous; write 6min or 180d {UNITS}", id="months or minutes"),
        pytest.param("6M", f"'6M' is ambiguous; write 6min or 180d {UNITS}", id="upper case m"),
        pytest.param("06m", f"'06m' is ambiguous; write 6min or 180d {UNITS}", id="m after a zero"),
        pytest.param("6mo", f"'6mo' is in months, which vary; write 180d {UNITS}", id="months"),
        pytest.param("1Month", f"'1Month' is in months, which vary; write 30d {UNITS}", id="month in full"),
        pytest.param("0m", f"{DURATION} '0m'", id="zero months"),
        pytest.param("101y", f"{RANGE} '101y'", id="a year more than a century"),
        pytest.param("\u0669\u0660d", f"{DURATION} '\\u0669\\u0660d'", id="arabic digits"),
        pytest.param("36501d", f"{RANGE} '36501d'", id="a day more than a century"),
        pytest.param("999999999w", f"{RANGE} '999999999w'", id="more than Python can count"),
        pytest.param("9" * 99 + "d", f"{DURATION} '{'9' * 36}...", id="far more"),
        pytest.param(10**60, f"{DURATION} a huge number", id="huge number"),
        pytest.param(["90d"], f"{DURATION} a list", id="list"),
        pytest.param(timedelta(days=90), f"{DURATION} a timedelta", id="timedelta"),
    ],
)
@pytest.mark.parametrize("key", ["older_than", "unused_for"])
def test_invalid_duration_is_rejected(key: str, value: object, problem: str) -> None:
    with pytest.raises(TavusValidationError) as error:
        Policy.parse({"expire": [{"rule": "stale", key: value}]})
    assert str(error.value) == f"policy: expire.0.{key}: {problem}"


@pytest.mark.parametrize(
    ("text", "delta"),
    [
        pytest.param("1min", timedelta(minutes=1), id="one minute"),
        pytest.param("12h", timedelta(hours=12), id="hours"),
        pytest.param("90d", timedelta(days=90), id="days"),
        pytest.param("2w", timedelta(days=14), id="weeks"),
        pytest.param("1y", timedelta(days=365), id="year"),
        pytest.param("36500d", timedelta(days=36500), id="the longest"),
        pytest.param("100y", timedelta(days=36500), id="the longest in years"),
    ],
)
def test_duration_is_one_number_and_one_unit(text: str, delta: timedelta) -> None:
    limit = policy({"older_than": text}).expire[0].older_than
    assert limit is not None
    assert (str(limit), limit.delta) == (text, delta)
