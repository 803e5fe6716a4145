"""
The kinds of fault, F01 to F43, and what a client may report about a request that met one.

Each entry states what is sent instead of the correct response, and the expected result if that happens
once and if it happens always. A listing or a look-up is ``right``, an ``error``, or says that the replica
is ``gone``. A delete ends with an outcome, which depends on whether it took effect before the fault.
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

from faults.server import CLOSE, RESET, FakeTavus, http_response

KEY = "faults-key-5d1c/9a+7e'\\z"
"""Its URL-quoted, base64 and repr forms all differ from the key itself."""


@dataclass(frozen=True)
class FaultKind:
    """
    One kind of fault, and the expected results of the requests that meet it.

    Results are two words, for a fault that happens once and for one that happens always.

    :param respond: see :class:`faults.server.Fault`
    :param listing: result of a listing
    :param not_applied: outcome of a delete that had no effect; ``None`` if that cannot happen
    :param applied: outcome of a delete that took effect; ``None`` if that cannot happen
    :param lookup: result of a look-up, if it differs from that of a listing
    :param min_wait: minimum total of seconds that the client waits before it sends again
    :param no_retry: the client must not send the request again
    :param too_large: a listing goes on with fewer rows per page
    :param timed: the fault uses up the timeout of the client, so only one request at a time is possible
    """

    name: str
    respond: Callable[[bytes, FakeTavus], Any]
    listing: str
    not_applied: str | None = None
    applied: str | None = None
    lookup: str | None = None
    min_wait: float = 0.0
    no_retry: bool = False
    too_large: bool = False
    timed: bool = False

    @property
    def understood(self) -> bool:
        """Whether the response is correct, in an unusual form."""
        return self.listing == "right right"

    @property
    def ambiguous(self) -> bool:
        """Whether the client cannot know if a delete that meets this fault was applied."""
        return "unknown" in (self.not_applied or "")


def response(
    status: int | str, body: object = "", headers: str = "", content_type: str = "application/json"
) -> Any:
    """Send a response with the API key in a header, as some servers repeat it."""
    echo = f"X-Request-Id: {KEY}\r\n"
    return lambda correct, tavus: http_response(status, body, headers + echo, content_type)


def error(status: int, headers: str = "") -> Any:
    """Send an error with the API key in its message."""
    return response(status, {"error": f"no, {KEY}"}, headers)


def raw(head: str, *then: Any) -> Any:
    return lambda correct, tavus: [head.encode("latin-1"), *then]


def one_write(first: str, second: bytes) -> Any:
    return lambda correct, tavus: first.encode("latin-1") + second


def redirect(status: int, location: str) -> Any:
    def respond(correct: bytes, tavus: FakeTavus) -> bytes:
        url = location.format(other=tavus.other_origin, host=tavus.other_origin.partition(":")[2])
        return http_response(status, "", f"Location: {url}\r\n")

    return respond


def retry_after_date(seconds: float) -> Any:
    def respond(correct: bytes, tavus: FakeTavus) -> bytes:
        then = datetime.now(UTC) + timedelta(seconds=seconds)
        return http_response(429, {}, f"Retry-After: {then:%a, %d %b %Y %H:%M:%S} GMT\r\n")

    return respond


def endless_chunks(correct: bytes, tavus: FakeTavus) -> Iterator[Any]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield from itertools.repeat(b"10000\r\n" + b" " * 0x10000 + b"\r\n", 2_000)
    yield CLOSE


@functools.cache
def gzip_bomb(times: int) -> bytes:
    """Return 64 MiB of spaces, compressed once or twice."""
    packed = gzip.compress(b" " * 2**26, compresslevel=1)
    return gzip.compress(packed) if times == 2 else packed


def recoded(encode: Callable[[bytes], bytes], headers: str = "") -> Any:
    """Send the correct response with its body encoded in another way."""

    def respond(correct: bytes, tavus: FakeTavus) -> bytes:
        head, _, body = correct.partition(b"\r\n\r\n")
        status = head.split(b" ", 2)[1].decode()
        return http_response(status, encode(body), headers)

    return respond


def encoded(encode: Callable[[bytes], bytes], encoding: str) -> Any:
    return recoded(encode, f"Content-Encoding: {encoding}\r\n")


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def after(interim: str) -> Any:
    """Send the correct response after interim ones."""
    return lambda correct, tavus: interim.encode() + correct


def compressed(times: int) -> Any:
    encoding = ", ".join(["gzip"] * times)
    return lambda correct, tavus: http_response(200, gzip_bomb(times), f"Content-Encoding: {encoding}\r\n")


HTML = "<html>Please log in</html>"
JSON_200 = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CUT_BODY = f"{JSON_200}Content-Length: 90\r\n\r\n{{"
LONG_HEADER = f"{JSON_200}X-Long: {'x' * 102_400}\r\nContent-Length: 2\r\n\r\n{{}}"

# What the client must do and report, as keyword arguments of FaultKind.
AMBIGUOUS_DELETE = {"not_applied": "deleted unknown", "applied": "confirmed confirmed"}
RETRIED = {"listing": "right error", **AMBIGUOUS_DELETE}
RATE_LIMITED = {"listing": "right error", "not_applied": "deleted failed"}
REJECTED = {"listing": "error error", "not_applied": "failed failed", "no_retry": True}
WAIT_TOO_LONG = REJECTED
UNDERSTOOD = {"listing": "right right", "applied": "deleted deleted"}
BAD_BODY = {"listing": "error error", "applied": "deleted deleted", "no_retry": True}
INCOMPLETE_BODY = {"listing": "right error", "applied": "deleted deleted"}

KINDS = [
    # F03 to F07: no response
    FaultKind("F03 F04 connection closed", lambda correct, tavus: CLOSE, **RETRIED),
    FaultKind("F05 F07 connection reset", lambda correct, tavus: RESET, **RETRIED),
    FaultKind("F06 F07 no response", lambda correct, tavus: tavus.silence(), **RETRIED, timed=True),
    # F08 to F12: rate limits
    FaultKind("F08 429", error(429), **RATE_LIMITED, min_wait=0.5),
    FaultKind("F09 429 Retry-After 1", error(429, "Retry-After: 1\r\n"), **RATE_LIMITED, min_wait=1),
    FaultKind("F09 429 Retry-After date", retry_after_date(4), **RATE_LIMITED, min_wait=2),
    FaultKind("F09 429 Retry-After past date", retry_after_date(-9), **RATE_LIMITED),
    *(
        FaultKind(
            f"F10 429 Retry-After '{value}'",
            error(429, f"Retry-After: {value}\r\n"),
            **RATE_LIMITED,
            min_wait=0.5,
        )
        for value in ("soon", "-5", "-1.5", "3, 4", "", "2026-11-01T12:00:30Z")
    ),
    *(
        FaultKind(
            f"F10 429 Retry-After '{value}'",
            error(429, f"Retry-After: {value}\r\n"),
            **RATE_LIMITED,
            min_wait=wait,
        )
        for value, wait in (("1.5", 2), ("3.0", 3))
    ),
    FaultKind(
        "F10 429 two Retry-After",
        error(429, "Retry-After: 3\r\nRetry-After: 4\r\n"),
        **RATE_LIMITED,
        min_wait=0.5,
    ),
    FaultKind("F11 429 Retry-After three years", error(429, "Retry-After: 99999999\r\n"), **WAIT_TOO_LONG),
    FaultKind(
        "F11 429 Retry-After year 9999",
        error(429, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n"),
        **WAIT_TOO_LONG,
    ),
    FaultKind(
        "F12 429 Retry-After 5,000 digits", error(429, f"Retry-After: {'9' * 5000}\r\n"), **WAIT_TOO_LONG
    ),
    # F13 to F18: the server fails, before or after the delete takes effect
    *(FaultKind(f"F13 F15 {status}", error(status), **RETRIED) for status in (500, 502, 503, 504, 599)),
    FaultKind("F14 503 Retry-After 1", error(503, "Retry-After: 1\r\n"), **RETRIED, min_wait=1),
    FaultKind("F13 502 HTML", response(502, HTML, content_type="text/html"), **RETRIED),
    FaultKind("F13 408", error(408), **RETRIED),
    # F19 to F22: rejected, certainly not applied
    *(FaultKind(f"F19 F22 {status}", error(status), **REJECTED) for status in (400, 402, 405, 409, 422)),
    FaultKind("F19 400 HTML", response(400, "Invalid replica_id", content_type="text/html"), **REJECTED),
    FaultKind("F19 400 similar message", response(400, {"error": "Invalid replica_id."}), **REJECTED),
    FaultKind("F20 401", response(401, {"message": f"no, {KEY}"}), **RATE_LIMITED),
    FaultKind("F20 403", response(403, {"message": f"no, {KEY}"}), **REJECTED),
    *(
        FaultKind(f"F20 {status} HTML", response(status, HTML, content_type="text/html"), **RETRIED)
        for status in (401, 403)
    ),
    FaultKind("F20 403 JSON of a proxy", error(403), **RETRIED),
    # F23 to F27: redirects
    *(
        FaultKind(f"F23 {status} {name}", redirect(status, location), **REJECTED)
        for status in (301, 302, 303, 307, 308)
        for name, location in [
            ("other origin", "{other}/v2/replicas"),
            ("other origin, no scheme", "{host}/v2/replicas"),
            ("other path", "/v2/personas/p1"),
        ]
    ),
    FaultKind("F23 302 javascript URL", response(302, "", "Location: javascript:alert(1)\r\n"), **REJECTED),
    FaultKind("F23 307 long URL", redirect(307, "{other}/" + "x" * 60_000), **REJECTED),
    # F28 to F35: the head is complete, the body is unusable
    FaultKind("F28 incomplete body", raw(CUT_BODY, CLOSE), **INCOMPLETE_BODY),
    FaultKind(
        "F29 incomplete chunk",
        raw(f"{JSON_200}Transfer-Encoding: chunked\r\n\r\n50\r\n{{", CLOSE),
        **INCOMPLETE_BODY,
    ),
    FaultKind(
        "F29 invalid chunk size",
        raw(f"{JSON_200}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n", CLOSE),
        **INCOMPLETE_BODY,
    ),
    FaultKind(
        "F31 200 HTML",
        response(200, HTML, content_type="text/html"),
        listing="error error",
        **AMBIGUOUS_DELETE,
    ),
    FaultKind("F32 broken JSON", response(200, "{"), **BAD_BODY),
    FaultKind("F32 list", response(200, "[]"), **BAD_BODY),
    FaultKind("F32 null", response(200, "null"), **BAD_BODY),
    FaultKind("F32 string", response(200, '"gone"'), **BAD_BODY),
    FaultKind("F32 null rows", response(200, {"data": None, "total_count": 0}), **BAD_BODY),
    FaultKind("F32 another replica", response(200, {"replica_id": "r0other"}), **BAD_BODY),
    FaultKind("F32 error message", response(200, {"error": "Invalid replica_id"}), **BAD_BODY),
    FaultKind("F32 not-found message", response(200, {"message": "Replica not found"}), **BAD_BODY),
    FaultKind("F33 deeply nested JSON", response(200, "[" * 200_000), **BAD_BODY),
    FaultKind("F33 number of 5,000 digits", response(200, '{"total_count": ' + "9" * 5000 + "}"), **BAD_BODY),
    FaultKind("F34 gzip bomb", compressed(1), **BAD_BODY),
    FaultKind("F34 nested gzip bomb", compressed(2), **BAD_BODY),
    FaultKind("F34 endless chunks", endless_chunks, **BAD_BODY, too_large=True),
    FaultKind("F35 gzip", encoded(gzip.compress, "gzip"), **UNDERSTOOD),
    FaultKind("F35 deflate", encoded(zlib.compress, "deflate"), **UNDERSTOOD),
    FaultKind("F35 deflate without header", encoded(raw_deflate, "deflate"), **UNDERSTOOD),
    FaultKind("F35 says br", response(200, "{}", "Content-Encoding: br\r\n"), **BAD_BODY),
    FaultKind("F35 not gzip", response(200, "{}", "Content-Encoding: gzip\r\n"), **INCOMPLETE_BODY),
    FaultKind(
        "F35 gzip without its end", encoded(lambda b: gzip.compress(b)[:-1], "gzip"), **INCOMPLETE_BODY
    ),
    FaultKind(
        "F35 not deflate",
        response(200, zlib.compress(b"{}")[:-3], "Content-Encoding: deflate\r\n"),
        **INCOMPLETE_BODY,
    ),
    FaultKind("F33 byte order mark", recoded(lambda body: b"\xef\xbb\xbf" + body), **UNDERSTOOD),
    # F30, F36, F39, F41: no usable head
    FaultKind("F30 TLS bytes", raw("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", CLOSE), **RETRIED),
    FaultKind("F30 garbage", raw("gone fishing\r\n\r\n", CLOSE), **RETRIED),
    FaultKind("F36 long header", raw(LONG_HEADER), **RETRIED),
    FaultKind(
        "F36 200 headers", raw(JSON_200 + "X-Many: 1\r\n" * 200 + "Content-Length: 2\r\n\r\n{}"), **RETRIED
    ),
    FaultKind("F39 101 only", raw("HTTP/1.1 101 x\r\n\r\n"), **RETRIED),
    *(
        FaultKind(
            f"F39 {status} only",
            lambda correct, tavus, status=status: [
                f"HTTP/1.1 {status} x\r\n\r\n".encode(),
                *tavus.silence(),
            ],
            listing="error error",
            **AMBIGUOUS_DELETE,
            timed=True,
        )
        for status in (102, 103)
    ),
    *(
        FaultKind(
            f"F39 slow header of {status}",
            lambda correct, tavus, status=status: tavus.drip(f"HTTP/1.1 {status} x\r\nX: ".encode(), b"x"),
            listing="error error",
            **AMBIGUOUS_DELETE,
            timed=True,
        )
        for status in (100, 102)
    ),
    FaultKind("F39 103 before the response", after("HTTP/1.1 103 x\r\nLink: </x>\r\n\r\n"), **UNDERSTOOD),
    FaultKind(
        "F39 102 and 100 before the response",
        after("HTTP/1.1 102 x\r\n\r\nHTTP/1.1 100 x\r\n\r\n"),
        **UNDERSTOOD,
    ),
    FaultKind("F39 too many 103", after("HTTP/1.1 103 x\r\n\r\n" * 40), **RETRIED),
    FaultKind("F39 103 then 101", after("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 101 x\r\n\r\n"), **RETRIED),
    # F37 and F38: slow responses
    FaultKind(
        "F37 slow header",
        lambda correct, tavus: tavus.drip(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"),
        listing="error error",
        **AMBIGUOUS_DELETE,
        timed=True,
    ),
    FaultKind(
        "F38 slow body",
        lambda correct, tavus: tavus.drip(f"{JSON_200}Content-Length: 9000\r\n\r\n".encode(), b" "),
        **BAD_BODY,
        timed=True,
    ),
    # F41: responses that do not mean that the delete is done
    FaultKind("F41 204", response(204), **BAD_BODY),
    FaultKind("F41 202", response(202, {"status": "accepted"}), listing="error error", **AMBIGUOUS_DELETE),
    FaultKind("F41 206", response(206, {"status": "deleted"}), listing="error error", **AMBIGUOUS_DELETE),
    FaultKind("F41 299", response(299, {}), listing="error error", **AMBIGUOUS_DELETE),
    *(
        FaultKind(f"F41 status {word}", response(word, {}), **RETRIED)
        for word in ("999", "42", "abc", "-200", "2 00")
    ),
    # F42: wrong Content-Length
    FaultKind("F42 Content-Length -5", raw(f"{JSON_200}Content-Length: -5\r\n\r\n{{}}", CLOSE), **BAD_BODY),
    FaultKind("F42 Content-Length abc", raw(f"{JSON_200}Content-Length: abc\r\n\r\n{{}}", CLOSE), **BAD_BODY),
    FaultKind("F42 Content-Length too short", raw(f"{JSON_200}Content-Length: 1\r\n\r\n{{}}"), **BAD_BODY),
    FaultKind(
        "F42 two Content-Length",
        raw(f"{JSON_200}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}", CLOSE),
        **RETRIED,
    ),
    FaultKind(
        "F42 two responses",
        one_write(f"{JSON_200}Content-Length: 2\r\n\r\n{{}}", http_response(403, {})),
        **BAD_BODY,
    ),
    # F21: the server does not know the replica
    *(
        FaultKind(f"F21 {status}", error(status), listing="error error", lookup="gone gone", no_retry=True)
        for status in (404, 410)
    ),
]
"""F21 is tested with a replica that does not exist: then its delete must be ``already_gone``."""

BY_NAME = {kind.name: kind for kind in KINDS}


def rows(kinds: list[FaultKind]) -> list[list[FaultKind]]:
    """Group the kinds by row of the matrix (F13, F14, ...)."""
    return [list(row) for _, row in itertools.groupby(kinds, key=lambda kind: kind.name.split()[0])]


def samples(kinds: list[FaultKind]) -> list[FaultKind]:
    """Return the first and the last kind of each row, for tests that would take too long with all kinds."""
    return [kind for row in rows(kinds) for kind in (row if len(row) < 3 else [row[0], row[-1]])]
