"""
A fast Tavus server for benchmarks, without any validation; rows are generated on request.

It responds on the paths that this package uses, after a given latency and with a given rate limit. It counts
requests and 429 responses, and notes the time of the first DELETE and of the last response to one. For
responses to invalid requests, use the sandbox.

    python benchmarks/server.py            print the URL and serve until standard input is closed
    POST /_bench {"replicas": 1000, ...}   reset; the keys are the fields of ``World``
    GET  /_bench                           the counts since the reset
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast
from urllib.parse import parse_qs

NOW = datetime.now(UTC)
STAMPS = [f"{NOW - timedelta(days=age, seconds=age):%Y-%m-%dT%H:%M:%S.%fZ}" for age in range(400)]


@dataclass
class World:
    """
    The account and the behaviour of the server.

    :param replicas: number of replicas, each ``age`` days old; between 0 and 399 days if ``age`` is None
    :param conversations: number of conversations of each replica, all ended
    :param starts_every: seconds between two conversations that begin after the reset; the last ten of them
        are active. None begins without it.
    :param latency: seconds between a request and its response
    :param rate: maximum number of requests in any second; further requests get 429
    :param retry_after: whether a 429 has a Retry-After header
    """

    replicas: int = 0
    conversations: int = 0
    starts_every: float | None = None
    age: int | None = None
    latency: float = 0.0
    rate: int | None = None
    retry_after: bool = False
    deleted: set[str] = field(default_factory=set)
    remaining: tuple[int, list[int]] | None = None
    accepted: deque[float] = field(default_factory=deque)
    reset_at: float = field(default_factory=time.monotonic)
    counts: dict[str, float] = field(default_factory=lambda: {"requests": 0, "limited": 0, "deletes": 0})

    def page(self, kind: str, number: int, size: int, status: str | None = None) -> str:
        """Return one page of a list as JSON. Conversations are listed from the newest to the oldest."""
        ids: Sequence[int]
        if kind == "replicas":
            ids = range(self.replicas)
            if self.deleted:
                ids = [number for number in ids if replica_id(number) not in self.deleted]
        elif kind == "conversations":
            ended, total = self._conversations()
            ids = {"active": range(ended, total), "ended": range(ended)}.get(status or "", range(total))[::-1]
            if status is None and any(one.startswith("c") for one in self.deleted):
                ids = self._remaining(ids)
        else:
            ids = range(0)
        rows = ids[(number - 1) * size : number * size] if kind != "videos" else []
        make = self._replica if kind == "replicas" else self._conversation
        return f'{{"data":[{",".join(map(make, rows))}],"total_count":{len(ids)}}}'

    def _remaining(self, ids: Sequence[int]) -> Sequence[int]:
        """Return the numbers of the conversations that are not deleted; kept until the next delete."""
        if self.remaining is None or self.remaining[0] != len(self.deleted):
            gone = {int(one[1:], 16) for one in self.deleted if one.startswith("c")}
            self.remaining = len(self.deleted), [number for number in ids if number not in gone]
        return self.remaining[1]

    def _conversations(self) -> tuple[int, int]:
        """Return the number of ended conversations, and of all."""
        started = 0
        if self.starts_every is not None:
            started = int((time.monotonic() - self.reset_at) / self.starts_every)
        total = self.replicas * self.conversations + started
        return total - min(started, 10), total

    def _replica(self, number: int) -> str:
        made = STAMPS[number % 400 if self.age is None else self.age]
        return (
            f'{{"replica_id":"{replica_id(number)}","replica_name":"campaign{number % 50}_person {number}",'
            f'"status":"{"error" if number % 20 == 0 else "completed"}","replica_type":"user",'
            f'"model_name":"phoenix-3","created_at":"{made}","updated_at":"{made}",'
            f'"training_progress":"100/100","thumbnail_video_url":"https://cdn.example/{number}.mp4"}}'
        )

    def _conversation(self, number: int) -> str:
        replica = number // max(1, self.conversations) % self.replicas
        status = "ended" if number < self._conversations()[0] else "active"
        # From the newest to the oldest, at most 399 days old.
        total = max(1, self._conversations()[1])
        held = STAMPS[1 + (total - 1 - number) * 398 // total]
        return (
            f'{{"conversation_id":"c{number:015x}","conversation_name":"call {number}","status":"{status}",'
            f'"replica_id":"{replica_id(replica)}","persona_id":null,"created_at":"{held}",'
            f'"updated_at":"{held}","conversation_url":"https://tavus.example/c{number:015x}"}}'
        )

    def respond(self, method: str, target: str) -> tuple[int, str, str]:
        """Count a request; return status, additional headers and body of its response."""
        now = time.monotonic()
        self.counts["requests"] += 1
        if self.rate is not None:
            while self.accepted and now - self.accepted[0] >= 1:
                self.accepted.popleft()
            if len(self.accepted) >= self.rate:
                self.counts["limited"] += 1
                return (
                    429,
                    "Retry-After: 1\r\n" if self.retry_after else "",
                    '{"message":"Too many requests"}',
                )
            self.accepted.append(now)
        path, _, query = target.partition("?")
        _, _, kind, *rest = path.split("/")
        if method == "DELETE":
            self.counts["deletes"] += 1
            self.counts.setdefault("first", now)
            self.counts["last"] = now + self.latency
            self.deleted.add(rest[0])
            return 200, "", "{}"
        if rest and rest[0] in self.deleted:
            return 400, "", f'{{"error":"Invalid {kind[:-1]}_id"}}'
        if rest:
            make = self._replica if kind == "replicas" else self._conversation
            return 200, "", make(int(rest[0][1:], 16))
        parameters = parse_qs(query)
        status = parameters.get("status", [None])[0]
        return 200, "", self.page(kind, int(parameters["page"][0]), int(parameters["limit"][0]), status)


def replica_id(number: int) -> str:
    """Return the id of the replica with a number."""
    return f"r{number:011x}"


class Connection(asyncio.Protocol):
    """One connection; its requests are answered one after the other."""

    world = World()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, complete, body = self.buffer.partition(b"\r\n\r\n")
        if not complete:
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
            self._send(200, "", json.dumps(self.world.counts))
            return
        response = self.world.respond(method, target)
        if self.world.latency:
            asyncio.get_running_loop().call_later(self.world.latency, self._send, *response)
        else:
            self._send(*response)

    def _send(self, status: int, headers: str, body: str) -> None:
        self.transport.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )


async def serve() -> None:
    """Serve on a free port of 127.0.0.1 until standard input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
