"""
A server for timing only: as quick as asyncio can be, with rows made on the fly and no checks at all.

It answers the paths of Tavus that this package uses after a set latency, at most so many a second, and
tells what it saw: how many requests, how many 429s, and when the first DELETE came and the last one was
answered. What Tavus would say to a wrong request is the sandbox's business.

    python benchmarks/server.py            prints its URL, serves until its standard input is closed
    POST /_bench {"replicas": 1000, ...}   starts anew; the keys are those of ``World``
    GET  /_bench                           what was seen since
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast
from urllib.parse import parse_qs

NOW = datetime.now(UTC)
STAMPS = [f"{NOW - timedelta(days=age, seconds=age):%Y-%m-%dT%H:%M:%S.%fZ}" for age in range(400)]


@dataclass
class World:
    """
    The account, and how it answers.

    :param replicas: how many there are, each ``age`` days old, or of 0 to 399 days if ``age`` is None
    :param conversations: how many each replica has, all ended
    :param latency: seconds between a request and its answer
    :param rate: how many requests are answered in any one second; the others get 429
    :param retry_after: whether a 429 says how long to wait, in whole seconds
    """

    replicas: int = 0
    conversations: int = 0
    age: int | None = None
    latency: float = 0.0
    rate: int | None = None
    retry_after: bool = False
    deleted: set[str] = field(default_factory=set)
    passed: deque[float] = field(default_factory=deque)
    seen: dict[str, float] = field(default_factory=lambda: {"requests": 0, "limited": 0, "deletes": 0})

    def page(self, kind: str, number: int, size: int) -> str:
        """Return one page of a list as JSON."""
        if kind == "replicas":
            ids = range(self.replicas)
            if self.deleted:
                ids = [at for at in ids if replica_id(at) not in self.deleted]
        elif kind == "conversations":
            ids = range(self.replicas * self.conversations)
        else:
            ids = range(0)
        rows = ids[(number - 1) * size : number * size] if kind != "videos" else []
        make = self._replica if kind == "replicas" else self._conversation
        return f'{{"data":[{",".join(map(make, rows))}],"total_count":{len(ids)}}}'

    def _replica(self, at: int) -> str:
        made = STAMPS[at % 400 if self.age is None else self.age]
        return (
            f'{{"replica_id":"{replica_id(at)}","replica_name":"campaign{at % 50}_person {at}",'
            f'"status":"{"error" if at % 20 == 0 else "completed"}","replica_type":"user",'
            f'"model_name":"phoenix-3","created_at":"{made}","updated_at":"{made}",'
            f'"training_progress":"100/100","thumbnail_video_url":"https://cdn.example/{at}.mp4"}}'
        )

    def _conversation(self, at: int) -> str:
        replica = at // self.conversations
        held = STAMPS[min((replica % 400 + at) % 400, replica % 400 if self.age is None else self.age)]
        return (
            f'{{"conversation_id":"c{at:015x}","conversation_name":"call {at}","status":"ended",'
            f'"replica_id":"{replica_id(replica)}","persona_id":null,"created_at":"{held}",'
            f'"updated_at":"{held}","conversation_url":"https://tavus.example/c{at:015x}"}}'
        )

    def answer(self, method: str, target: str) -> tuple[int, str, str]:
        """Return status, further headers and body of an answer, and remember the request."""
        now = time.monotonic()
        self.seen["requests"] += 1
        if self.rate is not None:
            while self.passed and now - self.passed[0] >= 1:
                self.passed.popleft()
            if len(self.passed) >= self.rate:
                self.seen["limited"] += 1
                return (
                    429,
                    "Retry-After: 1\r\n" if self.retry_after else "",
                    '{"message":"Too many requests"}',
                )
            self.passed.append(now)
        path, _, query = target.partition("?")
        _, _, kind, *rest = path.split("/")
        if method == "DELETE":
            self.seen["deletes"] += 1
            self.seen.setdefault("first", now)
            self.seen["last"] = now + self.latency
            self.deleted.add(rest[0])
            return 200, "", "{}"
        if rest:
            return 200, "", self._replica(int(rest[0][1:], 16))
        asked = parse_qs(query)
        return 200, "", self.page(kind, int(asked["page"][0]), int(asked["limit"][0]))


def replica_id(at: int) -> str:
    """Return the id of the replica with this number."""
    return f"r{at:011x}"


class Connection(asyncio.Protocol):
    """One connection; requests on it are answered in turn."""

    world = World()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, ended, body = self.buffer.partition(b"\r\n\r\n")
        if not ended:
            return
        line, *headers = head.decode("latin-1").split("\r\n")
        length = next((int(h[15:]) for h in headers if h.lower().startswith("content-length:")), 0)
        if len(body) < length:
            return
        self.buffer = body[length:]
        method, target, _ = line.split(" ")
        if target == "/_bench":
            if method == "POST":
                Connection.world = World(**json.loads(body[:length]))
            self._say(200, "", json.dumps(self.world.seen))
            return
        said = self.world.answer(method, target)
        if self.world.latency:
            asyncio.get_running_loop().call_later(self.world.latency, self._say, *said)
        else:
            self._say(*said)

    def _say(self, status: int, headers: str, body: str) -> None:
        self.transport.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )


async def serve() -> None:
    """Serve on a free port of loopback until standard input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
