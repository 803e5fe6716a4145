"""
Make text from outside safe to store, and safe to print in logs, messages and terminals.

Text from Tavus, from connections and from DAG params can hold line breaks, terminal control
sequences, invisible characters, halves of characters, or megabytes of data.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

MAX_TEXT: Final = 256
"""Maximum length of a text from outside that is kept, in characters."""
REPLACEMENT: Final = "\u2426"
"""What patterns see in place of an unsafe character."""
LOST: Final = "\ufffd"
"""What patterns see in place of a character that is not known, and what servers write for it: a byte that is
not UTF-8, or one half of a character."""

# Control characters, line ends, bidirectional overrides, and halves of characters (lone surrogates).
# PostgreSQL stores no NUL, and nothing can encode a lone surrogate. Invisible characters that are a part of
# ordinary text stay, such as those that join emoji.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_HALF: Final = re.compile(r"[\ud800-\udfff]")
_DIGEST: Final = re.compile(r"\[sha256:[0-9a-f]{32}\]\Z")

# A user and a password before the "@" of a URL. A password may itself contain "/" and "@", as keys
# of object storages do. "s3://aws_default@bucket" names an Airflow connection and is not a secret.
_CREDENTIALS: Final = re.compile("//[^/@]*:.*@")


class SafeText(NamedTuple):
    """
    A text from outside that can be stored, compared, matched and printed.

    :param text: the text; equal for equal originals, and different for different ones. If it is not the
        original, it ends in the SHA-256 of it.
    :param pattern_text: what patterns match: at most the first :data:`MAX_TEXT` characters of the original,
        with :data:`REPLACEMENT` or :data:`LOST` for each unsafe character, so that their positions stay
    :param is_cut: whether the original is longer than that, so that patterns cannot be decided
    """

    text: str
    pattern_text: str
    is_cut: bool


def make_safe(text: str) -> SafeText:
    """
    Make text from outside safe, once, where it enters: whatever is made of it can then be stored and printed.

    A text of up to :data:`MAX_TEXT` characters without control characters, bidirectional overrides and lone
    surrogates stays as it is. Of any other text the first characters are kept, unsafe ones escaped as in
    Python source, and a part of the SHA-256 of the original is appended, at most :data:`MAX_TEXT` characters
    in all. It is appended also to a text that already ends like that, so that no two originals become equal.
    """
    if len(text) <= MAX_TEXT and not _UNSAFE.search(text) and not _DIGEST.search(text):
        return SafeText(text, text, is_cut=False)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    suffix = f" [sha256:{digest}]"
    start = text[:MAX_TEXT]
    escaped = _UNSAFE.sub(lambda match: _escape(match[0]), start)
    if len(text) > MAX_TEXT or len(escaped) + len(suffix) > MAX_TEXT:
        escaped = escaped[: MAX_TEXT - len(suffix) - 3] + "..."
    pattern_text = _UNSAFE.sub(REPLACEMENT, _HALF.sub(LOST, start))
    return SafeText(escaped + suffix, pattern_text, is_cut=len(text) > MAX_TEXT)


def shorten(text: str, limit: int) -> str:
    """
    Return ``text`` cut to at most ``limit`` characters. A cut text ends in ``...``.

    :param limit: maximum length of the result in characters, at least 3
    """
    return text if len(text) <= limit else text[: limit - 3] + "..."


def escape_line(text: str, limit: int = 256) -> str:
    """
    Return ``text`` shortened and on one line, for a log, a report or a terminal.

    Characters that are not printable (control characters, line breaks, bidirectional marks) are
    escaped as in Python source. Other characters, such as letters with accents, stay as they are.

    :param limit: maximum number of characters that are kept before escaping
    """
    text = shorten(text, limit)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(c) for c in text)
    return _defuse(text)


def quote(value: object, *, limit: int = 40, none: str = "None") -> str:
    """
    Return ``value`` as it is quoted in a sentence of an error message, in ASCII.

    Strings are in quotation marks, and characters outside ASCII are escaped, so that ``'p'`` and a
    Cyrillic letter of the same shape can be told apart. Numbers are written out. For other values only
    the type is named, because their content can be long or confidential.

    :param limit: maximum length of the result in characters
    :param none: what to return for ``None``, for example ``not given``
    """
    if value is None:
        return none
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"  # Python refuses to convert more than 4,300 digits
    # Of subclasses only the type is named: they can look like a string or number and not be accepted as one.
    if type(value) not in (str, bool, int, float):
        name = type(value).__name__
        return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
    # Cut first: escaping makes a long string up to ten times longer.
    text = ascii(value[:limit] if isinstance(value, str) else value)
    return _defuse(shorten(text, limit))


def redact_url(url: str) -> str:
    """Return ``url`` without the user name and password that it may contain."""
    return _CREDENTIALS.sub("//***@", url)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _defuse(text: str) -> str:
    # Airflow's log view starts or ends a collapsed group at "::group::" anywhere in a line.
    return text.replace("::", ": :")
