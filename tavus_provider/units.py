"""
The units of a length of time in a policy, and regular expressions for counts of them.

It imports nothing, because the params of DAGs use it, and the DAG processor reads these again and again.
"""

from __future__ import annotations

from typing import Final

DAY: Final = 86_400
UNITS: Final = {
    "y": (365 * DAY, "year"),
    "w": (7 * DAY, "week"),
    "d": (DAY, "day"),
    "h": (3_600, "hour"),
    "min": (60, "minute"),
}
"""Seconds and name of each unit. There are no months: their length varies, and ``6m`` could mean minutes."""


def pattern_up_to(limit: int) -> str:
    """Return a regular expression for the whole numbers from 1 to ``limit``, without leading zeros."""
    digits = str(limit)
    alternatives = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"] if len(digits) > 1 else []
    for at, digit in enumerate(digits):  # numbers with as many digits: smaller from this digit on
        lowest, rest = int(at == 0), len(digits) - at - 1
        if lowest < int(digit):
            free = f"[0-9]{{{rest}}}" if rest else ""
            alternatives.append(f"{digits[:at]}[{lowest}-{int(digit) - 1}]{free}")
    return "|".join([*alternatives, digits])


def pattern_below(seconds: int) -> str:
    """Return a regular expression for the lengths of time from one unit on that are shorter than this."""
    largest = {unit: (seconds - 1) // size for unit, (size, _) in UNITS.items()}
    return "|".join(f"({pattern_up_to(count)}){unit}" for unit, count in largest.items() if count)
