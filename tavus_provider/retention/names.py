"""Globs on the names of replicas, as ``scope``, ``narrow`` and the rules of a policy have them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Self
from unicodedata import normalize

from pydantic import ConfigDict, model_validator

from tavus_provider.models import Replica
from tavus_provider.retention.fields import NeedsName, Part, SomeTexts, Texts
from tavus_provider.sanitize import LOST, MAX_TEXT, escape_line

_MAX_STEPS: Final = 60_000
"""Steps after which a comparison of globs is given up: it also runs when Airflow parses a DAG file."""


class Names(Part):
    """Globs on the name, case-sensitive. Without ``include`` every name is included; ``exclude`` wins."""

    include: Annotated[Texts, NeedsName()] = ()
    """Globs: only replicas with such a name are considered. Default: every name."""
    exclude: Annotated[Texts, NeedsName()] = ()
    """Globs: replicas with such a name are never considered, even if include matches."""

    @cached_property
    def filter(self) -> NameFilter | None:
        """The globs, compiled; ``None`` if every name is included."""
        include = () if "*" in self.include else self.include
        if not include and not self.exclude:
            return None
        return NameFilter(tuple(map(Glob.compile, include)), tuple(map(Glob.compile, self.exclude)))


class RuleNames(Names):
    """Globs on the name for one rule, case-sensitive; ``exclude`` wins."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [key]} for key in ("include", "exclude")]}
    )

    include: SomeTexts = ("*",)
    """Globs: the rule is only for replicas with such a name. Default: every name."""
    exclude: Texts = ()
    """Globs: the rule is not for replicas with such a name, even if include matches."""

    @model_validator(mode="after")
    def _has_globs(self) -> Self:
        if "*" in self.include and not self.exclude:
            raise ValueError("includes every name; omit names, or write include or exclude")
        return self


@dataclass(frozen=True, slots=True)
class Glob:
    """A glob, the text that quotes it in a reason, and a function that tests a name, composed (NFC)."""

    text: str
    quoted: str
    matches: Callable[[str], object]

    @classmethod
    def compile(cls, text: str) -> Glob:
        """Return the glob that a text describes."""
        return cls(text, f"'{escape_line(text, 60)}'", compile_glob(text))


@dataclass(frozen=True, slots=True)
class NameFilter:
    """Which names are included: those that a glob of ``include`` matches and none of ``exclude`` does."""

    include: tuple[Glob, ...]
    exclude: tuple[Glob, ...]

    def find_mismatch(self, replica: Replica, *, where: str, against: str) -> str | None:
        """
        Return why the name of a replica is not included, or ``None`` if it is.

        :param where: the field that has the globs, such as ``scope``
        :param against: the same in words, such as ``the scope``
        """
        name = normalize("NFC", replica.name_for_patterns)
        if not name.strip():
            return f"has no name to check against {against}"
        for glob in self.exclude:
            if glob.matches(name):
                return f"name matches {where}.exclude {glob.quoted}"
        if self.include and not any(glob.matches(name) for glob in self.include):
            quoted = escape_line(", ".join(glob.quoted for glob in self.include), 120)
            return f"name does not match {where}.include {quoted}"
        if replica.is_name_cut:
            return f"name has more than {MAX_TEXT} characters, too many to check it against {against}"
        if LOST in name:
            return f"name has a character that was lost on the way, so it cannot be checked against {against}"
        return None

    def describe_match(self, replica: Replica, *, where: str) -> str:
        """Return which glob includes the name of a replica, or that none excludes it."""
        name = normalize("NFC", replica.name_for_patterns)
        for glob in self.include:
            if glob.matches(name):
                return f"name matches {where}.include {glob.quoted}"
        return f"name matches no pattern of {where}.exclude"


def find_unmatched_globs(globs: Iterable[str], names: Set[str]) -> list[str]:
    """Return the globs that match none of some names, composed (NFC)."""
    return [glob for glob in globs if not any(map(compile_glob(glob), names))]


def compile_glob(glob: str) -> Callable[[str], object]:
    """Return a function that tests whether a name, composed (NFC), matches a glob."""
    # As fnmatch.fnmatchcase does. Composed, because macOS writes "é" as two characters and a keyboard as one.
    return re.compile(fnmatch.translate(normalize("NFC", glob))).match


# --- comparison of globs, for rules that can never decide -----------------------------------------------


def includes_all_of(wide: Names | None, narrow: Sequence[Names]) -> bool:
    """
    Return whether a filter includes every name that all of some other filters include.

    Exact for any globs: all names are tried, one character at a time, as sets of positions in the globs.
    Large globs can need too many steps; then the answer is no.

    :param wide: ``None`` for a filter that includes no name
    """
    if wide is not None and any(wide == one for one in narrow):
        return True
    filters = [*narrow] if wide is None else [wide, *narrow]
    unions = [_Union(globs) for one in filters for globs in (one.include or ("*",), one.exclude)]
    alphabet = _alphabet([glob for one in filters for glob in (*one.include, *one.exclude)])
    # A name is not empty, so what matches at the start does not count.
    waiting = [tuple(union.start for union in unions)]
    known: set[tuple[_Positions, ...]] = set()
    steps = 0
    while waiting:
        state = waiting.pop()
        for character in alphabet:
            steps += sum(map(len, state))
            if steps > _MAX_STEPS:
                return False
            following = tuple(
                union.follow(positions, character) for union, positions in zip(unions, state, strict=True)
            )
            if following in known:
                continue
            matched = [union.accepts(positions) for union, positions in zip(unions, following, strict=True)]
            included = [inner and not outer for inner, outer in zip(matched[::2], matched[1::2], strict=True)]
            if all(included[0 if wide is None else 1 :]) and (wide is None or not included[0]):
                return False
            known.add(following)
            waiting.append(following)
    return True


_Positions = frozenset[tuple[int, int]]
_STAR: Final = "*"


class _Union:
    """What some globs match together; a state is the set of positions that are reached in them."""

    def __init__(self, globs: Iterable[str]) -> None:
        self._globs = [_split(glob) for glob in globs]
        self.start = self._close((number, 0) for number in range(len(self._globs)))

    def _close(self, positions: Iterable[tuple[int, int]]) -> _Positions:
        closed = set()
        for number, first in positions:
            closed.add((number, first))
            for at, part in enumerate(self._globs[number][first:], start=first):
                if part.text != _STAR:
                    break
                closed.add((number, at + 1))
        return frozenset(closed)

    def accepts(self, positions: _Positions) -> bool:
        return any(at == len(self._globs[number]) for number, at in positions)

    def follow(self, positions: _Positions, character: str) -> _Positions:
        return self._close(
            (number, at if self._globs[number][at].text == _STAR else at + 1)
            for number, at in positions
            if at < len(self._globs[number]) and self._globs[number][at].matches(character)
        )


def _split(glob: str) -> list[Glob]:
    """Return the parts of a glob that each match one character, and its stars."""
    parts = re.findall(r"\[!?+\]?+[^\]]*\]|.", normalize("NFC", glob), re.DOTALL)
    return [Glob(part, part, compile_glob(part)) for part in parts]


def _alphabet(globs: Iterable[str]) -> list[str]:
    """Return characters that stand for all: those of the globs, their neighbours for ranges, and another."""
    named = {ord(character) for glob in globs for character in normalize("NFC", glob)}
    if not any("[" in glob for glob in globs):
        other = next(code for code in range(0x61, 0x110000) if code not in named)
        return [chr(code) for code in sorted(named - set(map(ord, "*?")) | {other})]
    around = {code + step for code in named for step in (-1, 0, 1)} | {0xFFFD}
    return [chr(code) for code in sorted(around) if 0 <= code <= 0x10FFFF]
