"""
The body of a response: read within limits of bytes and of time, and decompressed within the same limits.

The client asks for uncompressed bodies. Some proxies compress them all the same. urllib3's own decoders do
not tell a compressed body that ends early from a complete one, so :mod:`zlib` is used directly.
"""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import urllib3

from tavus_provider.client.connection import current_request
from tavus_provider.sanitize import escape_line

MAX_RATIO: Final = 100
"""Limit of decompressed bytes per compressed byte."""
RATIO_FREE_BYTES: Final = 64 * 2**10
"""Decompressed bytes to which ``MAX_RATIO`` does not apply."""

_CHUNK_BYTES = 64 * 2**10
_GZIP_WINDOW_BITS = zlib.MAX_WBITS + 16
_GZIP = frozenset({"gzip", "x-gzip"})
_UNENCODED = frozenset({"", "identity", "none", "utf-8", "utf8"})
"""What servers write in ``Content-Encoding`` for a body that is not encoded."""
_DECOMPRESSED = _GZIP | {"deflate"}


class Body(NamedTuple):
    """
    The body of a response.

    :param content: the decompressed bytes; empty or incomplete if there is an ``error``
    :param error: why the body cannot be used; ``None`` if it is complete
    :param truncated: whether it was damaged on the way, so that another response may be complete
    :param too_large: whether it has more bytes than allowed, so that a page with fewer rows may be usable
    """

    content: bytes
    error: str | None = None
    truncated: bool = False
    too_large: bool = False


class _DamagedError(ValueError):
    """The data is not what its encoding says, or ends early."""


class _TooLargeError(ValueError):
    """The data has more bytes than allowed."""


class _RatioError(ValueError):
    """The data has more bytes than its compressed size allows."""


def read_body(raw: urllib3.BaseHTTPResponse, limit: int, encoding: str) -> Body:
    """
    Read a body of at most ``limit`` bytes, counted after decompression.

    :param raw: the response, of which nothing was read
    :param encoding: the ``Content-Encoding`` header: identity, gzip or deflate; only one
    """
    names = (name.strip().lower() for name in encoding.split(","))
    encoding = ", ".join(name for name in names if name not in _UNENCODED)
    parts: list[bytes] = []
    size = 0
    try:
        for part in _read_parts(raw, limit, encoding):
            parts.append(part)
            size += len(part)
            if size > limit:
                return _too_large(limit)
    except _DamagedError:
        return Body(b"", f"the body is not valid {encoding}", truncated=True)
    except _TooLargeError:
        return _too_large(limit)
    except _RatioError as error:
        return Body(b"", str(error))
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        expired = current_request.state().expired
        reason = "the body did not end in time" if expired else f"the body was cut ({innermost_type(error)})"
        return Body(b"".join(parts), reason, truncated=not expired)
    content = b"".join(parts)
    if content and encoding and encoding not in _DECOMPRESSED:
        return Body(
            content, f"the body has the encoding {escape_line(encoding, 20)}, which was not requested"
        )
    return Body(content)


def _too_large(limit: int) -> Body:
    return Body(b"", f"the body is larger than {limit // 1024} KiB", too_large=True)


def innermost_type(error: BaseException) -> str:
    """Return the type of the error at the start of the chain. No text is used: it may contain the key."""
    names = [type(error).__name__]
    inner: Any = error
    while (inner := getattr(inner, "reason", None) or inner.__cause__ or inner.__context__) is not None:
        if not isinstance(inner, BaseException) or len(names) > 4:
            break
        names.append(type(inner).__name__)
    return names[-1]


def _read_parts(raw: urllib3.BaseHTTPResponse, limit: int, encoding: str) -> Iterator[bytes]:
    """Yield the decompressed bytes in parts of at most ``_CHUNK_BYTES``."""
    decompressor = _Decompressor(encoding) if encoding in _DECOMPRESSED else None
    # Compressed data is at most slightly larger than its content.
    most = limit if decompressor is None else limit + _CHUNK_BYTES
    received = decompressed = 0
    while chunk := raw.read(min(_CHUNK_BYTES, most + 1 - received), decode_content=False):
        received += len(chunk)
        if decompressor is None:
            yield chunk
            continue
        if received > most:
            raise _TooLargeError
        for part in decompressor.feed(chunk):
            decompressed += len(part)
            if decompressed > max(RATIO_FREE_BYTES, MAX_RATIO * received):
                raise _RatioError(f"the body grows more than {MAX_RATIO} times when it is decompressed")
            yield part
    if decompressor is not None and received:
        decompressor.finish()


class _Decompressor:
    """
    Decompress gzip, with one or more members, or deflate, with or without the zlib header.

    :param encoding: a name in ``_DECOMPRESSED``
    """

    def __init__(self, encoding: str) -> None:
        self._is_gzip = encoding in _GZIP
        self._zlib: Any = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """
        Yield the decompressed bytes of a chunk in parts of at most ``_CHUNK_BYTES``.

        :raises _DamagedError: if the data is invalid, or goes on after its end
        """
        while True:
            if self._zlib is None:
                self._zlib = zlib.decompressobj(self._window_bits(chunk))
            elif self._zlib.eof:
                if not self._is_gzip:
                    raise _DamagedError
                self._zlib = zlib.decompressobj(_GZIP_WINDOW_BITS)
            try:
                part = self._zlib.decompress(chunk, _CHUNK_BYTES)
            except zlib.error:
                raise _DamagedError from None
            yield part
            chunk = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
            # A full part may leave output in zlib's buffers although no input is left.
            if not chunk and (self._zlib.eof or len(part) < _CHUNK_BYTES):
                return

    def finish(self) -> None:
        """
        Check that the data is complete.

        :raises _DamagedError: if it is not
        """
        if not self._zlib.eof:
            raise _DamagedError

    def _window_bits(self, start: bytes) -> int:
        if self._is_gzip:
            return _GZIP_WINDOW_BITS
        # RFC 1950: method 8, and the first two bytes are a multiple of 31. Some servers omit this header.
        has_header = start[0] & 0x0F == 8 and (len(start) == 1 or int.from_bytes(start[:2]) % 31 == 0)
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
