"""
Canonical JSON and its SHA-256 digest, by which plans, policies and ledger records are identified.

A *sealed* object holds its own digest under the key ``digest``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """
    Encode a JSON object as UTF-8 with sorted keys and without spaces, so that equal objects give equal bytes.

    Lone surrogates, which JSON from outside can hold, are encoded as three bytes each.

    :raises ValueError: if ``value`` holds NaN or an infinity, which JSON does not have
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def canonical_digest(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of :func:`canonical_json`, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``value`` with ``digest`` set to :func:`digest_of` it."""
    return {**value, "digest": digest_of(value)}


def digest_of(value: Mapping[str, Any]) -> str:
    """Return the digest of ``value`` without its key ``digest``: what that key has to hold."""
    return canonical_digest({key: inner for key, inner in value.items() if key != "digest"})
