"""
The kinds of fault, F01 to F43, and what a client may say of a request that met them.

A line reads: what is said instead of the true answer, and what must come of it when that happens once
and when it happens always. A listing and a look-up end ``right``, in an ``error``, or ``gone``; a delete
ends with the outcome of a report, and it matters whether it had taken effect before the fault.
"""

from __future__ import annotations

import functools
import gzip
import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from faults.server import HANG_UP, RESET, Tavus, answer

KEY = "faults-key-5d1c/9a+7e'\\z"
"""Its quoted, base64 and repr forms all differ from itself."""


@dataclass(frozen=True)
class Kind:
    """
    One kind of fault.

    :param says: see :class:`faults.server.Misdeed`
    :param reads: what a listing comes to, once and always
    :param before: what a delete comes to that had no effect, once and always; ``None`` if it cannot happen
    :param after: the same for a delete that had its effect
    :param gets: what a look-up comes to, if not the same as a listing
    :param waits: seconds that have to be waited at least before the next send
    :param final: never asked again
    :param timed: lives on the client's patience, so one request at a time
    """

    name: str
    says: Callable[[bytes, Tavus], Any]
    reads: str
    before: str | None = None
    after: str | None = None
    gets: str | None = None
    waits: float = 0.0
    final: bool = False
    timed: bool = False

    @property
    def doubtful(self) -> bool:
        """Whether the client cannot know if a delete that meets it was applied."""
        return "unknown" in (self.before or "")


def said(status: int | str, body: object = "", headers: str = "", kind: str = "application/json") -> Any:
    """An answer that repeats the key, as servers that explain a refusal do."""
    echo = f"X-Request-Id: {KEY}\r\n"
    return lambda truth, tavus: answer(status, body, headers + echo, kind)


def status(number: int, headers: str = "") -> Any:
    return said(number, {"error": f"no, {KEY}"}, headers)


def raw(head: str, *then: Any) -> Any:
    return lambda truth, tavus: [head.encode("latin-1"), *then]


def at_once(first: str, second: bytes) -> Any:
    return lambda truth, tavus: first.encode("latin-1") + second


def redirect(number: int, location: str) -> Any:
    def says(truth: bytes, tavus: Tavus) -> bytes:
        where = location.format(elsewhere=tavus.elsewhere, host=tavus.elsewhere.partition(":")[2])
        return answer(number, "", f"Location: {where}\r\n")

    return says


def date_in(seconds: float) -> Any:
    def says(truth: bytes, tavus: Tavus) -> bytes:
        then = datetime.now(UTC) + timedelta(seconds=seconds)
        return answer(429, {}, f"Retry-After: {then:%a, %d %b %Y %H:%M:%S} GMT\r\n")

    return says


def chunked(truth: bytes, tavus: Tavus) -> Iterator[Any]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield from itertools.repeat(b"10000\r\n" + b" " * 0x10000 + b"\r\n", 2_000)
    yield HANG_UP


@functools.cache
def bomb(times: int) -> bytes:
    """Sixty-four MiB of blanks, packed once or twice."""
    packed = gzip.compress(b" " * 2**26, compresslevel=1)
    return gzip.compress(packed) if times == 2 else packed


def zipped(times: int) -> Any:
    encoding = ", ".join(["gzip"] * times)
    return lambda truth, tavus: answer(200, bomb(times), f"Content-Encoding: {encoding}\r\n")


HTML = "<html>Please log in</html>"
JSON_200 = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CUT = f"{JSON_200}Content-Length: 90\r\n\r\n{{"
LONG_HEAD = f"{JSON_200}X-Long: {'x' * 102_400}\r\nContent-Length: 2\r\n\r\n{{}}"

DOUBT = {"before": "deleted unknown", "after": "confirmed confirmed"}
HEALS = {"reads": "right error", **DOUBT}
LIMITED = {"reads": "right error", "before": "deleted failed"}
TOO_LONG = {"reads": "error error", "before": "failed failed", "final": True}
REFUSED = {"reads": "error error", "before": "failed failed", "final": True}
BAD_BODY = {"reads": "error error", "after": "deleted deleted", "final": True}
TORN_BODY = {"reads": "right error", "after": "deleted deleted"}

KINDS = [
    # F03 to F07: no answer at all
    Kind("F03 F04 hang-up", lambda truth, tavus: HANG_UP, **HEALS),
    Kind("F05 F07 reset", lambda truth, tavus: RESET, **HEALS),
    Kind("F06 F07 silence", lambda truth, tavus: tavus.silence(), **HEALS, timed=True),
    # F08 to F12: rate limits
    Kind("F08 429", status(429), **LIMITED, waits=0.5),
    Kind("F09 429 in 1 s", status(429, "Retry-After: 1\r\n"), **LIMITED, waits=1),
    Kind("F09 429 until a date", date_in(4), **LIMITED, waits=2),
    Kind("F09 429 until the past", date_in(-9), **LIMITED),
    *(
        Kind(f"F10 429 in '{word}'", status(429, f"Retry-After: {word}\r\n"), **LIMITED, waits=0.5)
        for word in ("soon", "-5", "1.5", "3, 4", "", "2026-11-01T12:00:30Z")
    ),
    Kind("F10 429 in two ways", status(429, "Retry-After: 3\r\nRetry-After: 4\r\n"), **LIMITED, waits=0.5),
    Kind("F11 429 in three years", status(429, "Retry-After: 99999999\r\n"), **TOO_LONG),
    Kind("F11 429 until 9999", status(429, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n"), **TOO_LONG),
    Kind("F12 429 in 5,000 digits", status(429, f"Retry-After: {'9' * 5000}\r\n"), **TOO_LONG),
    # F13 to F18: the server broke, before or after
    *(Kind(f"F13 F15 {number}", status(number), **HEALS) for number in (500, 502, 503, 504, 599)),
    Kind("F14 503 in 1 s", status(503, "Retry-After: 1\r\n"), **HEALS, waits=1),
    Kind("F13 502 HTML", said(502, HTML, kind="text/html"), **HEALS),
    Kind("F13 408", status(408), **HEALS),
    # F19 to F22: certain refusals
    *(Kind(f"F19 F22 {number}", status(number), **REFUSED) for number in (400, 402, 405, 409, 422)),
    Kind("F19 400 HTML", said(400, "Invalid replica_id", kind="text/html"), **REFUSED),
    Kind("F19 400 almost", said(400, {"error": "Invalid replica_id."}), **REFUSED),
    *(Kind(f"F20 {number}", status(number), **REFUSED) for number in (401, 403)),
    # F23 to F27: redirects
    *(
        Kind(f"F23 {number} {name}", redirect(number, location), **REFUSED)
        for number in (301, 302, 303, 307, 308)
        for name, location in [
            ("elsewhere", "{elsewhere}/v2/replicas"),
            ("//elsewhere", "{host}/v2/replicas"),
            ("path", "/v2/personas/p1"),
        ]
    ),
    Kind("F23 302 nowhere", said(302, "", "Location: javascript:alert(1)\r\n"), **REFUSED),
    Kind("F23 307 long", redirect(307, "{elsewhere}/" + "x" * 60_000), **REFUSED),
    # F28 to F35: the head is whole, the body is not
    Kind("F28 body cut", raw(CUT, HANG_UP), **TORN_BODY),
    Kind(
        "F29 chunk cut",
        raw(f"{JSON_200}Transfer-Encoding: chunked\r\n\r\n50\r\n{{", HANG_UP),
        **TORN_BODY,
    ),
    Kind(
        "F29 chunk size",
        raw(f"{JSON_200}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n", HANG_UP),
        **TORN_BODY,
    ),
    Kind("F31 200 HTML", said(200, HTML, kind="text/html"), reads="error error", **DOUBT),
    Kind("F32 broken JSON", said(200, "{"), **BAD_BODY),
    Kind("F32 list", said(200, "[]"), **BAD_BODY),
    Kind("F32 null", said(200, "null"), **BAD_BODY),
    Kind("F32 string", said(200, '"gone"'), **BAD_BODY),
    Kind("F32 data null", said(200, {"data": None, "total_count": 0}), **BAD_BODY),
    Kind("F32 another replica", said(200, {"replica_id": "r0other"}), **BAD_BODY),
    Kind("F32 an error", said(200, {"error": "Invalid replica_id"}), **BAD_BODY),
    Kind("F32 not found in words", said(200, {"message": "Replica not found"}), **BAD_BODY),
    Kind("F33 nested", said(200, "[" * 200_000), **BAD_BODY),
    Kind("F33 5,000 digits", said(200, '{"total_count": ' + "9" * 5000 + "}"), **BAD_BODY),
    Kind("F34 bomb", zipped(1), **BAD_BODY),
    Kind("F34 bomb twice", zipped(2), **BAD_BODY),
    Kind("F34 endless", chunked, **BAD_BODY),
    Kind("F35 not gzip", said(200, "{}", "Content-Encoding: gzip\r\n"), **BAD_BODY),
    Kind(
        "F35 not deflate", said(200, zlib.compress(b"{}")[:-3], "Content-Encoding: deflate\r\n"), **BAD_BODY
    ),
    # F30, F36, F39, F41: no head that could be believed
    Kind("F30 TLS bytes", raw("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", HANG_UP), **HEALS),
    Kind("F30 garbage", raw("gone fishing\r\n\r\n", HANG_UP), **HEALS),
    Kind("F36 long header", raw(LONG_HEAD), **HEALS),
    Kind("F36 200 headers", raw(JSON_200 + "X-Many: 1\r\n" * 200 + "Content-Length: 2\r\n\r\n{}"), **HEALS),
    *(
        Kind(f"F39 {number} alone", raw(f"HTTP/1.1 {number} x\r\n\r\n"), **HEALS)
        for number in (101, 102, 103)
    ),
    Kind(
        "F39 102 drips",
        lambda truth, tavus: tavus.drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        **HEALS,
        timed=True,
    ),
    Kind(
        "F39 100 drips",
        lambda truth, tavus: tavus.drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        reads="error error",
        **DOUBT,
        timed=True,
    ),
    Kind("F39 102, then 200", at_once("HTTP/1.1 102 Processing\r\n\r\n", answer(200, {})), **HEALS),
    # F37 and F38: drips
    Kind(
        "F37 header drips",
        lambda truth, tavus: tavus.drip(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"),
        reads="error error",
        **DOUBT,
        timed=True,
    ),
    Kind(
        "F38 body drips",
        lambda truth, tavus: tavus.drip(f"{JSON_200}Content-Length: 9000\r\n\r\n".encode(), b" "),
        **BAD_BODY,
        timed=True,
    ),
    # F41: answers that are no "done"
    Kind("F41 204", said(204), **BAD_BODY),
    Kind("F41 202", said(202, {"status": "accepted"}), reads="error error", **DOUBT),
    Kind("F41 206", said(206, {"status": "deleted"}), reads="error error", **DOUBT),
    Kind("F41 299", said(299, {}), reads="error error", **DOUBT),
    *(Kind(f"F41 {word}", said(word, {}), **HEALS) for word in ("999", "42", "abc", "-200", "2 00")),
    # F42: lengths that lie
    Kind("F42 length -5", raw(f"{JSON_200}Content-Length: -5\r\n\r\n{{}}", HANG_UP), **BAD_BODY),
    Kind("F42 length abc", raw(f"{JSON_200}Content-Length: abc\r\n\r\n{{}}", HANG_UP), **BAD_BODY),
    Kind("F42 length too short", raw(f"{JSON_200}Content-Length: 1\r\n\r\n{{}}"), **BAD_BODY),
    Kind(
        "F42 two lengths",
        raw(f"{JSON_200}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}", HANG_UP),
        **HEALS,
    ),
    Kind("F42 two answers", at_once(f"{JSON_200}Content-Length: 2\r\n\r\n{{}}", answer(403, {})), **BAD_BODY),
    # F21: the server says that it is not there
    *(
        Kind(f"F21 {number}", status(number), reads="error error", gets="gone gone", final=True)
        for number in (404, 410)
    ),
]
"""F21 is no fault of a delete: what is not there is ``already_gone``, and the server knows."""

BY_NAME = {kind.name: kind for kind in KINDS}


def rows(kinds: list[Kind]) -> list[list[Kind]]:
    """The rows of the matrix, F13, F14 and so on, for where every single kind would take too long."""
    return [list(row) for _, row in itertools.groupby(kinds, key=lambda kind: kind.name.split()[0])]


def ends(kinds: list[Kind]) -> list[Kind]:
    """The first and the last kind of each row."""
    return [kind for row in rows(kinds) for kind in (row if len(row) < 3 else [row[0], row[-1]])]
