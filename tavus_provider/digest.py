"""One way to write a value as bytes, and the digest of those: what plans and records are known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return ``value`` as JSON with sorted keys and no spaces, in UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def canonical_digest(value: Mapping[str, Any]) -> str:
    """Return the sha256 hex of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``value`` with its ``digest``, that of everything in it but the digest itself."""
    return {**value, "digest": digest_of(value)}


def digest_of(value: Mapping[str, Any]) -> str:
    """Return what ``digest`` must say in a sealed value."""
    return canonical_digest({key: inner for key, inner in value.items() if key != "digest"})
