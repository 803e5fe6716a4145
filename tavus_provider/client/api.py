"""TavusClient: list, read and delete the objects of one Tavus account."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from tavus_provider.client.access import AccessCheck, check_access
from tavus_provider.client.config import ClientConfig, ClientOptions
from tavus_provider.client.deletion import DeleteRequest, Deletion
from tavus_provider.client.ending import Ending, EndRequest
from tavus_provider.client.kinds import KINDS
from tavus_provider.client.listing import Page
from tavus_provider.client.rate_limiter import RateLimiter
from tavus_provider.client.reading import Reader
from tavus_provider.client.responses import error_of, is_not_found, parse_json, unwrap_item
from tavus_provider.client.retry import RetryPolicy
from tavus_provider.client.transport import Transport
from tavus_provider.client.workers import WorkerThreads
from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.keys import Kind, item_key, parse_key
from tavus_provider.models import (
    Conversation,
    Item,
    Persona,
    Replica,
    UnreadableRow,
    Video,
    check_replica_id,
)

__all__ = ["AccessCheck", "Deletion", "Ending", "TavusClient"]


class TavusClient:
    """
    Call the Tavus API. Needs no Airflow.

    Every method may raise the errors of :mod:`tavus_provider.exceptions`. No error, log line or ``repr``
    contains the API key. The client is safe to share between threads. Use it as a context manager, or call
    :meth:`close`; it can be used again afterwards.

    :param config: origin, API key and options
    :param proxy: URL of an HTTP proxy; proxies of the environment are not used
    :param ca_bundle: path of a file of trusted certificates; ``None`` for those of ``certifi``
    :param rate_limiter: ``None`` for the one that all clients of this account share in this process
    :raises TavusValidationError: if ``proxy`` or ``ca_bundle`` cannot be used
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        proxy: str | None = None,
        ca_bundle: str | None = None,
        rate_limiter: RateLimiter | None = None,
    ) -> None:
        self._stop = threading.Event()
        self._transport = Transport(
            config, proxy=proxy, ca_bundle=ca_bundle, rate_limiter=rate_limiter, stop=self._stop
        )
        self._retry = RetryPolicy(self._transport.rate_limiter, stop=self._stop)
        self._workers = WorkerThreads(config.options.concurrency, stop=self._stop)
        self._reader = Reader(self._transport, self._retry, self._workers, stop=self._stop)

    def __repr__(self) -> str:
        return f"TavusClient({self.origin!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a TavusClient holds the API key and cannot be pickled")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close all connections."""
        self._workers.close()
        self._transport.close()

    def stop(self) -> None:
        """
        End all waits, and send no further request.

        Requests under way have three seconds for their responses; then their connections are closed. A delete
        that was not sent raises :class:`TavusRetryableError`. A client that was stopped cannot be used again.
        """
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait, or until the client is stopped. Return whether it was stopped."""
        return self._transport.rate_limiter.sleep(seconds, self._stop)

    @property
    def origin(self) -> str:
        """Scheme, host and port of the API, such as ``https://tavusapi.com``."""
        return self._transport.origin

    @property
    def options(self) -> ClientOptions:
        """Timeout, concurrency and request rate of this client."""
        return self._transport.options

    @property
    def clock_skew(self) -> float | None:
        """Seconds by which Tavus's clock was ahead at its last response; ``None`` if it sent no date.

        Responses of a cache, which have an ``Age``, do not count.
        """
        return self._transport.clock_skew

    @property
    def clock_evidence(self) -> str | None:
        """The headers and the time that ``clock_skew`` was computed from, as a part of a sentence."""
        return self._transport.clock_evidence

    def check_access(self) -> AccessCheck:
        """Send one small request, without retries, to find out whether the API key is accepted."""
        return check_access(self._transport)

    def list_replicas(self, *, while_deleting: bool = False) -> list[Replica | UnreadableRow]:
        """
        Return all replicas of type ``user``.

        :param while_deleting: set this while replicas are being deleted. The result has all replicas that
            exist at the end, and some that were deleted meanwhile. Pages are read one after the other.
        :raises TavusInvalidResponseError: if the listing cannot be shown to be complete
        :raises TavusRetryableError: if Tavus cannot be reached
        :raises TavusAuthError: if the API key is rejected
        """
        kind = KINDS[Kind.REPLICA]
        return self._reader.list_rows(Replica, kind.path, kind.list_query, parallel=not while_deleting)

    def list_personas(
        self, *, keep: Callable[[Persona | UnreadableRow], bool] | None = None
    ) -> list[Persona | UnreadableRow]:
        """
        Return all personas (PALs) of any type. Raises the errors of :meth:`list_replicas`.

        :param keep: as for :meth:`list_conversations`
        """
        return self._reader.list_rows(Persona, "/v2/personas", keep=keep)

    def list_conversations(
        self,
        *,
        latest_only: bool = False,
        status: str | None = None,
        keep: Callable[[Conversation | UnreadableRow], bool] | None = None,
        observe: Callable[[Sequence[Conversation | UnreadableRow]], object] = lambda rows: None,
    ) -> list[Conversation | UnreadableRow]:
        """
        Return all conversations, active and ended. Raises the errors of :meth:`list_replicas`.

        :param latest_only: return only the latest of those with the same replica, persona and status. A
            retention decision needs no others, and memory then grows with the number of replicas.
        :param status: return only those with this status, ``active`` or ``ended``. The server filters, and
            one that ignores the filter returns others too; see the status of the rows.
        :param keep: return only those for which this returns true. Memory then grows with these, and not
            with the account; that all were seen is shown all the same. It may be asked about a row more than
            once: a row is returned if it was to be kept once.
        :param observe: called with the rows of each page, in their order; by several threads, and for some
            pages more than once
        """
        return self._reader.list_rows(
            Conversation,
            KINDS[Kind.CONVERSATION].path,
            {} if status is None else {"status": status},
            latest_only=latest_only,
            keep=keep,
            observe=observe,
        )

    def get_conversations_page(
        self, *, status: str | None = None, number: int = 1, limit: int = 1
    ) -> Page[Conversation | UnreadableRow]:
        """
        Return one page of conversations. Raises the errors of :meth:`list_replicas`.

        :param status: as for :meth:`list_conversations`
        :param number: number of the page, from 1
        :param limit: most rows of the page
        """
        query = {} if status is None else {"status": status}
        path = KINDS[Kind.CONVERSATION].path
        return self._reader.get_page(Conversation, path, query, number=number, limit=limit)

    def list_videos(
        self,
        *,
        latest_only: bool = False,
        keep: Callable[[Video | UnreadableRow], bool] | None = None,
    ) -> list[Video | UnreadableRow]:
        """
        Return all videos. Raises the errors of :meth:`list_replicas`.

        :param latest_only: as for :meth:`list_conversations`
        :param keep: as for :meth:`list_conversations`
        """
        kind = KINDS[Kind.VIDEO]
        return self._reader.list_rows(
            Video, kind.path, first_page=kind.first_page, latest_only=latest_only, keep=keep
        )

    def list_items(
        self, kind: Kind, *, keep: Callable[[Item | UnreadableRow], bool] | None = None
    ) -> list[Item | UnreadableRow]:
        """
        Return all objects of a kind; of replicas, all of type ``user``. Raises the errors of
        :meth:`list_replicas`.

        :param keep: as for :meth:`list_conversations`
        """
        info = KINDS[kind]
        model = cast("type[Replica]", info.model)  # any of the models; all are read in the same way
        rows = self._reader.list_rows(
            model, info.path, info.list_query, first_page=info.first_page, keep=keep
        )
        return cast("list[Item | UnreadableRow]", rows)

    def get_item(self, key: str) -> Item:
        """
        Return one object. A video that was deleted softly may still be returned, with status ``deleted``.

        :param key: see :func:`.parse_key`
        :raises TavusValidationError: if ``key`` is not a valid key; nothing was sent
        :raises ItemNotFoundError: if Tavus does not know the id
        :raises TavusInvalidResponseError: if the response is about another object, or cannot be read
        """
        kind, item_id = parse_key(key)
        info = KINDS[kind]
        path = f"{info.path}/{item_id}"
        what = f"GET {path}"
        response = self._reader.get(path, info.query)
        if is_not_found(response, kind):
            raise error_of(what, response, kind=kind, redact=self._transport.redact)
        body = parse_json(what, response, redact=self._transport.redact)
        item = info.model.from_api(unwrap_item(body, info.model.id_fields))
        if item.key != item_id:
            raise TavusInvalidResponseError(f"{what} returned another {kind}, {item.key}")
        return item

    def get_replica(self, replica_id: str) -> Replica:
        """
        Return one replica. Raises the errors of :meth:`get_item`.

        :raises ReplicaNotFoundError: if Tavus does not know it
        """
        return cast("Replica", self.get_item(check_replica_id(replica_id)))

    def delete_item(
        self, key: str, *, hard: bool = False, before_send: Callable[[], bool] | None = None
    ) -> Deletion:
        """
        Delete one object. This cannot be undone, neither after a soft nor after a hard delete.

        The DELETE is sent at most three times, and only while it is not known to be applied. If a response
        does not show whether it was applied, the object is looked up, and only a clear "not found" counts.

        Source: https://docs.tavus.io/api-reference/phoenix-replica-model/delete-replica, and the same of
        videos and conversations (200, or 204 as seen in the field; ``400 Invalid replica_id``, ``Invalid
        video_id`` or ``Invalid conversation_id`` for an id that does not exist).

        :param key: see :func:`.parse_key`
        :param hard: also delete what belongs to the object, such as training footage (``?hard=true``)
        :param before_send: called each time before the DELETE is sent, when the rate limit allows it. If it
            returns ``False``, the rate limit is asked again. It may raise
            :class:`~tavus_provider.client.transport.RequestCancelledError`, and then nothing more is sent
        :raises TavusValidationError: if ``key`` or ``hard`` is invalid; nothing was sent
        :raises ItemNotFoundError: if Tavus did not know it before anything was applied
        :raises TavusRequestRejectedError: if Tavus rejected the request; certainly not applied
        :raises TavusRetryableError: if it certainly was not applied, and a later attempt may succeed
        :raises TavusOutcomeUnknownError: if it may have been applied
        """
        return self._retry.run(
            DeleteRequest(self._transport, key, hard=hard, look_up=self.get_item, before_send=before_send)
        )

    def delete_replica(
        self, replica_id: str, *, hard: bool = False, before_send: Callable[[], bool] | None = None
    ) -> Deletion:
        """
        Delete one replica: :meth:`delete_item` for an id that can only be that of a replica.

        :raises ReplicaNotFoundError: if Tavus did not know it before anything was applied
        """
        return self.delete_item(check_replica_id(replica_id), hard=hard, before_send=before_send)

    def end_conversation(self, conversation_id: str) -> Ending:
        """
        End an active conversation. Its participants are disconnected.

        If a response does not say that it has ended, the conversation is read. Tavus does not document what
        it returns for one that had ended before; this returns an :class:`Ending` for it.

        Source: https://docs.tavus.io/api-reference/conversations/end-conversation (200 without a body;
        ``400 Invalid conversation_id``).

        :raises TavusValidationError: if ``conversation_id`` is invalid; nothing was sent
        :raises ItemNotFoundError: if Tavus does not know it
        :raises TavusRequestRejectedError: if Tavus rejected the request, and the conversation is not seen to
            have ended
        :raises TavusRetryableError: if it certainly was not applied, and a later attempt may succeed
        :raises TavusOutcomeUnknownError: if it may have been applied
        """
        return self._retry.run(EndRequest(self._transport, conversation_id, look_up=self._get_conversation))

    def _get_conversation(self, conversation_id: str) -> Conversation:
        return cast("Conversation", self.get_item(item_key(Kind.CONVERSATION, conversation_id)))
