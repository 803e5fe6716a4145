"""
Settings of a client: origin, API key and options, validated before anything is sent.

Connections are typed by people, saved by forms, and edited by users who must not learn the stored key.
So only known values pass: an origin that the deployment allows, one place for the key, known options.
No message repeats a value that could be the key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from tavus_provider.exceptions import TavusValidationError

DEFAULT_ORIGIN: Final = "https://tavusapi.com"
MAX_EXTRA_BYTES: Final = 65_536

_BASE_URL = re.compile(
    r"(?:(https?)://)?([a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)"
    r"(?::([0-9]{1,5}))?(?:/v2)?/?",
    re.ASCII | re.IGNORECASE,
)
_IPV4 = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")
_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_NAME = re.compile(r"[A-Za-z][A-Za-z_-]{0,29}")
"""Names of extras that messages repeat. Keys have digits, or are longer."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,6}(\.[0-9]{1,6})?")
_PORT = re.compile(r"[0-9]{1,5}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """
    Options of a client: the extras of an Airflow connection.

    :param timeout: total time per request in seconds, greater than 0, at most 600
    :param concurrency: maximum number of requests at the same time, 1 to 64
    :param requests_per_second: maximum request rate of one task, greater than 0, at most 1000;
        ``None`` for no limit
    """

    timeout: float = 30.0
    concurrency: int = 8
    requests_per_second: float | None = None

    @classmethod
    def parse(cls, text: object, *, key: str = "") -> ClientOptions:
        """Return the options that a connection's ``extra`` sets; see :func:`parse_extras`."""
        return cls(**parse_extras(text, key=key))


OPTION_NAMES: Final = tuple(option.name for option in fields(ClientOptions))
"""The names of all extras of a connection."""


class InvalidOptionError(TavusValidationError):
    """
    An option is not a number, or is outside its bounds.

    ``option`` is its name, and ``expected`` says which values are valid. Neither contains its value.
    """

    option = ""
    expected = ""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """
    Everything that identifies an account of Tavus, and how fast it may be called.

    :param origin: scheme, host and optional port, such as ``https://tavusapi.com``; see :func:`parse_origin`
    :param key: API key; see :func:`parse_key`
    """

    origin: str
    key: str = field(repr=False)
    options: ClientOptions = field(default_factory=ClientOptions)


class _Bounds(NamedTuple):
    least: int
    most: int
    expected: str
    whole: bool = False
    """Only integers, ``least`` included. Otherwise any number, ``least`` excluded."""

    def admit(self, number: float) -> bool:
        if self.whole:
            return isinstance(number, int) and self.least <= number <= self.most
        return self.least < number <= self.most


_BOUNDS: Final = {
    "timeout": _Bounds(0, 600, "a number of seconds greater than 0, at most 600"),
    "concurrency": _Bounds(1, 64, "a whole number from 1 to 64", whole=True),
    "parallel_tasks": _Bounds(1, 1024, "a whole number from 1 to 1024", whole=True),
    "requests_per_second": _Bounds(0, 1000, "a number greater than 0, at most 1000"),
}


def parse_extras(text: object, *, key: str = "") -> dict[str, Any]:
    """
    Return the options that a connection sets.

    Null counts as absent, because forms save nulls. Numbers may be text, because those of a URI are.

    :param text: the JSON text of the connection's ``extra``
    :param key: the API key, which messages do not repeat if it was entered as the name of an extra
    :raises TavusValidationError: for unknown extras, by name
    :raises InvalidOptionError: for a value outside its bounds
    """
    values = _parse_json_object(text)
    if unknown := sorted(set(values) - set(OPTION_NAMES)):
        raise TavusValidationError(
            f"the connection has unknown extras {_show_names(unknown, key)}: "
            f"expected only {', '.join(OPTION_NAMES)}; "
            "the API key belongs in the password, everything else in section tavus of the configuration"
        )
    given = {name: _parse_number(value) for name, value in values.items() if value is not None}
    for name, value in given.items():
        check_option(name, value)
    return given


def _parse_number(value: object) -> object:
    text = value.strip() if isinstance(value, str) else ""
    if not _NUMBER.fullmatch(text):
        return value
    return float(text) if "." in text else int(text)


def _show_names(names: list[str], key: str) -> str:
    """List the names of extras, except those that may be a key that was entered in the wrong field."""
    key = key.lower()
    shown = [
        name
        for name in names
        if _NAME.fullmatch(name) and not (key and (name.lower() in key or key in name.lower()))
    ]
    listed = ", ".join(map(repr, shown[:5]))
    if len(shown) == len(names):
        return listed
    hidden = f"{len(names) - len(shown)} that are not shown because one may be a key"
    return f"{listed} and {hidden}" if listed else f"({hidden})"


def check_option(name: str, value: object) -> None:
    """
    Check an option of a connection or an operator.

    :param name: ``timeout``, ``concurrency``, ``requests_per_second`` or ``parallel_tasks``
    :raises InvalidOptionError: if ``value`` is not a number, or is outside the bounds of the option
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    bounds = _BOUNDS[name]
    if not bounds.admit(number):
        # Text is not repeated: it may be a key that was entered in the wrong field.
        shown = f"of type {type(value).__name__}" if math.isnan(number) else ascii(value)[:40]
        error = InvalidOptionError(f"{name} is {shown}: expected {bounds.expected}")
        error.option, error.expected = name, bounds.expected
        raise error


def parse_origin(
    host: object, port: object = None, schema: object = None, *, allowed: Iterable[str] = (DEFAULT_ORIGIN,)
) -> str:
    """
    Return the origin, such as ``https://tavusapi.com``, of a connection's host, port and schema.

    The origin is assembled from the checked parts. The text of the connection is never passed on.
    Whitespace around the host and the schema is ignored.

    :param allowed: origins that the deployment allows
    :raises TavusValidationError: if the fields are not one valid origin, or the origin is not allowed
    """
    origin = _normalize_origin(_strip(host) or DEFAULT_ORIGIN, port, _strip(schema))
    allowed_origins = {_normalize_origin(text.strip()) for text in allowed if text.strip()}
    if origin is None or None in allowed_origins:
        what = "the connection's base URL" if origin is None else "[tavus] allowed_origins"
        raise TavusValidationError(
            f"{what} is not a valid origin: expected scheme, host and optional port, such as {DEFAULT_ORIGIN}"
        )
    if origin not in allowed_origins:
        # A name without a dot is not repeated: it may be a key that was entered in the wrong field.
        shown = f" {origin}" if "." in origin or "//localhost" in origin else ""
        raise TavusValidationError(
            f"the connection's base URL{shown} is not among the allowed origins: an administrator of the "
            "deployment can add it to allowed_origins in section tavus of the configuration, or to "
            f"AIRFLOW__TAVUS__ALLOWED_ORIGINS={shown.strip() or '...'}"
        )
    return origin


def parse_key(password: object, *, login: object = None) -> str:
    """
    Return the API key from a connection's password, without surrounding whitespace.

    :param login: login of the connection; never used, only mentioned if the password is empty
    :raises TavusValidationError: if the key is missing, is the mask of a form, or does not fit in a header.
        The message never contains the key.
    """
    key = password.strip() if isinstance(password, str) else ""
    if not key:
        where = " (the login has a value, but it is not used)" if login else ""
        raise TavusValidationError(f"the connection has no API key: put it in the password{where}")
    if set(key) == {"*"}:
        raise TavusValidationError(
            "the connection's API key is the mask that a form shows: enter the key again"
        )
    if not _KEY.fullmatch(key):
        raise TavusValidationError(
            "the connection's API key is invalid: expected up to 512 visible ASCII characters, no whitespace"
        )
    return key


def _strip(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _normalize_origin(text: object, port: object = None, schema: object = None) -> str | None:
    match = _BASE_URL.fullmatch(text) if isinstance(text, str) else None
    if not match or (schema or "") not in ("", "v2", "/v2"):
        return None
    scheme, host = (match[1] or "https").lower(), match[2].lower()
    # Resolvers disagree on whether names such as 0x7f000001 and 127.1 are IP addresses.
    if host.rsplit(".", 1)[-1][0].isdigit() and not _IPV4.fullmatch(host):
        return None
    given = [str(one) for one in (match[3], port) if one]
    if any(not _PORT.fullmatch(one) for one in given):
        return None
    ports = set(map(int, given))
    if len(ports) > 1 or any(not 0 < one < 65536 for one in ports):
        return None
    number = ports.pop() if ports else _DEFAULT_PORTS[scheme]
    return f"{scheme}://{host}" if number == _DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{number}"


def _parse_json_object(text: object) -> dict[str, Any]:
    if text is None or text == "":
        return {}
    value: object = None
    if isinstance(text, str) and len(text) <= MAX_EXTRA_BYTES:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise TavusValidationError("the connection's extra is not a JSON object of at most 64 KiB")
    return value
