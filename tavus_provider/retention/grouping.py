"""
The expression of ``keep.group_by``, which finds the group of a name.

Python's ``re`` can take exponential time for some expressions and names, such as ``([a-z]+_?)+`` on a name
without a match. RE2 takes linear time for every expression that it accepts: all but look-arounds and
back-references. It runs in every worker at each plan, so an expression must be valid for both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol, cast

import re2

from tavus_provider.sanitize import escape_line, quote


class _Pattern(Protocol):
    def search(self, text: str) -> Any: ...


def find_group_problem(text: str) -> str | None:
    """Return why a text is no expression that finds a group, or ``None`` if it is one."""
    try:
        groups = re.compile(text).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        return f"must be a regular expression, not {quote(text)}: {escape_line(str(error), 80)}"
    if "group" not in groups:
        return f"must have a group named 'group': write (?P<group>...), not {quote(text)}"
    try:
        _compile(text)
    except ValueError as error:
        return (
            "must be a regular expression without look-arounds such as (?=...) and back-references such as "
            "(?P=name), whose time has no limit: write for example ^(?P<group>[^_]+)_, not "
            f"{quote(text)}: {error}"
        )
    return None


def compile_group(text: str) -> Callable[[str], str | None]:
    """Return a function that finds the group of a name; ``None`` if the name does not match."""
    pattern = _compile(text)

    def find(name: str) -> str | None:
        match = pattern.search(name)
        return cast("str | None", match.group("group")) if match else None

    return find


def _compile(text: str) -> _Pattern:
    """
    Compile an expression that Python accepts.

    :raises ValueError: if RE2 does not accept it
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return cast("_Pattern", re2.compile(text, options))
    except re2.error as error:
        problem = error.args[0] if error.args else ""
    text = problem.decode("utf-8", "replace") if isinstance(problem, bytes) else str(problem)
    raise ValueError(escape_line(text, 80))
