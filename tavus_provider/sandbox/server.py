"""The HTTP server of a sandbox: :class:`Sandbox`, its request log and its ASGI application."""

import asyncio
import concurrent.futures
import datetime as dt
import http
import ipaddress
import json
import select
import socket
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tavus_provider.sandbox.faults import encode_body, is_header_value
from tavus_provider.sandbox.resources import RESOURCES
from tavus_provider.sandbox.seeds import builtin_seed, read_seed
from tavus_provider.sandbox.world import (
    LOG_LENGTH,
    OPERATIONS,
    Api,
    ApiRequest,
    ApiResponse,
)


class Sandbox:
    """A Tavus server with its own account, served from a thread inside a `with` block.

    :param seed: the rows of the account, as a mapping or as the path of a JSON or YAML file; None for
        :func:`~tavus_provider.sandbox.seeds.builtin_seed`
    :param key: the API key that requests must send
    :param port: port to listen on; 0 chooses a free port
    :param host: address to listen on
    :param listen_beyond_loopback: allow a `host` that is not a loopback address
    :raises ValueError: if the seed, key or host is invalid
    """

    def __init__(
        self,
        seed: Mapping[str, Any] | str | Path | None = None,
        key: str = "sandbox",
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        listen_beyond_loopback: bool = False,
    ) -> None:
        if not key or not is_header_value(key) or key != key.strip():
            raise ValueError("key: must be printable ASCII, not empty, without leading or trailing spaces")
        if not listen_beyond_loopback and not _is_loopback(host):
            raise ValueError(
                f"host: {host!r} is not a loopback address; allow it by --listen-beyond-loopback"
            )
        self.key = key
        self.url = ""
        self._seed = read_seed(seed) if isinstance(seed, str | Path) else seed
        self._address = (host, port)
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self.reset()

    def __enter__(self) -> Self:
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio sets TCP_NODELAY only on sockets whose protocol is IPPROTO_TCP, not 0.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except (OSError, OverflowError):
            listener.close()
            raise
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        self.url = f"http://{shown}:{listener.getsockname()[1]}"
        self._server = _Server(self._build_app(), listener)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def switch(self, **switches: Any) -> None:
        """Set switches; `faults` replaces the faults that have not been sent yet.

        :raises SwitchError: if a name or value is invalid; then no switch is changed
        """
        with self._lock:
            self._api.switches.set(switches)

    def put(self, kind: str, *rows: Mapping[str, Any]) -> None:
        """Add or change rows, with the fields of a seed.

        :param kind: `replicas`, `personas`, `conversations` or `videos`
        """
        with self._lock:
            for index, row in enumerate(rows):
                self._api.world.put(kind, row, now=self._api.now(), where=f"{kind}[{index}]")

    def reset(self) -> None:
        """Restore the rows of the seed and the default switches, and clear the request log."""
        seed = builtin_seed(now=dt.datetime.now(dt.UTC)) if self._seed is None else self._seed
        api = Api(seed)
        with self._lock:
            self._api = api
            self._log = _RequestLog(self.key)

    def replica_ids(self) -> list[str]:
        """Return the ids of all replicas that are not deleted, stock replicas included."""
        with self._lock:
            return [i for i, row in self._api.world.rows["replicas"].items() if row["deleted"] is None]

    def state(self) -> dict[str, Any]:
        """Return the document that `GET /_sandbox/state` sends."""
        with self._lock:
            return {
                **{kind: self._api.world.to_json(kind) for kind in RESOURCES},
                "requests": [dict(entry) for entry in self._log.entries],
                "deletes": [dict(entry) for entry in self._api.deletes],
                "switches": self._api.switches.to_json(),
            }

    def wait_until_idle(self, timeout: float = 60.0) -> None:
        """Wait until no request that a client has sent can still change :meth:`state`.

        A client that stops waiting leaves its request behind: it may be unread in the socket, or be waiting
        for its latency or delay. Call this before judging the state after such a client. A request that has
        taken effect and whose response is delayed does not count.

        :param timeout: seconds after which to give up
        :raises TimeoutError: if requests are still waiting for their effect after `timeout` seconds
        """
        if self._server is not None:
            self._server.wait_until_idle(timeout)

    def _build_app(self) -> ASGIApp:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
        for kind, resource in RESOURCES.items():
            for method, rest, operation, kinds in OPERATIONS:
                if kind not in kinds:
                    continue
                for path in (kind, resource.alias):
                    if path is not None:
                        endpoint = self._api_endpoint(operation, kind, path == resource.alias)
                        app.add_api_route(f"/v2/{path}{rest}", endpoint, methods=[method])
        state = self._control_endpoint(lambda _: self.state())
        app.add_api_route("/_sandbox/state", state, methods=["GET"])
        for name, action in self._controls().items():
            app.add_api_route(f"/_sandbox/{name}", self._control_endpoint(action), methods=["POST"])

        async def send_error(_: Request, exc: Exception) -> Response:
            status: int = getattr(exc, "status_code", 500)
            return ApiResponse(status, {"error": http.HTTPStatus(status).phrase}).to_http()

        app.add_exception_handler(HTTPException, send_error)
        return self._with_faults(app)

    def _api_endpoint(
        self, operation: Callable[[Api, ApiRequest], ApiResponse], kind: str, alias: bool
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            query: dict[str, str] = {}
            for name, value in request.query_params.multi_items():
                query.setdefault(name, value)  # the first value of a repeated parameter counts
            try:
                body = await request.body()
            except ClientDisconnect:
                body = b""  # a request takes effect although its client has disconnected
            with self._lock:
                parsed = ApiRequest(kind, alias, request.path_params.get("id", ""), query, body)
                response = operation(self._api, parsed)
                request.scope["sandbox"]["effect"] = response.effect
            return response.to_http()

        return endpoint

    def _controls(self) -> dict[str, Callable[[Any], Any]]:
        def put_rows(kind: str) -> Callable[[Any], Any]:
            return lambda body: self.put(kind, *(body if isinstance(body, list) else [body]))

        def set_switches(body: Any) -> dict[str, Any]:
            with self._lock:
                self._api.switches.set(body)
                return self._api.switches.to_json()

        return {
            "switches": set_switches,
            "reset": lambda _: self.reset(),
            **{k: put_rows(k) for k in RESOURCES},
        }

    def _control_endpoint(self, action: Callable[[Any], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                raw = await request.body()
                result = action(json.loads(raw) if raw else None)
            except (ValueError, RecursionError) as exc:
                return ApiResponse(400, {"error": str(exc)}).to_http()
            return ApiResponse(200, result if result is not None else {}).to_http()

        return endpoint

    def _with_faults(self, app: ASGIApp) -> ASGIApp:
        """Wrap the application: log each API request, then apply latency, faults and the key check."""

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"].startswith("/_sandbox/"):
                await app(scope, receive, send)
                return
            with self._lock:
                log = self._log
                entry = log.add(scope)
                scope["sandbox"] = entry
                latency = self._api.switches["latency"]
                send_in_form = _sender(send, self._api.switches.values)
                fault = self._api.switches.take_fault(scope["method"], scope["path"])

            async def send_and_log(message: Message) -> None:
                if message["type"] == "http.response.start":
                    entry["status"] = message["status"]
                    log.finish(entry)
                await send_in_form(message)

            withheld: list[Message] = []

            async def withhold(message: Message) -> None:
                withheld.append(message)

            async def respond(to: Send) -> None:
                rejected = ApiResponse(401, {"message": "Invalid access token"}).to_http()
                await (app if entry["key_ok"] else rejected)(scope, receive, to)

            try:
                await asyncio.sleep(latency)
                if fault is None:
                    await respond(send_and_log)
                    return
                if fault.when == "after":
                    await respond(withhold)
                    if self._server is not None:
                        self._server.mark_settled()
                await asyncio.sleep(fault.delay)
                if fault.close:
                    await _close_connection(receive, send)
                elif fault.status is not None:
                    await fault.response(fault.status)(scope, receive, send_and_log)
                elif fault.when == "before":
                    await respond(send_and_log)
                for message in withheld if fault.status is None and not fault.close else ():
                    await send_and_log(message)
            finally:
                log.finish(entry)

        return handle


class _RequestLog:
    """The API requests since the start or the last reset, with the key masked."""

    def __init__(self, key: str) -> None:
        self.entries: deque[dict[str, Any]] = deque(maxlen=LOG_LENGTH)
        self._key = key
        self._count = 0
        self._in_flight: set[int] = set()
        self._started = time.monotonic()

    def add(self, scope: Scope) -> dict[str, Any]:
        """Log a request that has arrived; status and effect of the entry are filled in later."""
        headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        self._count += 1
        self._in_flight.add(self._count)
        entry = {
            "n": self._count,
            "at": round(time.monotonic() - self._started, 6),
            "in_flight": len(self._in_flight),
            "method": scope["method"],
            "path": self._mask(scope["path"]),
            "query": self._mask(scope["query_string"].decode("latin-1")),
            "status": None,
            "key_ok": headers.get(b"x-api-key") == self._key,
            "user_agent": self._mask(headers.get(b"user-agent", "")),
            "effect": None,
        }
        self.entries.append(entry)
        return entry

    def finish(self, entry: Mapping[str, Any]) -> None:
        """Note that a request is no longer in flight."""
        self._in_flight.discard(entry["n"])

    def _mask(self, text: str) -> str:
        return text.replace(self._key, "***").replace(urllib.parse.quote(self._key, safe=""), "***")


def _sender(send: Send, switches: Mapping[str, Any]) -> Send:
    """Return a function that sends a response in the form that the switches ask for."""
    encoding, interim, headers = switches["encoding"], switches["interim"], switches["headers"]
    start: list[Message] = []
    body = bytearray()

    async def send_encoded(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.append(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        if interim is not None:  # ASGI has no message for it
            line = f"HTTP/1.1 {interim} {http.HTTPStatus(interim).phrase}\r\n\r\n"
            getattr(send, "__self__").transport.write(line.encode())  # noqa: B009 (`Send` is any callable)
        content, name = encode_body(bytes(body), encoding) if body else (b"", "identity")
        added = {**headers, **({} if name == "identity" else {"Content-Encoding": name})}
        kept = [one for one in start[0]["headers"] if not (body and one[0] == b"content-length")]
        if body:
            added["Content-Length"] = str(len(content))
        sent = [(one.lower().encode(), text.encode()) for one, text in added.items()]
        await send({**start[0], "headers": [*kept, *sent]})
        await send({"type": "http.response.body", "body": content})

    return send_encoded if encoding != "identity" or interim is not None or headers else send


async def _close_connection(receive: Receive, send: Send) -> None:
    """Close the connection without a response; ASGI has no message for it, so take uvicorn's transport."""
    getattr(send, "__self__").transport.close()  # noqa: B009 (`Send` is typed as any callable)
    while (await receive())["type"] != "http.disconnect":
        pass


class _Server(uvicorn.Server):
    """uvicorn in a thread: ready when constructed, closed when stopped, without waiting for its ticks."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app, interface="asgi3", http="h11", loop="asyncio", ws="none", lifespan="off",
            log_config=None, log_level="warning", access_log=False,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        super().__init__(config)
        self._ready: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._stopped = asyncio.Event()
        self._ignored: set[asyncio.Task[Any]] = set()
        self._changed: asyncio.Future[None]
        self._listener = listener
        self._thread = threading.Thread(target=self._run, daemon=True, name="tavus-sandbox")
        self._thread.start()
        self._loop = self._ready.result()

    def _run(self) -> None:
        try:
            self.run(sockets=[self._listener])
        except BaseException as exc:
            if self._ready.done():
                raise
            self._ready.set_exception(exc)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def wait_until_idle(self, timeout: float) -> None:
        waiting = asyncio.run_coroutine_threadsafe(self._become_idle(), self._loop)
        try:
            waiting.result(timeout)
        except concurrent.futures.TimeoutError:
            waiting.cancel()
            raise TimeoutError(f"the sandbox is still answering requests after {timeout:g} s") from None

    def mark_settled(self) -> None:
        """Note that the request of the current task has taken effect; :meth:`wait_until_idle` ignores it."""
        self._ignore_current_task()
        self._changed.set_result(None)
        self._changed = self._loop.create_future()

    def _ignore_current_task(self) -> None:
        if task := asyncio.current_task():
            self._ignored.add(task)
            task.add_done_callback(self._ignored.discard)

    async def _become_idle(self) -> None:
        # Accepting a connection and answering a request are tasks of the loop. Between them, a request is
        # unread data of a socket, which the loop reads in its next iteration.
        self._ignore_current_task()
        while True:
            if active := asyncio.all_tasks() - self._ignored:
                await asyncio.wait({*active, self._changed}, return_when=asyncio.FIRST_COMPLETED)
            elif self._has_unread_data():
                await asyncio.sleep(0)
            else:
                return

    def _has_unread_data(self) -> bool:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        for connection in self.server_state.connections:
            transport = connection.transport
            if transport is not None and not transport.is_closing() and transport.is_reading():
                poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def main_loop(self) -> None:
        self._ignore_current_task()
        loop = asyncio.get_running_loop()
        self._changed = loop.create_future()
        self._ready.set_result(loop)
        await self._stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.close()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
