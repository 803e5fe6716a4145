"""Whether an API key is accepted, by one small request."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from tavus_provider.client.kinds import KINDS
from tavus_provider.client.responses import is_key_rejected, is_rate_limited, parse_json, parse_page
from tavus_provider.client.transport import Transport
from tavus_provider.exceptions import TavusError
from tavus_provider.keys import Kind

ACCESS_CHECK_SECONDS: Final = 5.0


class AccessCheck(StrEnum):
    """The result of :meth:`TavusClient.check_access`."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """Tavus rejected the API key."""
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    INVALID_RESPONSE = "invalid_response"
    """The response is not one of the Tavus API."""


def check_access(transport: Transport) -> AccessCheck:
    """Send one small request, without retries, to find out whether the API key is accepted."""
    path = KINDS[Kind.REPLICA].path
    try:
        response = transport.send("GET", path, {"limit": 1}, timeout=ACCESS_CHECK_SECONDS)
    except TavusError:
        return AccessCheck.UNREACHABLE
    if is_key_rejected(response):
        return AccessCheck.REJECTED
    if is_rate_limited(response.status):
        return AccessCheck.RATE_LIMITED
    try:
        parse_page("", parse_json("", response, redact=transport.redact))
    except TavusError:
        return AccessCheck.INVALID_RESPONSE
    return AccessCheck.ACCEPTED
