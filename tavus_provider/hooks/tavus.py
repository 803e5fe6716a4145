"""The Airflow connection to Tavus, and Tavus's answers turned into meaning."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

from airflow.configuration import conf
from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from tavus_provider.client import config as account
from tavus_provider.client.transport import MAX_SENDS, Answer, RequestNotSentError, Transport
from tavus_provider.exceptions import (
    ReplicaNotFoundError,
    TavusAuthError,
    TavusError,
    TavusInvalidResponseError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
    TavusValidationError,
)
from tavus_provider.get_provider_info import get_provider_info
from tavus_provider.models import (
    Conversation,
    Persona,
    Replica,
    Video,
    check_bool,
    check_replica_id,
)

REPLICAS = "/v2/replicas"
"""Tavus is renaming replicas to faces; both paths are served, and the documented one is this."""

_PAGE = 100
_MAX_PAGES = 20_000
_LISTINGS = 3
_GONE = {"Invalid replica_id", "Invalid face_id"}

T = TypeVar("T", Replica, Persona, Conversation, Video)
A = TypeVar("A", Conversation, Video)


class _Page(NamedTuple, Generic[T]):
    rows: dict[str, T]
    size: int
    total: int


def _keep_all(rows: dict[Any, T], new: dict[str, T]) -> None:
    rows |= new


def _keep_the_newest(rows: dict[Any, A], new: dict[str, A]) -> None:
    for row in new.values():
        other = rows.get(row.usage_key)
        if other is None or row.sort_key > other.sort_key:
            rows[row.usage_key] = row


@dataclass(frozen=True, slots=True)
class Deletion:
    """
    What became of one replica that was to be deleted.

    :param outcome: ``deleted`` (Tavus said so) or ``confirmed`` (no clean answer; a look-up shows it gone)
    :param detail: one sentence
    :param attempts: how many DELETEs were sent for it
    """

    replica_id: str
    outcome: Literal["deleted", "confirmed"]
    detail: str
    attempts: int = 1


class TavusHook(BaseHook):
    """
    Call the Tavus API with the key and the base URL of an Airflow connection.

    The key is the connection's password; the base URL is its host, ``https://tavusapi.com`` if empty,
    and must be among ``[tavus] allowed_origins``. ClientOptions: ``timeout``, ``concurrency``,
    ``requests_per_second`` (see :class:`tavus_provider.client.config.ClientOptions`).

    Every method may raise :class:`~tavus_provider.exceptions.TavusValidationError` for a connection that cannot
    be used, and the other errors of :mod:`tavus_provider.exceptions`; none of them holds the key.
    Use it as a context manager, or call ``close()``, to close its connections.

    :param tavus_conn_id: id of the Airflow connection
    :param concurrency: the most requests at once; never above that of the connection
    :param requests_per_second: the most requests a second; never above that of the connection
    :param parallel_tasks: how many hooks share that rate, in this process or in others; each keeps to its part
    """

    conn_name_attr = "tavus_conn_id"
    default_conn_name = "tavus_default"
    conn_type = "tavus"
    hook_name = "Tavus"

    def __init__(
        self,
        tavus_conn_id: str = default_conn_name,
        *,
        concurrency: int | None = None,
        requests_per_second: float | None = None,
        parallel_tasks: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tavus_conn_id = tavus_conn_id
        self.concurrency = concurrency
        self.requests_per_second = requests_per_second
        self.parallel_tasks = parallel_tasks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to Tavus, if any were opened."""
        if transport := self.__dict__.pop("transport", None):
            transport.close()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the connection form to Airflow before 3.2; later ones read ``get_provider_info``."""
        return {name.replace("-", "_"): value for name, value in _form()["ui-field-behaviour"].items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the extras of the form to Airflow before 3.2; later ones read ``get_provider_info``."""
        from flask_appbuilder.fieldwidgets import (  # type: ignore[import-not-found]  # Airflow's stand-in
            BS3TextFieldWidget,
        )
        from wtforms import IntegerField  # type: ignore[import-untyped]

        return {
            name: IntegerField(
                label=known["label"], description=known["description"], widget=BS3TextFieldWidget()
            )
            for name, known in _form()["conn-fields"].items()
        }

    @cached_property
    def transport(self) -> Transport:
        """The checked connection, ready to send; made on first use."""
        connection = self._connection()
        checked = account.Account(
            origin=_origin_of(connection),
            key=account.read_key(connection.password, login=connection.login),
            extras=self._narrowed(account.ClientOptions.read(connection.extra)),
        )
        mask_secret(checked.key)  # Airflow knows the password as stored, perhaps with a newline
        return Transport(
            checked,
            proxy=conf.get("tavus", "proxy", fallback="") or None,
            ca_bundle=conf.get("tavus", "ca_bundle", fallback="") or None,
        )

    def get_conn(self) -> Transport:
        """Return the transport over which this hook talks to Tavus."""
        return self.transport

    @property
    def origin(self) -> str:
        """Scheme and host of the Tavus that this connection means, such as ``https://tavusapi.com``."""
        return self.transport.origin

    @property
    def clock_skew(self) -> float | None:
        """Seconds by which Tavus's clock was ahead of ours at its last answer; ``None`` if it did not say."""
        return self.transport.clock_skew

    def test_connection(self) -> tuple[bool, str]:
        """
        Ask Tavus for one replica and say in a fixed sentence how that went.

        The sentence goes to a browser, so it never repeats the key, a URL or anything Tavus said.
        """
        try:
            connection = self._connection()
        except TavusValidationError:
            return False, "There is no such connection."
        checks: list[tuple[Callable[[], object], str]] = [
            (
                lambda: _origin_of(connection),
                "The base URL is not allowed: whoever runs this deployment can admit it with "
                "allowed_origins in section [tavus] of the configuration.",
            ),
            (
                lambda: account.read_key(connection.password),
                "The API key is missing or cannot be one: enter it in the password field.",
            ),
            (
                lambda: account.ClientOptions.read(connection.extra),
                "The extras are not valid: known are timeout, concurrency and requests_per_second.",
            ),
        ]
        for check, sentence in checks:
            try:
                check()
            except TavusValidationError:
                return False, sentence
        try:
            answer = self.transport.send("GET", REPLICAS, {"limit": 1}, timeout=5.0)
        except TavusError:
            return False, "Tavus could not be reached."
        finally:
            self.close()
        if answer.status == 200 and _page_or_none(answer):
            return True, "Tavus accepted the API key."
        if answer.status in (401, 403):
            return False, "Tavus refused the API key."
        if answer.status == 429:
            return False, "Tavus asked to wait: too many requests."
        return False, "The answer was not one of Tavus: check the base URL."

    def list_replicas(self, *, shrinking: bool = False) -> list[Replica]:
        """
        Return all replicas of the type ``user``, complete.

        :param shrinking: replicas are being deleted meanwhile: what is there at the end is returned, with
            some that were there at the beginning; read one page after the other
        :raises TavusInvalidResponseError: if the listing cannot be shown to be complete
        :raises TavusRetryableError: if Tavus cannot be reached
        :raises TavusAuthError: if the key is refused
        """
        query = {"verbose": "true", "replica_type": "user"}
        listing = self._list_backwards if shrinking else self._list
        return listing(REPLICAS, query, Replica.from_api, lambda row: row.replica_id)

    def list_personas(self) -> list[Persona]:
        """Return all personas (PALs), of whatever type; errors as for :meth:`list_replicas`."""
        return self._list("/v2/personas", {}, Persona.from_api, lambda row: row.persona_id)

    def list_conversations(self, *, newest: bool = False) -> list[Conversation]:
        """
        Return all conversations, active and ended; errors as for :meth:`list_replicas`.

        :param newest: of those that say the same of use (the same replica, persona and status) return only
            the newest, so that memory grows with the replicas and not with all that was ever said
        """
        return self._activities(Conversation, newest=newest)

    def list_videos(self, *, newest: bool = False) -> list[Video]:
        """
        Return all videos; errors as for :meth:`list_replicas`. Tavus counts their pages from 0.

        :param newest: as for :meth:`list_conversations`
        """
        return self._activities(Video, newest=newest, first_page=0)

    def _activities(self, kind: type[A], *, newest: bool, first_page: int = 1) -> list[A]:
        return self._list(
            f"/v2/{kind.kind}s",
            {},
            kind.from_api,
            lambda row: row.activity_id,
            first_page=first_page,
            fold=_keep_the_newest if newest else _keep_all,
        )

    def get_replica(self, replica_id: str) -> Replica:
        """
        Return one replica.

        :raises TavusValidationError: if it cannot be an id; nothing is sent
        :raises ReplicaNotFoundError: if Tavus does not know it
        :raises TavusInvalidResponseError: if the answer is not about this replica or cannot be read
        """
        path = f"{REPLICAS}/{check_replica_id(replica_id)}"
        answer = self.transport.read(path, {"verbose": "true"})
        what = f"GET {path}"
        if _is_gone(answer):
            raise ReplicaNotFoundError(**self._told(what, answer))
        replica = Replica.from_api(self._json(what, answer))
        if replica.replica_id != replica_id:
            raise TavusInvalidResponseError(f"{what} was answered with another replica, {replica.replica_id}")
        return replica

    def delete_replica(self, replica_id: str, *, hard: bool = False) -> Deletion:
        """
        Delete one replica. There is no undelete, neither after a soft nor after a hard delete.

        Sent at most three times, and again only while it is not known to be applied. After an answer
        that leaves doubt the replica is looked up; only a clear "gone" settles it.

        Facts: https://docs.tavus.io/api-reference/phoenix-replica-model/delete-replica (200, or 204 as
        seen in the field; ``400 Invalid replica_id`` for an id that is not there).

        :param hard: delete the training footage too (``?hard=true``)
        :raises TavusValidationError: if the id or ``hard`` is not one; nothing is sent
        :raises ReplicaNotFoundError: if Tavus did not know it before anything was applied
        :raises TavusRequestRejectedError: if Tavus said no; certainly not applied
        :raises TavusRetryableError: if it certainly was not applied and a later try may succeed
        :raises TavusOutcomeUnknownError: if it may or may not have been applied
        """
        path = f"{REPLICAS}/{check_replica_id(replica_id)}"
        query = {"hard": "true"} if check_bool("hard", hard) else None
        what = f"DELETE {path}" + ("?hard=true" if query else "")
        doubt: TavusError | None = None
        waited = 0.0
        self.transport.count_call()
        for sends in range(1, MAX_SENDS + 1):
            answer: Answer | None = None
            fault: TavusError
            try:
                answer = self.transport.send("DELETE", path, query)
            except RequestNotSentError as error:
                fault = error
            except TavusOutcomeUnknownError as error:
                fault = doubt = error
            except TavusRequestRejectedError as error:
                error.attempts = sends
                if doubt is None:
                    raise
                fault = error
            if answer:
                if _is_done(answer):
                    return Deletion(replica_id, "deleted", f"{what} returned {answer.status}", sends)
                fault = self._fault(what, answer)
                fault.attempts = sends
                if isinstance(fault, ReplicaNotFoundError) and doubt:
                    detail = f"{what} was sent {sends} times; now Tavus does not know it"
                    return Deletion(replica_id, "confirmed", detail, sends)
                if isinstance(fault, ReplicaNotFoundError) or (
                    isinstance(fault, TavusRequestRejectedError) and doubt is None
                ):
                    raise fault
                if isinstance(fault, TavusOutcomeUnknownError):
                    doubt = fault
            if isinstance(fault, TavusOutcomeUnknownError) and self._is_gone_now(replica_id):
                return Deletion(replica_id, "confirmed", f"{fault}; looked up since, it is gone", sends)
            if isinstance(fault, TavusRequestRejectedError) or sends == MAX_SENDS:
                break
            try:
                waited += self.transport.pause(sends, waited, answer)
            except TavusRetryableError as error:
                fault = TavusRetryableError(f"{what}: {error}", status=error.status)
                break
        last, request_id = (doubt or fault), fault.request_id
        kind = TavusOutcomeUnknownError if doubt else TavusRetryableError
        raise kind(
            f"{last}; sent {sends} time{'s' * (sends > 1)}" + ("; it may have been applied" if doubt else ""),
            status=fault.status,
            attempts=sends,
            request_id=request_id,
        )

    def _connection(self) -> Any:
        try:
            return self.get_connection(self.tavus_conn_id)
        except Exception as error:  # noqa: BLE001  # each secrets backend has errors of its own
            kind = type(error).__name__
        raise TavusValidationError(
            f"the Airflow connection {ascii(self.tavus_conn_id)[:80]} is not defined or cannot be read "
            f"({kind}): add it under Admin > Connections, or set "
            f"AIRFLOW_CONN_{str(self.tavus_conn_id).upper()[:80]}"
        )

    def _narrowed(self, extras: account.ClientOptions) -> account.ClientOptions:
        """The connection's extras, made smaller by what the operator asks for."""
        concurrency, rate = extras.concurrency, extras.requests_per_second
        if self.concurrency is not None:
            account.check_bounds("concurrency", self.concurrency)
            concurrency = min(concurrency, self.concurrency)
        if self.requests_per_second is not None:
            account.check_bounds("requests_per_second", self.requests_per_second)
            rate = min(rate or self.requests_per_second, self.requests_per_second)
        account.check_bounds("parallel_tasks", self.parallel_tasks)
        rate = rate and rate / self.parallel_tasks
        return replace(extras, concurrency=concurrency, requests_per_second=rate)

    def _list(
        self,
        path: str,
        query: Mapping[str, str],
        read: Callable[[object], T],
        identify: Callable[[T], str],
        *,
        first_page: int = 1,
        fold: Callable[[dict[Any, T], dict[str, T]], None] = _keep_all,
    ) -> list[T]:
        """Read all pages; again from the start if the count changed on the way: somebody else was at work."""

        def read_page(page: int) -> _Page[T]:
            answer = self.transport.read(path, {**query, "limit": _PAGE, "page": page})
            what = f"GET {path} page {page}"
            data, total = _page(what, self._json(what, answer))
            return _Page({identify(row): row for row in map(read, data)}, len(data), total)

        for _ in range(_LISTINGS):
            seen: set[str] = set()
            rows: dict[Any, T] = {}
            totals: set[int] = set()
            with contextlib.closing(self._pages(read_page, first_page)) as pages:
                for page, (new, size, total) in pages:
                    totals.add(total)
                    # Pages of videos count from 0; a server that counts from 1 answers 0 with its first page.
                    if size and new.keys() <= seen and not (page == 1 and first_page == 0):
                        raise TavusInvalidResponseError(
                            f"GET {path} page {page} repeated rows of the pages before it: "
                            "the listing is not complete"
                        )
                    seen.update(new)
                    fold(rows, new)
                    if not size or len(seen) >= total:
                        break
            if len(totals) == 1 and len(seen) == total:
                return list(rows.values())
            if len(totals) == 1:
                break
        raise TavusInvalidResponseError(
            f"GET {path} showed {len(seen)} rows and total_count {total}: the listing is not complete, "
            "so nothing may be deleted on its ground"
        )

    def _pages(
        self, read_page: Callable[[int], _Page[T]], first_page: int
    ) -> Generator[tuple[int, _Page[T]], None, None]:
        """Yield page after page, in order; as many as the first one tells of are read side by side."""
        first = read_page(first_page)
        yield first_page, first
        page = first_page + 1
        # The server may clamp the limit, so what came is the size of a page.
        told = min(-(-first.total // first.size), _MAX_PAGES) if first.size else 0
        early: dict[int, _Page[T]] = {}
        reading = self.transport.parallel_tasks(read_page, range(page, first_page + told))
        with contextlib.closing(reading):
            for number, read in reading:
                early[number] = read
                while page in early:
                    yield page, early.pop(page)
                    page += 1
        for number in range(page, first_page + _MAX_PAGES):
            yield number, read_page(number)

    def _list_backwards(
        self,
        path: str,
        query: Mapping[str, str],
        read: Callable[[object], T],
        identify: Callable[[T], str],
    ) -> list[T]:
        """
        Read all pages, the last one first: a row that is deleted moves others into pages yet to be read.

        So no row that stays is missed, as long as none is added; where the count grows, it begins again.
        """
        for _ in range(_LISTINGS):
            rows: dict[str, T] = {}
            page, size, least = 1, 0, None
            while page > 0:
                answer = self.transport.read(path, {**query, "limit": _PAGE, "page": page})
                what = f"GET {path} page {page}"
                data, total = _page(what, self._json(what, answer))
                rows |= {identify(row): row for row in map(read, data)}
                if least is None:
                    # The server may clamp the limit, so what came is the size of a page.
                    least, size = total, len(data)
                    if len(rows) == total:
                        return list(rows.values())
                    page = min(-(-total // size), _MAX_PAGES) if size else 0
                    rows = {}
                elif total > least or len(data) != max(0, min(size, total - (page - 1) * size)):
                    break
                else:
                    least, page = total, page - 1
            if page == 0 and len(rows) >= total:
                return list(rows.values())
        raise TavusInvalidResponseError(
            f"GET {path} showed {len(rows)} rows and total_count {total}, or more came while it was read: "
            "the listing is not complete, so nothing may be deleted on its ground"
        )

    def _json(self, what: str, answer: Answer) -> Any:
        if answer.status == 200:
            try:
                return answer.json()
            except ValueError as error:
                flaw = str(error)
            raise TavusInvalidResponseError(
                f"{what} returned 200, but {flaw}: is the connection's base URL that of Tavus?",
                status=200,
                request_id=answer.request_id,
            )
        fault = self._fault(what, answer)
        if isinstance(fault, TavusAuthError | TavusRetryableError):
            raise fault
        raise TavusInvalidResponseError(str(fault), status=answer.status, request_id=answer.request_id)

    def _told(self, what: str, answer: Answer) -> dict[str, Any]:
        """The common parts of an error about an answer."""
        said = self.transport.redact(answer.complaint())
        return {
            "message": f"{what} returned {answer.status}" + (f": {said}" if said else ""),
            "status": answer.status,
            "attempts": answer.attempts,
            "request_id": answer.request_id,
        }

    def _fault(self, what: str, answer: Answer) -> TavusError:
        """What an answer that is no success means: certain or not, final or not."""
        told = self._told(what, answer)
        if _is_gone(answer):
            return ReplicaNotFoundError(**told)
        if answer.status in (401, 403):
            hint = "check the API key of the Airflow connection"
            return TavusAuthError(**{**told, "message": f"{told['message']}: {hint}"})
        if answer.status == 429:
            return TavusRetryableError(**{**told, "message": f"{told['message']}: rate limited"})
        if answer.status in (301, 302, 303, 307, 308):
            hint = "redirects are not followed; check the connection's base URL"
            return TavusRequestRejectedError(**{**told, "message": f"{told['message']}: {hint}"})
        if 400 <= answer.status <= 499 and answer.status != 408:
            return TavusRequestRejectedError(**told)
        if answer.status < 300:
            kind = self.transport.redact(answer.headers.get("content-type", "no content type"))
            told["message"] += f" ({kind}), which is not how Tavus says that it is done"
        return TavusOutcomeUnknownError(**told)

    def _is_gone_now(self, replica_id: str) -> bool:
        """Look a replica up; only a clear answer counts as gone, doubt about the look-up stays doubt."""
        try:
            self.get_replica(replica_id)
        except ReplicaNotFoundError:
            return True
        except TavusError as error:
            self.log.warning("Looking %s up again did not settle it: %s", replica_id, error)
        return False


def _origin_of(connection: Any) -> str:
    allowed = conf.get("tavus", "allowed_origins", fallback=account.DEFAULT_ORIGIN)
    return account.read_origin(
        connection.host, connection.port, connection.schema, allowed=allowed.split(",")
    )


def _form() -> dict[str, Any]:
    info: Any = get_provider_info()
    form: dict[str, Any] = info["connection-types"][0]
    return form


def _is_done(answer: Answer) -> bool:
    """Whether an answer to a DELETE says that it was applied: a page of a portal or a 202 does not."""
    return answer.status in (200, 204) and (
        answer.is_json or not answer.headers.get("content-type") or not (answer.body or answer.flaw)
    )


def _is_gone(answer: Answer) -> bool:
    """Whether an answer says that the replica is not there."""
    return answer.status in (404, 410) or (answer.status == 400 and answer.complaint() in _GONE)


def _page_or_none(answer: Answer) -> tuple[Sequence[object], int] | None:
    try:
        return _page("", answer.json())
    except (ValueError, TavusInvalidResponseError):
        return None


def _page(what: str, body: object) -> tuple[Sequence[object], int]:
    """Read one page: its rows and how many rows there are in all."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        raise TavusInvalidResponseError(f"{what} returned no list of rows under 'data'")
    total = body.get("total_count") if isinstance(body, dict) else None
    if type(total) is not int or total < 0:
        shown = json.dumps(total)[:20]
        raise TavusInvalidResponseError(
            f"{what} returned total_count {shown}: without a count it cannot be shown to be complete"
        )
    return data, total
