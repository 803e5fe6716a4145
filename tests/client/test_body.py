"""Bodies that are compressed, damaged or too large, over a real socket."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from faults.server import CLOSE, http_response

from tavus_provider.client.transport import MAX_BODY_BYTES

R1 = "/v2/replicas/r1"
ROWS = json.dumps({"data": [{"n": n} for n in range(20_000)]}).encode()
"""More than one part of a decompressed body, and compressed to more than a few bytes."""


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def members(data: bytes) -> bytes:
    return gzip.compress(data[:1000]) + gzip.compress(b"") + gzip.compress(data[1000:])


ENCODINGS = [
    pytest.param("gzip", gzip.compress, id="gzip"),
    pytest.param("GZIP ", gzip.compress, id="upper case"),
    pytest.param("x-gzip", gzip.compress, id="x-gzip"),
    pytest.param("gzip", members, id="gzip of three members"),
    pytest.param("deflate", zlib.compress, id="deflate"),
    pytest.param("deflate", raw_deflate, id="deflate without header"),
    pytest.param("identity", bytes, id="identity"),
]


def encoded(body: bytes, encoding: str, status: int = 200) -> bytes:
    return http_response(status, body, f"Content-Encoding: {encoding}\r\n")


@pytest.fixture
def get(transport, raw_server):
    """Return the response to a request to which a server sends this: ``get(sent, method="GET")``."""

    def send(sent, method="GET"):
        path = "/v2/conversations/c1/end" if method == "POST" else R1
        return transport(raw_server(lambda *_: sent).url).send(method, path)

    return send


@pytest.mark.parametrize(("encoding", "compress"), ENCODINGS)
def test_compressed_body_is_decompressed(get, encoding, compress):
    response = get(encoded(compress(ROWS), encoding))
    assert (response.body, response.body_error) == (ROWS, None)


def test_compressed_body_in_small_chunks_is_decompressed(get):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: deflate\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in zlib.compress(b"{}"))
    assert get(head + chunks + b"0\r\n\r\n").json() == {}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip"])
def test_empty_body_is_empty_in_every_encoding(get, encoding):
    response = get(encoded(b"", encoding, 204), "DELETE")
    assert (response.status, response.body, response.body_error) == (204, b"", None)


@pytest.mark.parametrize(("encoding", "compress"), ENCODINGS[:-1])
@pytest.mark.parametrize("damage", ["not compressed", "cut", "without the last byte", "trailing garbage"])
def test_damaged_body_is_an_error_that_a_retry_may_fix(get, encoding, compress, damage):
    whole = compress(ROWS)
    sent = {
        "not compressed": ROWS,
        "cut": whole[: len(whole) // 2],
        "without the last byte": whole[:-1],
        "trailing garbage": whole + b"garbage",
    }[damage]
    response = get(encoded(sent, encoding))
    assert (response.body, response.truncated) == (b"", True)
    assert response.body_error == f"the body is not valid {encoding.lower().strip()}"


@pytest.mark.parametrize("encoding", ["identity, identity", "utf-8", "UTF8", "none", ","])
def test_body_with_an_encoding_that_is_none_is_read_as_it_is(get, encoding):
    assert get(encoded(ROWS, encoding)).body_error is None
    response = get(encoded(gzip.compress(ROWS), f"{encoding}, gzip"))
    assert (response.body, response.body_error) == (ROWS, None)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_encodings_are_named(get, encoding):
    response = get(encoded(b"{}", encoding))
    with pytest.raises(ValueError, match=f"^the body has the encoding {encoding}, which was not requested$"):
        response.json()
    assert not response.truncated


@pytest.mark.parametrize("method", MAX_BODY_BYTES)
def test_limit_of_bytes_applies_after_decompression(get, method):
    limit = MAX_BODY_BYTES[method]
    filler = b"0123456789abcdef" * 16
    most = (b"".join(filler[n % 16 :] + filler[: n % 16] for n in range(limit // 256)) + b"x")[:limit]
    for compress, encoding in ((bytes, "identity"), (lambda data: gzip.compress(data, 0), "gzip")):
        response = get(encoded(compress(most), encoding), method)
        assert (len(response.body), response.body_error) == (limit, None)
        response = get(encoded(compress(most + b"x"), encoding), method)
        assert (response.body, response.body_error) == (b"", f"the body is larger than {limit // 1024} KiB")


def test_ratio_is_limited_beyond_64_kib(get):
    response = get(encoded(gzip.compress(b" " * 65_536), "gzip"))
    assert (len(response.body), response.body_error) == (65_536, None)
    response = get(encoded(gzip.compress(b" " * 2**20), "gzip"))
    assert response.body_error == "the body grows more than 100 times when it is decompressed"
    assert (response.body, response.truncated) == (b"", False)


def test_endless_empty_members_are_too_large(get):
    members = gzip.compress(b"") * (10 * 2**20 // 20)
    assert get(encoded(members, "gzip"), "DELETE").body_error == "the body is larger than 64 KiB"


def test_compressed_body_that_is_cut_by_the_connection_is_truncated(get):
    response = get([encoded(gzip.compress(ROWS), "gzip")[:-100], CLOSE])
    assert response.truncated
    assert response.body_error == "the body was cut (IncompleteRead)"
