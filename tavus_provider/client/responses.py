"""HTTP responses mapped to results and errors: what a response proves, and what it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from tavus_provider.client.kinds import KINDS
from tavus_provider.client.transport import Response
from tavus_provider.exceptions import (
    TavusAuthError,
    TavusError,
    TavusInvalidResponseError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
)
from tavus_provider.keys import Kind
from tavus_provider.row_fields import describe
from tavus_provider.sanitize import quote


def is_applied(response: Response) -> bool:
    """Whether the response to a DELETE or POST says that it was applied: not so a 202 or a proxy's page."""
    return response.status in (200, 204) and (
        response.is_json
        or not (response.headers.get("content-type") or response.body.lstrip().startswith(b"<"))
        or not (response.body or response.body_error)
    )


def is_not_found(response: Response, kind: Kind) -> bool:
    """Whether the response to a request about one object says that it does not exist."""
    return response.status in (404, 410) or (
        response.status == 400 and response.error_text() in KINDS[kind].unknown_id_texts
    )


def is_limit_rejected(response: Response) -> bool:
    """
    Whether the response to a list says that it allows no such ``limit``.

    Tavus documents no maximum for replicas; other lists have 100 (API reference of voices).
    """
    return response.status in (400, 422) and bool(re.search(rb"\blimit\b", response.body, re.IGNORECASE))


def is_rate_limited(status: int | None) -> bool:
    """Whether a status says that there were too many requests, so that Tavus did not apply this one."""
    return status == 429


def is_key_rejected(response: Response) -> bool:
    """
    Whether Tavus itself rejected the API key, which means that it did not apply the request.

    Tavus sends JSON with a ``message``. Other 401 and 403 responses come from a proxy or a firewall on the
    way, perhaps after Tavus applied the request. They say nothing about the key.

    Source: https://docs.tavus.io/api-reference/phoenix-replica-model/delete-replica (401).
    """
    if response.status not in (401, 403):
        return False
    try:
        body = response.json()
    except ValueError:
        return False
    return isinstance(body, dict) and isinstance(body.get("message"), str)


def is_rejected_on_the_way(response: Response) -> bool:
    """Whether the response is a 401 or 403 that Tavus did not send."""
    return response.status in (401, 403) and not is_key_rejected(response)


def parse_json(what: str, response: Response, *, redact: Callable[[str], str]) -> Any:
    """
    Return the JSON of a 200 response to a read.

    :param what: the request, for messages
    :param redact: makes text of the server safe to print
    :raises TavusInvalidResponseError: if the response has another status or is not JSON
    :raises TavusAuthError: if Tavus rejected the API key
    :raises TavusRetryableError: for 429
    """
    if response.status == 200:
        try:
            return response.json()
        except ValueError as failure:
            reason = str(failure)
        cause = (
            "what is between this worker and Tavus" if response.body_error else "the connection's base URL"
        )
        raise TavusInvalidResponseError(
            f"{what} returned 200, but {reason}: check {cause}",
            status=200,
            request_id=response.request_id,
        )
    error = error_of(what, response, redact=redact)
    if isinstance(error, TavusAuthError | TavusRetryableError):
        raise error
    raise TavusInvalidResponseError(str(error), status=response.status, request_id=response.request_id)


def unwrap_item(body: object, id_fields: Sequence[str]) -> object:
    """
    Return the object in the response to a request for one, also if it is in ``data``, alone or in a list.

    Tavus documents ``{"data": [{...}]}`` for a persona, and no envelope for other kinds (API reference).

    :param id_fields: every name of the id of the object
    """
    if not isinstance(body, dict) or any(name in body for name in id_fields):
        return body
    inner = body.get("data")
    if isinstance(inner, list) and len(inner) == 1:
        inner = inner[0]
    return inner if isinstance(inner, dict) else body


def parse_page(what: str, body: object) -> tuple[Sequence[object], int]:
    """
    Return the rows and the ``total_count`` of the JSON of one page. The count may be a number as text.

    :param what: the request, for messages
    :raises TavusInvalidResponseError: if one of them is missing or invalid
    """
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        found = f"{quote(rows, none='nothing')} there" if isinstance(body, dict) else quote(body, none="null")
        raise TavusInvalidResponseError(
            f"{what} returned no list of rows in 'data', but {found}; expected an object with 'data' and "
            "'total_count', as Tavus documents it: check the connection's base URL, and what is between this "
            "worker and Tavus"
        )
    total = body.get("total_count") if isinstance(body, dict) else None
    if isinstance(total, str) and re.fullmatch(r"\s*[0-9]{1,12}\s*", total, re.ASCII):
        total = int(total)
    if type(total) is not int or total < 0:
        raise TavusInvalidResponseError(
            f"{what} returned total_count {_show_count(total)}: expected a whole number, without which the "
            "listing cannot be shown to be complete"
        )
    return rows, total


def _show_count(total: object) -> str:
    if total is None or isinstance(total, str | int | float):
        return json.dumps(total)[:20]
    return describe(total)


def error_of(
    what: str, response: Response, *, kind: Kind | None = None, redact: Callable[[str], str]
) -> TavusError:
    """
    Return the error that a response without success means for the request.

    :param what: the request, for messages
    :param kind: the kind of the object that the request is about; ``None`` for a list
    :param redact: makes text of the server safe to print
    """
    error, hint = _classify(response, kind, redact)
    text = redact(response.error_text())
    message = f"{what} returned {response.status}" + (f": {text}" if text else "") + hint
    return error(message, status=response.status, attempts=response.attempts, request_id=response.request_id)


def _classify(
    response: Response, kind: Kind | None, redact: Callable[[str], str]
) -> tuple[type[TavusError], str]:
    if kind is not None and is_not_found(response, kind):
        return KINDS[kind].not_found, ""
    match response.status:
        case 401 | 403 if is_key_rejected(response):
            return TavusAuthError, ": check the API key of the Airflow connection"
        case 401 | 403:
            content_type = redact(response.headers.get("content-type", "no content type"))
            return (
                TavusOutcomeUnknownError,
                f" ({content_type}), but not as Tavus does: a proxy or firewall may have sent it",
            )
        case status if is_rate_limited(status):
            return TavusRetryableError, ": rate limited"
        case 301 | 302 | 303 | 307 | 308:
            return (
                TavusRequestRejectedError,
                ": redirects are not followed; check the connection's base URL",
            )
        case status if 400 <= status <= 499 and status != 408:
            return TavusRequestRejectedError, ""
        case status if status < 300:
            content_type = redact(response.headers.get("content-type", "no content type"))
            return TavusOutcomeUnknownError, f" ({content_type}), which does not confirm the request"
    return TavusOutcomeUnknownError, ""
