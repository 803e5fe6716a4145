"""
Make text from outside safe to print in logs, messages and terminals.

Text from Tavus, from connections and from DAG params can hold line breaks, terminal control
sequences, invisible characters, or megabytes of data.
"""

from __future__ import annotations

import re
from typing import Final

# A user and a password before the "@" of a URL. A password may itself contain "/" and "@", as keys
# of object storages do. "s3://aws_default@bucket" names an Airflow connection and is not a secret.
_CREDENTIALS: Final = re.compile("//[^/@]*:.*@")


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
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
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


def _defuse(text: str) -> str:
    # Airflow's log view starts or ends a collapsed group at "::group::" anywhere in a line.
    return text.replace("::", ": :")
