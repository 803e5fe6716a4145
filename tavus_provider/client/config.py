"""
Where Tavus is and with which key: the fields of a connection, checked before anything is sent.

A connection is typed by people and saved by forms, and may be edited by someone who must not learn
the key that is in it. So everything is an allow-list: one origin that the deployment admits, one
place for the key, and known extras only. Knows neither Airflow nor HTTP.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from tavus_provider.exceptions import TavusValidationError

DEFAULT_ORIGIN = "https://tavusapi.com"

_BASE_URL = re.compile(
    r"(?:(https?)://)?([a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)"
    r"(?::([0-9]{1,5}))?(?:/v2)?/?",
    re.ASCII | re.IGNORECASE,
)
_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """
    The extras of a connection.

    :param timeout: seconds for one exchange with Tavus, above 0 up to 600
    :param concurrency: the most requests under way at once, 1 to 64
    :param requests_per_second: the most requests a second for one task; ``None`` for no limit
    """

    timeout: float = 30.0
    concurrency: int = 8
    requests_per_second: float | None = None

    @classmethod
    def read(cls, text: object) -> ClientOptions:
        """
        Read the JSON text of a connection's ``extra``; a null counts as absent, as the form saves nulls.

        :raises TavusValidationError: naming every unknown extra, or the one whose value is out of bounds
        """
        values = _json_object(text)
        known = {known.name for known in fields(cls)}
        if unknown := sorted(set(values) - known):
            shown = ", ".join(ascii(name)[:40] for name in unknown[:5])
            raise TavusValidationError(
                f"the connection has unknown extras {shown}: known are {', '.join(sorted(known))}; "
                "the API key belongs in the password, everything else in section [tavus] of the configuration"
            )
        given = {name: value for name, value in values.items() if value is not None}
        for name, value in given.items():
            check_bounds(name, value)
        return cls(**given)


def check_bounds(name: str, value: object) -> None:
    """
    Check ``timeout``, ``concurrency``, ``requests_per_second`` or ``parallel_tasks``, wherever it was given.

    :raises TavusValidationError: if it is not a number within its bounds
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    good, right = {
        "timeout": (0 < number <= 600, "seconds above 0 up to 600"),
        "concurrency": (isinstance(number, int) and 1 <= number <= 64, "a whole number from 1 to 64"),
        "parallel_tasks": (isinstance(number, int) and 1 <= number <= 1024, "a whole number from 1 to 1024"),
        "requests_per_second": (0 < number <= 1000, "a number above 0 up to 1000"),
    }[name]
    if not good:
        # Text is not repeated: somebody may have typed the key here.
        shown = f"of type {type(value).__name__}" if math.isnan(number) else ascii(value)[:40]
        raise TavusValidationError(f"{name} is {shown}: expected {right}")


@dataclass(frozen=True, slots=True)
class Account:
    """One origin, the key for it, and how fast it may be called."""

    origin: str
    key: str = field(repr=False)
    extras: ClientOptions = field(default_factory=ClientOptions)


def read_origin(
    host: object, port: object = None, schema: object = None, *, allowed: Iterable[str] = (DEFAULT_ORIGIN,)
) -> str:
    """
    Return the origin (``https://tavusapi.com``) that a connection's host, port and schema mean.

    It is put together from the checked parts and never passed on as typed.

    :param allowed: the origins which the deployment admits
    :raises TavusValidationError: if it cannot be read as one origin or is not among the admitted ones
    """
    origin = _origin(host or DEFAULT_ORIGIN, port, schema)
    admitted = {_origin(text.strip()) for text in allowed if text.strip()}
    if origin is None or None in admitted:
        what = "the connection's base URL" if origin is None else "[tavus] allowed_origins"
        raise TavusValidationError(
            f"{what} cannot be read: expected scheme, host and an optional port such as {DEFAULT_ORIGIN}"
        )
    if origin not in admitted:
        # A name without a dot is not repeated: somebody may have typed the key here.
        shown = f" {origin}" if "." in origin or "//localhost" in origin else ""
        raise TavusValidationError(
            f"the connection's base URL{shown} is not among the allowed origins: whoever runs this "
            "deployment can admit it with allowed_origins in section [tavus] of the configuration, "
            f"or AIRFLOW__TAVUS__ALLOWED_ORIGINS={shown.strip() or '...'}"
        )
    return origin


def read_key(password: object, *, login: object = None) -> str:
    """
    Return the API key from a connection's password, without the blanks around it.

    :raises TavusValidationError: if it is missing, is a form's mask, or cannot be sent in a header; the text
        never repeats it
    """
    key = password.strip() if isinstance(password, str) else ""
    if not key:
        where = " (login holds a value: it is not read)" if login else ""
        raise TavusValidationError(f"the connection has no API key: put it in the password{where}")
    if set(key) == {"*"}:
        raise TavusValidationError("the connection's API key is the mask of a form: enter the key again")
    if not _KEY.fullmatch(key):
        raise TavusValidationError(
            "the connection's API key cannot be one: expected at most 512 visible ASCII characters, no blanks"
        )
    return key


def _origin(text: object, port: object = None, schema: object = None) -> str | None:
    match = _BASE_URL.fullmatch(text) if isinstance(text, str) else None
    if not match or (schema or "") not in ("", "v2", "/v2"):
        return None
    scheme, host = (match[1] or "https").lower(), match[2].lower()
    # An all-numeric name (0x7f000001, 127.1) would be resolved as an address by some and not by others.
    last = host.rsplit(".", 1)[-1]
    if last[0].isdigit() and not re.fullmatch(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})", host):
        return None
    given = [str(one) for one in (match[3], port) if one]
    if any(not re.fullmatch(r"[0-9]{1,5}", one) for one in given):
        return None
    ports = set(map(int, given))
    if len(ports) > 1 or any(not 0 < one < 65536 for one in ports):
        return None
    number = ports.pop() if ports else _PORTS[scheme]
    return f"{scheme}://{host}" if number == _PORTS[scheme] else f"{scheme}://{host}:{number}"


def _json_object(text: object) -> dict[str, Any]:
    if text is None or text == "":
        return {}
    value: object = None
    if isinstance(text, str) and len(text) <= 65_536:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise TavusValidationError("the connection's extra is not a JSON object of at most 64 KiB")
    return value
