"""Switches and faults: how a sandbox behaves where Tavus's behaviour is uncertain, and which errors it sends.

All switches and the fields of a fault are described in the docstring of :mod:`tavus_provider.sandbox`.
"""

import http
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from tavus_provider.sandbox.resources import RESOURCES

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "delete_status": (200, 204, "swapped"),
    "unknown_id": ("400-error", "400-message", "404"),
    "soft_deleted": ("hidden", "listed"),
    "soft_items": ("videos", "none", "conversations", "all"),
    "soft_then_hard": ("failed", "works"),
    "cascade": ("none", "videos", "conversations", "all"),
    "replica_id": ("kept", "null"),
    "delete_active": ("works", "ends", "rejected"),
    "end_ended": ("works", "rejected", "unknown"),
    "dates": ("iso", "iso-ms", "iso-seconds", "offset", "rfc1123", "blank", "utc", "naive", "epoch", "null"),
    "nulls": ("null", "empty"),
    "json": ("plain", "bom", "nan", "huge", "duplicate"),
    "vocabulary": ("replica", "face", "both"),
    "total_count": ("right", "missing", "high", "page"),
    "status_filter": ("works", "ignored", "rejected"),
    "order": ("oldest", "newest"),
    "encoding": ("identity", "gzip", "deflate", "raw-deflate", "not-gzip"),
    "interim": (None, 100, 102, 103),
}
"""Switches with a fixed set of values; the first value is the default."""


class SwitchError(ValueError):
    """An unknown switch or fault, or a value that is not allowed for it."""


def is_header_value(value: Any) -> bool:
    """Return whether the value is text that can be sent as an HTTP header."""
    return isinstance(value, str) and value.isascii() and value.isprintable()


def is_headers(value: Any) -> bool:
    """Return whether the value is an object of header names and values."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and re.fullmatch(r"[\w-]+", name, re.ASCII) and is_header_value(text)
        for name, text in value.items()
    )


def encode_body(body: bytes, encoding: str) -> tuple[bytes, str]:
    """Return a body in one of the values of the switch `encoding`, and the `Content-Encoding` to send."""
    window_bits = {"gzip": 31, "deflate": 15, "raw-deflate": -15}.get(encoding)
    if window_bits is None:
        return body, "gzip" if encoding == "not-gzip" else encoding
    packer = zlib.compressobj(wbits=window_bits)
    return packer.compress(body) + packer.flush(), encoding.removeprefix("raw-")


def _is_number(value: Any, low: float, high: float, *, whole: bool = False) -> bool:
    allowed = int if whole else int | float
    return isinstance(value, allowed) and not isinstance(value, bool) and bool(low <= value <= high)


@dataclass
class Fault:
    """One error that is sent in place of, or before, the real response."""

    method: str | None = None
    path: str = ""
    status: int | None = None
    when: str = "before"
    times: int | None = 1
    retry_after: str | None = None
    headers: Mapping[str, str] | None = None
    html: bool = False
    body: str | None = None
    close: bool = False
    delay: float = 0

    def __post_init__(self) -> None:
        try:
            re.compile(self.path)
        except (re.error, TypeError, RecursionError, OverflowError):
            raise SwitchError(f"fault.path: {self.path!r} is not a regular expression") from None
        checks = {
            "method": self.method is None or isinstance(self.method, str),
            "status": self.status is None or _is_number(self.status, 200, 599, whole=True),
            "when": self.when in ("before", "after"),
            "times": self.times is None or _is_number(self.times, 1, 10**9, whole=True),
            "retry_after": self.retry_after is None or is_header_value(self.retry_after),
            "headers": self.headers is None or is_headers(self.headers),
            "html": isinstance(self.html, bool),
            "body": isinstance(self.body, str | None),
            "close": isinstance(self.close, bool),
            "delay": _is_number(self.delay, 0, 600),
        }
        for name, valid in checks.items():
            if not valid:
                raise SwitchError(f"fault.{name}: invalid value {getattr(self, name)!r}")
        if self.status is None and not self.close and not self.delay:
            raise SwitchError("fault: one of status, close or delay is required")
        if self.status == 429 and self.when == "after":
            raise SwitchError(
                "fault.when: must be 'before' for status 429; a rate-limited request has no effect"
            )

    def matches(self, method: str, path: str) -> bool:
        """Return whether this fault applies to a request."""
        return self.method in (None, method) and re.match(self.path, path) is not None

    def response(self, status: int) -> Response:
        """Return the response that replaces the real one."""
        phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Unknown"
        headers = dict(self.headers or {})
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        if status in {204, 304}:
            return Response(status_code=status, headers=headers)
        if self.html:
            page = f"<html><body><h1>{status} {phrase}</h1></body></html>" if self.body is None else self.body
            return Response(page, status, headers, media_type="text/html")
        body = (
            json.dumps({"message" if status in {401, 403} else "error": phrase})
            if self.body is None
            else self.body
        )
        return Response(body.encode("utf-8", "replace"), status, headers, media_type="application/json")


class Switches:
    """The current value of every switch, and the faults that are still to be sent."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {name: allowed[0] for name, allowed in CHOICES.items()}
        self.values |= {
            "clamp_limit": None,
            "max_limit": None,
            "latency": 0,
            "odd_rows": {},
            "list_lag": 0,
            "unlisted": [],
            "headers": {},
        }
        self.faults: list[Fault] = []

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def set(self, changes: Any) -> None:
        """Set several switches; if one value is invalid, change none.

        :raises SwitchError: names the switch and its allowed values
        """
        if not isinstance(changes, Mapping):
            raise SwitchError(f"switches: must be an object, not {type(changes).__name__}")
        faults = self.faults
        for name, value in changes.items():
            if name == "faults":
                faults = self._parse_faults(value)
            elif name in CHOICES:
                if not any(type(value) is type(known) and value == known for known in CHOICES[name]):
                    raise SwitchError(f"{name}: {value!r} is not one of {list(CHOICES[name])}")
            elif name in {"clamp_limit", "max_limit"}:
                if value is not None and not _is_number(value, 1, 100, whole=True):
                    raise SwitchError(f"{name}: {value!r} is not null or a whole number from 1 to 100")
            elif name == "odd_rows":
                if not isinstance(value, Mapping) or not all(
                    kind in RESOURCES and isinstance(rows, list) for kind, rows in value.items()
                ):
                    raise SwitchError(f"odd_rows: must be an object with lists for {', '.join(RESOURCES)}")
            elif name in {"latency", "list_lag"}:
                if not _is_number(value, 0, 600):
                    raise SwitchError(f"{name}: {value!r} is not a number of seconds from 0 to 600")
            elif name == "unlisted":
                if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                    raise SwitchError(f"unlisted: {value!r} is not a list of replica ids")
            elif name == "headers":
                if not is_headers(value):
                    raise SwitchError(f"headers: {value!r} is not an object of header names and values")
            else:
                known = ", ".join(sorted([*self.values, "faults"]))
                raise SwitchError(f"unknown switch {name!r}; the switches are {known}")
        self.values |= {name: value for name, value in changes.items() if name != "faults"}
        self.faults = faults

    @staticmethod
    def _parse_faults(rows: Any) -> list[Fault]:
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise SwitchError("faults: must be a list of objects")
        known = Fault.__dataclass_fields__
        for name in {name for row in rows for name in row}:
            if name not in known:
                raise SwitchError(f"fault: unknown field {name!r}; the fields are {', '.join(known)}")
        return [Fault(**row) for row in rows]

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Return the first fault that matches a request, and count it as used once."""
        fault = next((fault for fault in self.faults if fault.matches(method, path)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self.faults.remove(fault)
        return fault

    def to_json(self) -> dict[str, Any]:
        """Return all switches and the remaining faults as JSON."""
        return {**self.values, "faults": [dict(vars(fault)) for fault in self.faults]}
