"""
A fake Tavus API on raw sockets that misbehaves on request and logs what it did.

The log is the evidence of the fault matrix: a client is judged by what this server did, not by what the
client reports. This module imports nothing of the package, so that it can judge any client.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

CLOSE = None
RESET = object()


class RawServer:
    """
    A server that sends arbitrary bytes and records the heads of the requests it receives.

    ``respond(head, number)`` returns what is sent in response to the request of that number (from 1):
    bytes, ``CLOSE``, ``RESET``, or an iterable of these. The connection stays open unless it is closed
    in this way.

    :param tls: the ``ssl.SSLContext`` of the server
    :param listening: whether to accept connections at once; otherwise they are refused until ``listen()``
    """

    def __init__(
        self, respond: Callable[[str, int], Any], tls: Any = None, *, listening: bool = True
    ) -> None:
        self.respond = respond
        self.tls = tls
        self.heads: list[str] = []
        self.connections = 0
        self.client_disconnected = threading.Event()
        """Set when a client closed a connection while the server was sending."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if listening:
            self.listen()

    def listen(self) -> None:
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Any) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self.tls:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            stream = stack.enter_context(connection.makefile("rb"))
            while head := "\n".join(iter(lambda: stream.readline().decode("latin-1").strip(), "")):
                with self._lock:
                    self.heads.append(head)
                    number = len(self.heads)
                response = self.respond(head, number)
                single = response is CLOSE or response is RESET or isinstance(response, bytes)
                for part in [response] if single else response:
                    if part is CLOSE:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    if part is RESET:  # closing now sends RST instead of FIN
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    try:
                        connection.sendall(part)
                    except OSError:
                        self.client_disconnected.set()
                        raise


def http_response(
    status: int | str, body: object = "", headers: str = "", content_type: str = "application/json"
) -> bytes:
    """Return the bytes of a response. A body that is neither text nor bytes is encoded as JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    raw = text if isinstance(text, bytes) else text.encode()
    head = f"HTTP/1.1 {status} x\r\n" + (f"Content-Type: {content_type}\r\n" if raw else "")
    return f"{head}{headers}Content-Length: {len(raw)}\r\n\r\n".encode("latin-1") + raw


@dataclass(frozen=True)
class Fault:
    """
    A fault that befalls certain requests.

    :param respond: ``respond(correct, tavus)`` returns what is sent instead of the correct response
    :param request: ``LIST`` (a page of the list), ``GET`` (one object), ``DELETE``, ``END`` (of a
        conversation) or ``OTHER``
    :param applied: whether a delete or an end takes effect nevertheless
    :param first: number of the first such request that meets the fault, from 1
    :param times: number of requests that meet the fault; ``None`` for all from the first on
    :param replica_id: the only replica whose requests meet the fault
    """

    respond: Callable[[bytes, FakeTavus], Any]
    request: str
    applied: bool = False
    first: int = 1
    times: int | None = 1
    replica_id: str | None = None


@dataclass(frozen=True)
class LoggedRequest:
    """One entry of the log: the request, and whether it deleted the object or ended the conversation."""

    request: str
    replica_id: str
    applied: bool


class FakeTavus:
    """
    The objects of one kind, the log and the faults. ``respond`` is for a :class:`RawServer`.

    What is called a replica here is an object of the kind.

    :param ids: the objects that exist; a page holds at most five. Conversations are active.
    :param kind: ``replica``, ``video`` or ``conversation``
    :param other_origin: URL of another server, for redirects
    :param timeout: seconds that the client waits, measured by ``clock`` if a test replaces its clock
    :param drip_interval: real seconds between two parts of a slow response
    """

    page_size = 5
    drips = 5_000
    dripping = False

    def __init__(
        self,
        ids: Iterable[str],
        *faults: Fault,
        kind: str = "replica",
        other_origin: str = "http://127.0.0.1:9",
        timeout: float = 30.0,
        drip_interval: float = 0.001,
    ) -> None:
        self.existing = list(ids)
        self.kind = kind
        self.ended: set[str] = set()
        self.other_origin = other_origin
        self.timeout = timeout
        self.drip_interval = drip_interval
        self.clock = 1000.0
        self.log: list[LoggedRequest] = []
        self._changed = threading.Condition()
        self.set_faults(*faults)

    def set_faults(self, *faults: Fault) -> None:
        """Replace the faults. Their counts start again."""
        self.faults = faults
        self._matched = [0] * len(faults)

    def respond(self, head: str, _: int = 0) -> Any:
        """Return the response to a request. The log is written before the first byte is sent."""
        method, target, _version = head.split("\n", maxsplit=1)[0].split(" ")
        path, _, query = target.partition("?")
        resource, replica_id = f"{path}//".split("/")[2], path.partition(f"/v2/{self.kind}s/")[2]
        request = method
        if method == "POST" and self.kind == "conversation" and replica_id.endswith("/end"):
            request, replica_id = "END", replica_id.removesuffix("/end")
        elif method == "GET" and not replica_id:
            request = "LIST" if resource == f"{self.kind}s" else "OTHER"
        with self._changed:
            fault = self._matching_fault(request, replica_id)
            changes = request in ("DELETE", "END") and replica_id in self.existing
            applied = changes and (fault is None or fault.applied)
            correct = self._correct_response(request, resource, replica_id, query)
            if applied and request == "DELETE":
                self.existing.remove(replica_id)
            elif applied:
                self.ended.add(replica_id)
            self.log.append(LoggedRequest(request, replica_id, applied))
            self.dripping = False
            response = fault.respond(correct, self) if fault else correct
            self._changed.notify_all()
        return response

    def count(self, request: str, replica_id: str | None = None) -> int:
        """Return the number of such requests that arrived."""
        return sum(entry.request == request and replica_id in (None, entry.replica_id) for entry in self.log)

    def was_deleted(self, replica_id: str) -> bool:
        """Return whether a request deleted the replica."""
        return any(
            entry.applied and entry.request == "DELETE" and entry.replica_id == replica_id
            for entry in self.log
        )

    def wait_for_requests(self, number: int) -> None:
        """Return when ``number`` requests have arrived and their responses are decided."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.log) >= number, 30)
            assert arrived, "a request did not arrive"

    def silence(self) -> list[bytes]:
        """Send nothing. When the client begins to wait, its timeout is almost over."""
        self.clock += self.timeout - 0.02
        return []

    def drip(self, start: bytes, part: bytes) -> Iterable[Any]:
        """Send ``start``, then ``part`` many times. It ends, so that a test of an endless client fails."""
        self.dripping = True
        return self._drips(start, part)

    def _drips(self, start: bytes, part: bytes) -> Iterable[Any]:
        yield start
        for _ in range(self.drips):
            time.sleep(self.drip_interval)
            yield part
        yield CLOSE

    def _matching_fault(self, request: str, replica_id: str) -> Fault | None:
        for index, fault in enumerate(self.faults):
            if fault.request == request and fault.replica_id in (None, replica_id):
                self._matched[index] += 1
                past = self._matched[index] - fault.first
                if past >= 0 and (fault.times is None or past < fault.times):
                    return fault
        return None

    def _correct_response(self, request: str, resource: str, replica_id: str, query: str) -> bytes:
        if request == "LIST":
            asked = dict(part.split("=") for part in query.split("&"))
            page = int(asked["page"]) - (0 if self.kind == "video" else 1)
            limit = min(int(asked["limit"]), self.page_size)
            ids = self.existing[page * limit : (page + 1) * limit]
            rows = [self._row(one) for one in ids]
            return http_response(200, {"data": rows, "total_count": len(self.existing)})
        if resource != f"{self.kind}s":
            return http_response(200, {"data": [], "total_count": 0})
        if replica_id not in self.existing:
            return http_response(400, {"error": f"Invalid {self.kind}_id"})
        if request == "END":
            return http_response(200)
        return http_response(200, self._row(replica_id) if request == "GET" else {"status": "deleted"})

    def _row(self, row_id: str) -> dict[str, object]:
        row = replica_row(row_id)
        if self.kind == "replica":
            return row
        status = "ready"
        if self.kind == "conversation":
            status = "ended" if row_id in self.ended else "active"
        return {**row, f"{self.kind}_id": row_id, "replica_id": "r00", "status": status}


def replica_row(replica_id: str) -> dict[str, object]:
    """Return a replica as Tavus lists it, old enough to expire under every policy of these tests."""
    return {
        "replica_id": replica_id,
        "replica_name": f"name of {replica_id}",
        "status": "completed",
        "replica_type": "user",
        "created_at": "2024-01-24T07:14:03.327Z",
        "updated_at": "2024-01-24T09:14:03.327Z",
    }
