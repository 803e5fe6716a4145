"""
A Tavus on raw sockets that misbehaves when told to, before or after the effect, and remembers everything.

What it remembers is the witness of the fault matrix: a client is judged by what this server did, not by
what the client says of it. It imports nothing of the package.
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

HANG_UP = None
RESET = object()


class RawServer:
    """
    Says on a socket what no HTTP server would say, and remembers what it was asked.

    ``talk(head, number)`` gives what is said to the request of that number (from 1): bytes, ``HANG_UP``,
    ``RESET``, or an iterable of these; unless it hangs up the connection stays open.

    :param tls: an ``ssl.SSLContext`` of the server
    :param deaf: refuse every connection until ``listen`` is called
    """

    def __init__(self, talk: Callable[[str, int], Any], tls: Any = None, *, deaf: bool = False) -> None:
        self.talk = talk
        self.tls = tls
        self.heads: list[str] = []
        self.connections = 0
        self.hung_up = threading.Event()
        """Set when somebody closed a connection while it was being spoken to."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if not deaf:
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
                said = self.talk(head, number)
                whole = said is HANG_UP or said is RESET or isinstance(said, bytes)
                for part in [said] if whole else said:
                    if part is HANG_UP:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    if part is RESET:  # closing now sends RST instead of FIN
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    try:
                        connection.sendall(part)
                    except OSError:
                        self.hung_up.set()
                        raise


def answer(status: int | str, body: object = "", headers: str = "", kind: str = "application/json") -> bytes:
    """An answer as it stands on the wire; a body that is not text or bytes is sent as JSON."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    raw = text if isinstance(text, bytes) else text.encode()
    head = f"HTTP/1.1 {status} x\r\n" + (f"Content-Type: {kind}\r\n" if raw else "")
    return f"{head}{headers}Content-Length: {len(raw)}\r\n\r\n".encode("latin-1") + raw


@dataclass(frozen=True)
class Misdeed:
    """
    What goes wrong, and when.

    :param says: ``says(truth, tavus)`` gives what is said instead of the true answer
    :param to: ``LIST`` (a page of replicas), ``GET`` (one replica), ``DELETE`` or ``OTHER``
    :param after: whether a delete takes effect all the same
    :param at: the first such request it befalls, from 1
    :param times: how many of them; ``None`` for all that follow
    :param only: the one replica it befalls
    """

    says: Callable[[bytes, Tavus], Any]
    to: str
    after: bool = False
    at: int = 1
    times: int | None = 1
    only: str | None = None


@dataclass(frozen=True)
class Seen:
    """One line of the log of effects: what was asked, and whether it deleted the replica."""

    to: str
    replica_id: str
    applied: bool


class Tavus:
    """
    The state, the log of effects and the misdeeds; ``talk`` is for a :class:`RawServer`.

    :param ids: the replicas that live; two stand on a page, so that seven are four pages
    :param elsewhere: URL of another origin, for redirects
    :param patience: seconds that the client waits; its clock is ``seconds``, if it has none of its own
    :param tick: real seconds between two drips
    """

    page_length = 2
    drips = 5_000
    dripping = False

    def __init__(
        self,
        ids: Iterable[str],
        *misdeeds: Misdeed,
        elsewhere: str = "http://127.0.0.1:9",
        patience: float = 30.0,
        tick: float = 0.001,
    ) -> None:
        self.living = list(ids)
        self.elsewhere = elsewhere
        self.patience = patience
        self.tick = tick
        self.seconds = 1000.0
        self.seen: list[Seen] = []
        self._changed = threading.Condition()
        self.misdeed(*misdeeds)

    def misdeed(self, *misdeeds: Misdeed) -> None:
        """Misbehave in these ways from now on."""
        self.misdeeds = misdeeds
        self._asked = [0] * len(misdeeds)

    def talk(self, head: str, _: int = 0) -> Any:
        """Answer one request: the log is written before the first byte is said."""
        method, target, _version = head.split("\n", maxsplit=1)[0].split(" ")
        path, _, query = target.partition("?")
        kind, replica_id = f"{path}//".split("/")[2], path.partition("/v2/replicas/")[2]
        to = method if replica_id or method != "GET" else "LIST" if kind == "replicas" else "OTHER"
        with self._changed:
            misdeed = self._misdeed(to, replica_id)
            applied = to == "DELETE" and replica_id in self.living and (misdeed is None or misdeed.after)
            truth = self._truth(to, kind, replica_id, query)
            if applied:
                self.living.remove(replica_id)
            self.seen.append(Seen(to, replica_id, applied))
            self.dripping = False
            said = misdeed.says(truth, self) if misdeed else truth
            self._changed.notify_all()
        return said

    def count(self, to: str, replica_id: str | None = None) -> int:
        """How many such requests arrived."""
        return sum(seen.to == to and replica_id in (None, seen.replica_id) for seen in self.seen)

    def applied(self, replica_id: str) -> bool:
        """Whether a request of this client deleted it."""
        return any(seen.applied and seen.replica_id == replica_id for seen in self.seen)

    def wait_for(self, requests: int) -> None:
        """Return when so many requests have arrived and what is said to them is decided."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= requests, 30), "a request did not arrive"

    def silence(self) -> list[bytes]:
        """Say nothing: all but a blink of the client's patience has passed when it begins to listen."""
        self.seconds += self.patience - 0.02
        return []

    def drip(self, first: bytes, part: bytes) -> Iterable[Any]:
        """Say a little, again and again; it ends, so that a client may fail."""
        self.dripping = True
        return self._drips(first, part)

    def _drips(self, first: bytes, part: bytes) -> Iterable[Any]:
        yield first
        for _ in range(self.drips):
            time.sleep(self.tick)
            yield part
        yield HANG_UP

    def _misdeed(self, to: str, replica_id: str) -> Misdeed | None:
        for at, misdeed in enumerate(self.misdeeds):
            if misdeed.to == to and misdeed.only in (None, replica_id):
                self._asked[at] += 1
                past = self._asked[at] - misdeed.at
                if past >= 0 and (misdeed.times is None or past < misdeed.times):
                    return misdeed
        return None

    def _truth(self, to: str, kind: str, replica_id: str, query: str) -> bytes:
        if to == "LIST":
            number = int(query.rpartition("page=")[2]) - 1
            rows = self.living[number * self.page_length : (number + 1) * self.page_length]
            return answer(200, {"data": [row(one) for one in rows], "total_count": len(self.living)})
        if kind != "replicas":
            return answer(200, {"data": [], "total_count": 0})
        if replica_id not in self.living:
            return answer(400, {"error": "Invalid replica_id"})
        return answer(200, row(replica_id)) if to == "GET" else answer(200, {"status": "deleted"})


def row(replica_id: str) -> dict[str, object]:
    """A replica as Tavus lists it: old enough for every policy of the tests."""
    return {
        "replica_id": replica_id,
        "replica_name": f"name of {replica_id}",
        "status": "completed",
        "replica_type": "user",
        "created_at": "2024-01-24T07:14:03.327Z",
        "updated_at": "2024-01-24T09:14:03.327Z",
    }
