"""The pages of the documentation, and the code blocks and tables in them."""

from __future__ import annotations

import re
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A block of code. ``where`` is its page and line, such as ``docs/policies.md:12``."""

    where: str
    language: str
    text: str


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str | None = None) -> list[Block]:
    """Return the blocks of all pages in a language, or all blocks."""
    found = []
    for page in PAGES:
        text = read(page_name(page))
        for match in re.finditer(r"^```([a-z]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(f"{page_name(page)}:{line}", match[1], match[2]))
    return [block for block in found if language in (None, block.language)]


def params(some: list[Block]):
    return [pytest.param(block, id=block.where) for block in some]


def table(page: str, head: str) -> list[list[str]]:
    """Return the cells of each row of the table with this head."""
    after = read(page).split(f"\n{head}\n", 1)[1].splitlines()[1:]
    rows = takewhile(lambda line: line.startswith("|"), after)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def column(page: str, head: str) -> list[str]:
    """Return the first cells of a table, without the marks of code."""
    return [row[0].strip("`") for row in table(page, head)]
