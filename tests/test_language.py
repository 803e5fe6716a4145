"""Names and phrases that were replaced by standard terms must not come back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("tavus_provider", "dags", "scripts", "benchmarks", "tests", "docs")
SUFFIXES = {".py", ".md", ".js", ".html", ".css", ".json", ".yaml", ".rst", ".txt"}
FILES = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*")
    if file.suffix in SUFFIXES and file != Path(__file__)
)

NAMES = {  # matched with their case
    "rung": "check, status",
    "rungs": "checks",
    "ladder": "CHECKS",
    "_still_so": "revalidate",
    "_lately": "count of the last second",
    "_look_afterwards": "verify_absence",
    "NoPortIsNoPort": "DropZeroPortMiddleware",
    "side_by_side": "parallel_tasks",
    "who_of": "task_identity",
    "one_line": "escape_line",
    "Unanswered": "TavusRetryableError",
    "InDoubt": "TavusOutcomeUnknownError",
    "BadAnswer": "TavusInvalidResponseError",
    "TryLater": "TavusRetryableError",
    "Gate": "RateLimiter",
    "_gates": "shared rate limiters",
    "Exchanges": "Connection, Transport",
    "RetentionPolicy": "Policy",
    "BY_HAND": "MANUAL_POLICY",
    "decide_one": "evaluate_one",
    "changed_since": "difference",
    "read_account": "read_inventory",
    "put_off": "rate_limited",
    "Misdeed": "Fault",
    "DOUBT": "UNKNOWN",
    "harm_done": "unexpected_deletes",
}
"""Former names in the code, and the present ones."""

PHRASES = {  # matched in lower case and with a capital letter at the start
    "house": "package",
    "room": "module",
    "rooms": "modules",
    "doubt": "undetermined, unknown",
    "doubts": "unreadable fields",
    "doubtful": "undetermined, unknown",
    "whoever": "a user who",
    "for ever": "permanently",
    "for good": "permanently",
    "so many": "the number",
    "is none": "is invalid",
    "are none": "are invalid",
    "tells of": "reports",
    "stands in": "is in",
    "stand in": "are in",
    "put off": "rate limited",
    "puts off": "delays",
    "put by": "stored",
    "told to": "instructed to",
    "ought": "should",
    "hold good": "apply",
    "hangs on": "depends on",
}
"""Literary phrases and private metaphors, and what to write instead."""


def pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Match whole words, single words also within snake_case; a phrase may continue on the next line."""
    parts = []
    for word in words:
        letter = r"\w" if "_" in word else r"[a-zA-Z0-9]"
        parts.append(rf"(?<!{letter})" + word.replace(" ", r"\s+") + rf"(?!{letter})")
    return re.compile("|".join(parts))


NAME = pattern(NAMES)
PHRASE = pattern([*PHRASES, *(phrase.capitalize() for phrase in PHRASES)])


def test_replaced_names_and_phrases_are_gone() -> None:
    found = []
    for file in [*FILES, *ROOT.glob("*.md"), ROOT / "Makefile"]:
        text = file.read_text(encoding="utf-8")
        for match in (match for regex in (NAME, PHRASE) for match in regex.finditer(text)):
            line = text.count("\n", 0, match.start()) + 1
            word = " ".join(match[0].split())
            instead = NAMES.get(word) or PHRASES.get(word.lower())
            found.append(f"{file.relative_to(ROOT)}:{line}: {word!r}; write: {instead}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    ["a rung of it", "test_one_rung_decides", "class Gate:", "is\nnone of them", "in doubt", "Whoever"],
)
def test_patterns_find_words(text: str) -> None:
    assert NAME.search(text) or PHRASE.search(text)


@pytest.mark.parametrize(
    "text", ["wrung", "gateway", "is None", "household", "Chatroom", "RetentionPolicyEditor"]
)
def test_patterns_find_whole_words_only(text: str) -> None:
    assert not NAME.search(text)
    assert not PHRASE.search(text)
