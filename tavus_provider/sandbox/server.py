"""A Tavus on 127.0.0.1, for the demo, for rehearsals and for tests.

It imports nothing of this package, so that it is an independent witness of what a client asked for and of
what became of it. From a shell::

    python -m tavus_provider.sandbox --port 8600 --seed FILE --key sandbox

and in a test, as many at once as wanted::

    with Sandbox({"replicas": [{"replica_id": "r1", "age": "200d"}]}) as tavus:
        tavus.switch(delete_status=204)
        requests.delete(f"{tavus.url}/v2/replicas/r1", headers={"x-api-key": tavus.key})
        assert tavus.state()["deletes"] == [{"replica_id": "r1", "hard": False}]

**Seed.** JSON or YAML with lists `replicas`, `personas`, `conversations`, `videos`; each row names its id.
`age` and `updated` are counted back from the start (`90d`, `36h`, `15m`; `-2d` lies ahead), or `created_at`
and `updated_at` are served as they are written. What a row leaves out is left out of the answers, what it
sets to null is served as null. `replica_type` is any text: the `user` filter lists what begins with `user`.
`"deleted": "soft"` or `"hard"` starts a row as deleted. Without a seed the world is `builtin_seed()`.

**Beside the API**, without a key:

======  =====================  ==========================================================================
GET     /_sandbox/state        all rows, deleted ones too, the requests seen, the deletes, the switches
POST    /_sandbox/switches     set some switches
POST    /_sandbox/replicas     add a row or a list of rows as in a seed, or change the fields that are
                               named; also /personas, /conversations, /videos
POST    /_sandbox/reset        the world, the log and the switches as they were at the start
======  =====================  ==========================================================================

**Switches**, the first value is the default:

=================  ===========================================  =============================================
delete_status      200, 204                                     answer to deleting or renaming replica, video
unknown_id         "400-error", "400-message", "404"            answer to an id that is unknown or deleted
soft_deleted       "hidden", "listed"                           are soft-deleted replicas listed and read
soft_then_hard     "failed", "works"                           a hard delete of what is already soft-deleted
dates              "iso", "iso-ms", "iso-seconds", "offset",    how dates that came from an age are written;
                   "rfc1123", "naive", "null"                   "null" hides the verbatim ones too
vocabulary         "replica", "face", "both"                    words of the routes; but /v2/faces and
                                                                /v2/pals always say face and PAL
clamp_limit        null, 1 to 100                               longest page, 100 if null
total_count        "right", "missing", "high"                   high: three more than there are
latency            0, up to 600                                 seconds before every answer
faults             []                                           see below
=================  ===========================================  =============================================

**Faults** is a list; a request meets the first one that fits it, and a fault is gone after `times` requests
(1; null is for ever). `method` and `path` say where (`path` is a prefix or a regular expression; left out:
everywhere). `when` is "before" (the request has no effect) or "after" it; 429 is always before. `status`
answers with that status, `body` (text), `html` (true: an HTML page), `retry_after` and `headers`; `close`
drops the connection instead; `delay` waits that many seconds first, and alone delays the real answer.

**State** shows rows in a seed's words with `deleted` (null, "soft", "hard"); `deletes` of replicas in their
order; `requests` with `n`, `at` (seconds since the start), `in_flight` (how many were being answered, this
one included), `method`, `path`, `query`, `status` (null: no answer was sent), `key_ok`, `user_agent` and
`effect` (null, "soft", "hard", "created", "renamed", "ended"). The last 100,000 requests are kept, and the
key never: where it stands in one of these texts, `***` is written.
"""

import argparse
import asyncio
import datetime as dt
import email.utils
import http
import ipaddress
import json
import re
import select
import signal
import socket
import sys
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Row = dict[str, Any]
LOG_LENGTH = 100_000

FACE_WORDS = {
    "replica_id": "face_id", "replica_name": "face_name", "replica_type": "face_type",
    "replica_ids": "face_ids", "default_replica_id": "default_face_id",
    "persona_id": "pal_id", "persona_name": "pal_name", "persona_type": "pal_type",
}  # fmt: skip


# -- the world ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """One sort of row: how its id is called, what a seed may say of it, and where its pages begin."""

    id: str
    fields: tuple[str, ...]
    defaults: Mapping[str, str]
    first_page: int = 1

    @property
    def label(self) -> str:
        return self.id.removesuffix("_id")


KINDS: Mapping[str, Kind] = {
    "replicas": Kind(
        "replica_id",
        ("replica_name", "status", "replica_type", "model_name", "training_progress", "error_message"),
        {"status": "completed", "replica_type": "user", "model_name": "phoenix-4"},
    ),
    "personas": Kind(
        "persona_id", ("persona_name", "persona_type", "default_replica_id"), {"persona_type": "user"}
    ),
    "conversations": Kind(
        "conversation_id",
        ("conversation_name", "status", "replica_id", "persona_id"),
        {"status": "ended"},
    ),
    "videos": Kind("video_id", ("video_name", "status", "replica_id"), {"status": "ready"}, first_page=0),
}

# Other people's keys stand in real persona rows; a client must not log or store these.
PERSONA_LAYERS = {
    "llm": {
        "model": "custom-llm",
        "base_url": "https://llm.example/v1",
        "api_key": "llm-key-of-a-third-party",
    },
    "tts": {"tts_engine": "cartesia", "external_voice_id": "voice-1", "api_key": "tts-key-of-a-third-party"},
    "perception": {"perception_model": "raven-1"},
    "stt": {"stt_engine": "tavus-auto"},
}


class SeedError(ValueError):
    """A seed or a row that cannot be used; the message is one line and names the place."""


def _moment(text: Any, *, now: dt.datetime, where: str) -> dt.datetime:
    match = re.fullmatch(r"(-?\d{1,6})([smhdw])", text) if isinstance(text, str) else None
    if match is None:
        raise SeedError(f"{where}: {text!r} is not an age such as 90d, 36h or 15m")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]
    try:
        return now - dt.timedelta(**{unit: int(match[1])})
    except OverflowError:
        raise SeedError(f"{where}: {text!r} lies outside the calendar") from None


def _field(spec: Kind, name: Any, value: Any, *, now: dt.datetime, where: str) -> Any:
    """What a row holds for one field of a seed."""
    if name in {"age", "updated"}:
        return _moment(value, now=now, where=where)
    if name not in {spec.id, "created_at", "updated_at", "deleted", *spec.fields}:
        raise SeedError(f"{where}: no such field")
    if not isinstance(value, str | None):
        raise SeedError(f"{where}: {value!r} is neither text nor null")
    if name == "deleted" and value not in {None, "soft", "hard"}:
        raise SeedError(f"{where}: {value!r} is not null, 'soft' or 'hard'")
    return value


class World:
    """All rows, by kind and id, in the order in which they came; deleted rows stay, marked."""

    def __init__(self, seed: Any, *, now: dt.datetime) -> None:
        self.rows: dict[str, dict[str, Row]] = {kind: {} for kind in KINDS}
        if not isinstance(seed, Mapping):
            raise SeedError(f"a seed is an object with {', '.join(KINDS)}, not {type(seed).__name__}")
        for kind, rows in seed.items():
            if kind not in KINDS:
                raise SeedError(f"{kind!r} is not one of {', '.join(KINDS)}")
            if not isinstance(rows, list):
                raise SeedError(f"{kind}: not a list")
            for index, row in enumerate(rows):
                self.put(kind, row, now=now, where=f"{kind}[{index}]", new=True)

    def put(self, kind: str, raw: Any, *, now: dt.datetime, where: str, new: bool = False) -> None:
        """Add a row in the words of a seed, or change the named fields of the row that has its id."""
        spec = KINDS[kind]
        if not isinstance(raw, Mapping):
            raise SeedError(f"{where}: not an object")
        row_id = raw.get(spec.id)
        if not isinstance(row_id, str) or not row_id:
            raise SeedError(f"{where}.{spec.id}: {row_id!r} is not an id")
        rows = self.rows[kind]
        if new and row_id in rows:
            raise SeedError(f"{where}.{spec.id}: {row_id!r} is there already")
        change: Row = {}
        for name, value in raw.items():
            field = {"age": "created_at", "updated": "updated_at"}.get(str(name), str(name))
            if field != name and field in raw:
                raise SeedError(f"{where}.{name}: give {name} or {field}, not both")
            change[field] = _field(spec, name, value, now=now, where=f"{where}.{name}")
        if row_id not in rows:
            change = {"deleted": None, **spec.defaults, **change}
            if "created_at" in change:
                change.setdefault("updated_at", change["created_at"])
        rows.setdefault(row_id, {}).update(change)

    def dump(self, kind: str) -> list[Row]:
        """The rows as JSON, in a seed's words, dates that came from an age as ISO-8601."""
        return [{k: written(v, "iso") for k, v in row.items()} for row in self.rows[kind].values()]


def written(value: Any, dialect: str) -> Any:
    """A moment in one of the dialects of the `dates` switch; anything else as it is."""
    if not isinstance(value, dt.datetime):
        return value
    match dialect:
        case "iso-ms":
            text = value.isoformat(timespec="milliseconds")
        case "iso-seconds":
            text = value.isoformat(timespec="seconds")
        case "offset":
            return value.astimezone(dt.timezone(dt.timedelta(hours=2))).isoformat(timespec="microseconds")
        case "rfc1123":
            return email.utils.format_datetime(value, usegmt=True)
        case "naive":
            return value.strftime("%Y-%m-%d %H:%M:%S.%f")
        case _:
            text = value.isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


# -- switches and faults -----------------------------------------------------------------------------------


class SwitchError(ValueError):
    """A switch or a fault that does not exist or cannot be set so."""


def _number(value: Any, low: float, high: float, *, whole: bool = False) -> bool:
    sort = int if whole else int | float
    return isinstance(value, sort) and not isinstance(value, bool) and bool(low <= value <= high)


def _is_header(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


CHOICES: Mapping[str, tuple[Any, ...]] = {
    "delete_status": (200, 204),
    "unknown_id": ("400-error", "400-message", "404"),
    "soft_deleted": ("hidden", "listed"),
    "soft_then_hard": ("failed", "works"),
    "dates": ("iso", "iso-ms", "iso-seconds", "offset", "rfc1123", "naive", "null"),
    "vocabulary": ("replica", "face", "both"),
    "total_count": ("right", "missing", "high"),
}


@dataclass
class Fault:
    """One way in which a request goes wrong; see the module's docstring."""

    method: str | None = None
    path: str = ""
    status: int | None = None
    when: str = "before"
    times: int | None = 1
    retry_after: str | None = None
    headers: Mapping[str, str] | None = None
    html: bool = False
    body: str | None = None
    close: bool = False
    delay: float = 0

    def __post_init__(self) -> None:
        try:
            re.compile(self.path)
        except (re.error, TypeError, RecursionError, OverflowError):
            raise SwitchError(f"fault: path {self.path!r} is not a regular expression") from None
        headers = {} if self.headers is None else self.headers
        checks = {
            "method": self.method is None or isinstance(self.method, str),
            "status": self.status is None or _number(self.status, 200, 599, whole=True),
            "when": self.when in ("before", "after"),
            "times": self.times is None or _number(self.times, 1, 10**9, whole=True),
            "retry_after": self.retry_after is None or _is_header(self.retry_after),
            "headers": isinstance(headers, Mapping)
            and all(_is_header(v) and re.fullmatch(r"[\w-]+", n, re.ASCII) for n, v in headers.items()),
            "html": isinstance(self.html, bool),
            "body": isinstance(self.body, str | None),
            "close": isinstance(self.close, bool),
            "delay": _number(self.delay, 0, 600),
        }
        for name, good in checks.items():
            if not good:
                raise SwitchError(f"fault: {name} cannot be {getattr(self, name)!r}")
        if self.status is None and not self.close and not self.delay:
            raise SwitchError("fault: it needs a status, close or delay")
        if self.status == 429 and self.when == "after":
            raise SwitchError("fault: 429 is always before the effect")

    def fits(self, method: str, path: str) -> bool:
        return self.method in (None, method) and re.match(self.path, path) is not None

    def response(self, status: int) -> Response:
        """What is sent instead of the real answer."""
        phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Unknown"
        headers = dict(self.headers or {})
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        if status in {204, 304}:
            return Response(status_code=status, headers=headers)
        if self.html:
            page = f"<html><body><h1>{status} {phrase}</h1></body></html>" if self.body is None else self.body
            return Response(page, status, headers, media_type="text/html")
        body = json.dumps({"error": phrase}) if self.body is None else self.body
        return Response(body.encode("utf-8", "replace"), status, headers, media_type="application/json")


class Switches:
    """How this Tavus behaves where the sources disagree, and what goes wrong."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {name: allowed[0] for name, allowed in CHOICES.items()}
        self.values |= {"clamp_limit": None, "latency": 0}
        self.faults: list[Fault] = []

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def set(self, changes: Any) -> None:
        """Set all of them, or none if one of them is wrong."""
        if not isinstance(changes, Mapping):
            raise SwitchError(f"switches are an object, not {type(changes).__name__}")
        faults = self.faults
        for name, value in changes.items():
            if name == "faults":
                faults = self._faults(value)
            elif name in CHOICES:
                if not any(type(value) is type(known) and value == known for known in CHOICES[name]):
                    raise SwitchError(f"{name}: {value!r} is not one of {list(CHOICES[name])}")
            elif name == "clamp_limit":
                if value is not None and not _number(value, 1, 100, whole=True):
                    raise SwitchError(f"clamp_limit: {value!r} is neither null nor 1 to 100")
            elif name == "latency":
                if not _number(value, 0, 600):
                    raise SwitchError(f"latency: {value!r} is not a number of seconds from 0 to 600")
            else:
                known = ", ".join(sorted([*self.values, "faults"]))
                raise SwitchError(f"no switch {name!r}; known are {known}")
        self.values |= {name: value for name, value in changes.items() if name != "faults"}
        self.faults = faults

    @staticmethod
    def _faults(rows: Any) -> list[Fault]:
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise SwitchError("faults: not a list of objects")
        known = Fault.__dataclass_fields__
        for name in {name for row in rows for name in row}:
            if name not in known:
                raise SwitchError(f"fault: no field {name!r}; known are {', '.join(known)}")
        return [Fault(**row) for row in rows]

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets; it is used up by it."""
        fault = next((fault for fault in self.faults if fault.fits(method, path)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self.faults.remove(fault)
        return fault

    def dump(self) -> dict[str, Any]:
        return {**self.values, "faults": [dict(vars(fault)) for fault in self.faults]}


# -- the API -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One request to one resource, read as far as its handler needs it."""

    kind: str
    alias: bool
    id: str
    query: Mapping[str, str]
    body: bytes

    def param(self, name: str) -> str:
        """A query parameter, "" if absent; the alias routes know it by both its names."""
        value = self.query.get(name, "")
        return (self.query.get(FACE_WORDS.get(name, name)) or value) if self.alias else value

    def number(self, name: str, default: int) -> int:
        try:
            return int(self.query.get(name, default))
        except ValueError:
            return default


@dataclass(frozen=True)
class Answer:
    """A status, its JSON if it has any, and the effect that the log shows."""

    status: int
    body: Any = None
    effect: str | None = None

    def response(self) -> Response:
        if self.body is None:
            return Response(status_code=self.status)
        # ASCII, so that a name with half a surrogate pair can be sent back as it came
        return Response(json.dumps(self.body), self.status, media_type="application/json")


def bad_request(field: str, problem: str) -> Answer:
    return Answer(400, {"error": f"Bad Request. {{'{field}': ['{problem}']}}"})


class Tavus:
    """The answers of the API: rows and switches in, JSON out. It knows no server, no log and no key."""

    def __init__(self, seed: Any) -> None:
        self.world = World(seed, now=self.now())
        self.switches = Switches()
        self.deletes: deque[dict[str, Any]] = deque(maxlen=LOG_LENGTH)

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    # reading

    def list_(self, call: Call) -> Answer:
        rows = [row for row in self.world.rows[call.kind].values() if self._visible(call.kind, row)]
        if wanted := call.param(f"{KINDS[call.kind].label}_type"):
            known = wanted in {"user", "system"}
            type_field = f"{KINDS[call.kind].label}_type"
            rows = [row for row in rows if known and (row.get(type_field) or "").startswith(wanted)]
        if call.kind == "replicas" and (ids := call.param("replica_ids")):
            named = {part.strip() for part in ids.split(",")}
            rows = [row for row in rows if row["replica_id"] in named]
        if call.kind == "replicas" and (model := call.param("model_name")):
            rows = [row for row in rows if row.get("model_name") == model]
        if call.kind == "conversations" and (status := call.param("status")):
            rows = [row for row in rows if row.get("status") == status]
        first = KINDS[call.kind].first_page
        limit = call.number("limit", 10)
        limit = min(limit if limit > 0 else 10, self.switches["clamp_limit"] or 100)
        start = (max(call.number("page", first), first) - first) * limit
        body: dict[str, Any] = {"data": [self._show(call, row) for row in rows[start : start + limit]]}
        if self.switches["total_count"] != "missing":
            body["total_count"] = len(rows) + (3 if self.switches["total_count"] == "high" else 0)
        return Answer(200, body)

    def get(self, call: Call) -> Answer:
        row = self.world.rows[call.kind].get(call.id)
        if row is None or not self._visible(call.kind, row):
            return self._invalid_id(call)
        shown = self._show(call, row, alone=True)
        # documented so for personas, while the vendor's own tool reads PALs flat
        return Answer(200, {"data": [shown]} if call.kind == "personas" and not call.alias else shown)

    # changing

    def delete(self, call: Call) -> Answer:
        hard = call.query.get("hard", "false")
        if hard not in {"true", "false"} and call.kind != "personas":
            return bad_request("hard", "Not a valid boolean.")
        effect = "hard" if hard == "true" or call.kind == "personas" else "soft"
        row = self._own(call, hard=effect == "hard")
        if row is None:
            return self._invalid_id(call)
        row["deleted"] = effect
        if call.kind == "replicas":
            self.deletes.append({"replica_id": call.id, "hard": effect == "hard"})
        status = self.switches["delete_status"] if call.kind in {"replicas", "videos"} else 204
        return Answer(status, effect=effect)

    def create(self, call: Call) -> Answer:
        body = _json_object(call.body)
        if body is None:
            return bad_request("_schema", "Invalid input type.")
        name_field = "face_name" if call.alias and "face_name" in body else "replica_name"
        texts = ("train_video_url", "train_image_url", "voice_name", name_field, "model_name")
        for field in texts:
            if not isinstance(body.get(field), str | None):
                return bad_request(field, "Not a valid string.")
        video, image, voice, name, model = (body.get(field) for field in texts)
        if not video and not image:
            return Answer(400, {"error": "Either train_video_url or train_image_url must be provided."})
        if video and image:
            return Answer(400, {"error": "Only one of train_video_url and train_image_url may be provided."})
        if image and not voice:
            return bad_request("voice_name", "Missing data for required field.")
        rows = self.world.rows["replicas"]
        number = len(rows)
        while (new_id := f"r{number:011x}") in rows:
            number += 1
        row = {"replica_id": new_id, "status": "started", "age": "0s", "model_name": model or "phoenix-4"}
        self.world.put("replicas", row | ({"replica_name": name} if name else {}), now=self.now(), where="")
        answer = {"replica_id": new_id, "status": "started"}
        return Answer(200, self._speak(call, answer), effect="created")

    def rename(self, call: Call) -> Answer:
        body = _json_object(call.body)
        if body is None:
            return bad_request("_schema", "Invalid input type.")
        field = "face_name" if call.alias and "replica_name" not in body else "replica_name"
        if field not in body:
            return bad_request(field, "Missing data for required field.")
        if not isinstance(body[field], str):
            return bad_request(field, "Not a valid string.")
        row = self._own(call)
        if row is None:
            return self._invalid_id(call)
        row |= {"replica_name": body[field], "updated_at": self.now()}
        return Answer(self.switches["delete_status"], effect="renamed")

    def end(self, call: Call) -> Answer:
        row = self._own(call)
        if row is None:
            return self._invalid_id(call)
        row |= {"status": "ended", "updated_at": self.now()}
        return Answer(200, effect="ended")

    # what they share

    def _visible(self, kind: str, row: Row) -> bool:
        if row["deleted"] == "soft":  # a soft-deleted video stays, as one of status `deleted`
            return kind == "videos" or (kind == "replicas" and self.switches["soft_deleted"] == "listed")
        return row["deleted"] is None

    def _own(self, call: Call, *, hard: bool = False) -> Row | None:
        """The row, if the account may change it: its own and not deleted."""
        row = self.world.rows[call.kind].get(call.id)
        if row is None:
            return None
        again = hard and row["deleted"] == "soft" and self.switches["soft_then_hard"] == "works"
        label = KINDS[call.kind].label
        ours = label not in {"replica", "persona"} or (row.get(f"{label}_type") or "").startswith("user")
        return row if ours and (row["deleted"] is None or again) else None

    def _vocabulary(self, call: Call) -> str:
        return "face" if call.alias else str(self.switches["vocabulary"])

    def _invalid_id(self, call: Call) -> Answer:
        word = KINDS[call.kind].id
        if self._vocabulary(call) == "face":
            word = FACE_WORDS.get(word, word)
        match self.switches["unknown_id"]:
            case "404":
                return Answer(404, {"message": f"{word.removesuffix('_id').capitalize()} not found"})
            case "400-message":
                return Answer(400, {"message": f"Invalid {word}"})
        return Answer(400, {"error": f"Invalid {word}"})

    def _speak(self, call: Call, row: Row) -> Row:
        vocabulary = self._vocabulary(call)
        if vocabulary == "replica":
            return row
        faces = {FACE_WORDS.get(name, name): value for name, value in row.items()}
        return faces if vocabulary == "face" else {**row, **faces}

    def _show(self, call: Call, row: Row, *, alone: bool = False) -> Row:
        """A row as the API shows it, in a list or alone."""
        kind, shown = call.kind, dict(row)
        deleted = shown.pop("deleted")
        verbose = call.query.get("verbose") == "true"
        if kind == "replicas":
            done = row.get("status") == "completed"
            shown.setdefault("training_progress", "100/100" if done else "42/100")
            if done:
                shown["thumbnail_video_url"] = f"https://cdn.example/{row['replica_id']}.mp4"
            message = shown.pop("error_message", None)
            if alone:
                failed = row.get("status") == "error"
                shown["error_message"] = message or ("The face is obstructed." if failed else None)
            if not verbose:
                shown.pop("replica_type", None)
        elif kind == "personas":
            shown.pop("persona_type", None)
            shown |= {"system_prompt": "You are a friendly host.", "layers": PERSONA_LAYERS}
        elif kind == "conversations":
            shown["conversation_url"] = f"https://tavus.daily.co/{row['conversation_id']}"
            if alone and verbose:
                shown["events"] = []
        else:
            shown |= {
                "status": "deleted" if deleted else row.get("status"),
                "data": {"script": "Hello!"},
                "hosted_url": f"https://tavus.video/{row['video_id']}",
            }
        dialect = self.switches["dates"]
        for field in ("created_at", "updated_at"):
            if dialect == "null":
                shown[field] = None
            elif field in shown:
                shown[field] = written(shown[field], dialect)
        return self._speak(call, shown)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


RESOURCES = (
    ("replicas", "replicas", False), ("faces", "replicas", True),
    ("personas", "personas", False), ("pals", "personas", True),
    ("conversations", "conversations", False), ("videos", "videos", False),
)  # fmt: skip
OPERATIONS: tuple[tuple[str, str, Callable[[Tavus, Call], Answer], tuple[str, ...]], ...] = (
    ("GET", "", Tavus.list_, tuple(KINDS)),
    ("GET", "/{id}", Tavus.get, tuple(KINDS)),
    ("DELETE", "/{id}", Tavus.delete, tuple(KINDS)),
    ("POST", "", Tavus.create, ("replicas",)),
    ("PATCH", "/{id}/name", Tavus.rename, ("replicas",)),
    ("POST", "/{id}/end", Tavus.end, ("conversations",)),
)


# -- the server --------------------------------------------------------------------------------------------


class Sandbox:
    """One Tavus with its own world, served from a thread while the `with` block lasts.

    :param seed: the world as a mapping or as the path of a JSON or YAML file; the built-in one if None
    :param port: 0 takes a free one
    :param listen_beyond_loopback: without it, any `host` but a loopback address is refused
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
        if not key or not _is_header(key) or key != key.strip():
            raise ValueError("the key must be printable ASCII, not blank, without spaces around it")
        if not listen_beyond_loopback and not _is_loopback(host):
            raise ValueError(f"{host!r} is not a loopback address; --listen-beyond-loopback would allow it")
        self.key = key
        self._seed = read_seed(seed) if isinstance(seed, str | Path) else seed
        self._lock = threading.RLock()
        self._place = (host, port)
        self._server: _Server | None = None
        # Across resets, unlike the numbers of requests: hence identities of log entries.
        self._pending: set[int] = set()
        self.url = ""
        self.reset()

    # in the test's process

    def __enter__(self) -> Self:
        host, port = self._place
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except (OSError, OverflowError):
            listener.close()
            raise
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        self.url = f"http://{shown}:{listener.getsockname()[1]}"
        self._server = _Server(self._app(), listener)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def switch(self, **switches: Any) -> None:
        """Set switches; `faults` replaces the faults that are left."""
        with self._lock:
            self._tavus.switches.set(switches)

    def put(self, kind: str, *rows: Mapping[str, Any]) -> None:
        """Add or change rows of `replicas`, `personas`, `conversations` or `videos`, in a seed's words."""
        with self._lock:
            for index, row in enumerate(rows):
                self._tavus.world.put(kind, row, now=self._tavus.now(), where=f"{kind}[{index}]")

    def reset(self) -> None:
        """Go back to the start: the seed's world, no requests seen, all switches at their defaults."""
        seed = builtin_seed(now=dt.datetime.now(dt.UTC)) if self._seed is None else self._seed
        tavus = Tavus(seed)
        with self._lock:
            self._tavus = tavus
            self._requests: deque[dict[str, Any]] = deque(maxlen=LOG_LENGTH)
            self._seen = 0
            self._open: set[int] = set()
            self._started = time.monotonic()

    def wait_until_idle(self, timeout: float = 60.0) -> None:
        """Wait until no request that a client has sent can still change the world.

        For a test that stopped its client: what the client sent before may not be read yet.

        :param timeout: seconds after which TimeoutError is raised
        """
        if self._server is not None:
            self._server.wait_until_idle(lambda: not self._pending, timeout)

    def replica_ids(self) -> list[str]:
        """The ids that are not deleted, stock replicas among them."""
        with self._lock:
            return [i for i, row in self._tavus.world.rows["replicas"].items() if row["deleted"] is None]

    def state(self) -> dict[str, Any]:
        """What `GET /_sandbox/state` answers."""
        with self._lock:
            return {
                **{kind: self._tavus.world.dump(kind) for kind in KINDS},
                "requests": [dict(entry) for entry in self._requests],
                "deletes": [dict(entry) for entry in self._tavus.deletes],
                "switches": self._tavus.switches.dump(),
            }

    # over HTTP

    def _app(self) -> ASGIApp:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
        for prefix, kind, alias in RESOURCES:
            for method, rest, handler, kinds in OPERATIONS:
                if kind in kinds:
                    endpoint = self._endpoint(handler, kind, alias)
                    app.add_api_route(f"/v2/{prefix}{rest}", endpoint, methods=[method])
        app.add_api_route("/_sandbox/state", self._control(lambda _: self.state()), methods=["GET"])
        for name, act in self._controls().items():
            app.add_api_route(f"/_sandbox/{name}", self._control(act), methods=["POST"])

        async def problem(_: Request, exc: Exception) -> Response:
            status: int = getattr(exc, "status_code", 500)
            return Answer(status, {"error": http.HTTPStatus(status).phrase}).response()

        app.add_exception_handler(HTTPException, problem)
        return self._gate(app)

    def _endpoint(
        self, handler: Callable[[Tavus, Call], Answer], kind: str, alias: bool
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            query: dict[str, str] = {}
            for name, value in request.query_params.multi_items():
                query.setdefault(name, value)  # of several, the first
            try:
                body = await request.body()
            except ClientDisconnect:
                body = b""  # who asked has hung up meanwhile, and is heard all the same
            with self._lock:
                call = Call(kind, alias, request.path_params.get("id", ""), query, body)
                answer = handler(self._tavus, call)
                request.scope["sandbox"]["effect"] = answer.effect
            return answer.response()

        return endpoint

    def _controls(self) -> dict[str, Callable[[Any], Any]]:
        def putter(kind: str) -> Callable[[Any], Any]:
            return lambda body: self.put(kind, *(body if isinstance(body, list) else [body]))

        def switches(body: Any) -> dict[str, Any]:
            with self._lock:
                self._tavus.switches.set(body)
                return self._tavus.switches.dump()

        return {"switches": switches, "reset": lambda _: self.reset(), **{k: putter(k) for k in KINDS}}

    def _control(self, act: Callable[[Any], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                raw = await request.body()
                done = act(json.loads(raw) if raw else None)
            except (ValueError, RecursionError) as exc:
                return Answer(400, {"error": str(exc)}).response()
            return Answer(200, done if done is not None else {}).response()

        return endpoint

    def _gate(self, app: ASGIApp) -> ASGIApp:
        """In front of every request to the API: the log, the latency, the faults and the key."""

        async def gate(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"].startswith("/_sandbox/"):
                await app(scope, receive, send)
                return
            with self._lock:
                entry = self._log(scope)
                scope["sandbox"] = entry
                latency = self._tavus.switches["latency"]
                fault = self._tavus.switches.take(scope["method"], scope["path"])

            async def tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    entry["status"] = message["status"]
                    self._open.discard(entry["n"])
                await send(message)

            kept: list[Message] = []

            async def keep(message: Message) -> None:
                kept.append(message)

            async def answer(to: Send) -> None:
                known = Answer(401, {"message": "Invalid access token"}).response()
                await (app if entry["key_ok"] else known)(scope, receive, to)

            try:
                await asyncio.sleep(latency)
                if fault is None:
                    await answer(tell)
                    return
                if fault.when == "after":
                    await answer(keep)
                    self._pending.discard(id(entry))
                await asyncio.sleep(fault.delay)
                if fault.close:
                    await _hang_up(receive, send)
                elif fault.status is not None:
                    await fault.response(fault.status)(scope, receive, tell)
                elif fault.when == "before":
                    await answer(tell)
                for message in kept if fault.status is None and not fault.close else ():
                    await tell(message)
            finally:
                self._open.discard(entry["n"])
                self._pending.discard(id(entry))

        return gate

    def _masked(self, text: str) -> str:
        return text.replace(self.key, "***").replace(urllib.parse.quote(self.key, safe=""), "***")

    def _log(self, scope: Scope) -> dict[str, Any]:
        headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        self._seen += 1
        self._open.add(self._seen)
        entry = {
            "n": self._seen,
            "at": round(time.monotonic() - self._started, 6),
            "in_flight": len(self._open),
            "method": scope["method"],
            "path": self._masked(scope["path"]),
            "query": self._masked(scope["query_string"].decode("latin-1")),
            "status": None,
            "key_ok": headers.get(b"x-api-key") == self.key,
            "user_agent": self._masked(headers.get(b"user-agent", "")),
            "effect": None,
        }
        self._requests.append(entry)
        self._pending.add(id(entry))
        return entry


async def _hang_up(receive: Receive, send: Send) -> None:
    """Drop the connection without an answer; ASGI has no word for it, uvicorn's `send` knows the socket."""
    getattr(send, "__self__").transport.close()  # noqa: B009 (typed as any callable)
    while (await receive())["type"] != "http.disconnect":
        pass


class _Server(uvicorn.Server):
    """uvicorn in a thread: ready when constructed, gone when stopped, without waiting for its 0.1 s ticks."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app, interface="asgi3", http="h11", loop="asyncio", ws="none", lifespan="off",
            log_config=None, log_level="warning", access_log=False,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        super().__init__(config)
        self._listener = listener
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._halt = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True, name="tavus-sandbox")
        self._thread.start()
        self._loop = self._ready.result()

    def _run(self, listener: socket.socket) -> None:
        try:
            self.run(sockets=[listener])
        except BaseException as exc:
            if self._ready.done():
                raise
            self._ready.set_exception(exc)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._halt.set)
        self._thread.join()

    def wait_until_idle(self, nothing_pending: Callable[[], bool], timeout: float) -> None:
        asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(self._until_idle(nothing_pending), timeout), self._loop
        ).result()

    async def _until_idle(self, nothing_pending: Callable[[], bool]) -> None:
        # An accepted connection, and then its request, needs a few passes of the loop to become visible.
        quiet = 0
        while quiet < 10:
            await asyncio.sleep(0 if quiet else 0.001)
            quiet = quiet + 1 if nothing_pending() and not self._unread() else 0

    def _unread(self) -> bool:
        """Whether a connection waits to be accepted, or one has bytes or its end waiting to be read."""
        connections = [getattr(one, "transport") for one in self.server_state.connections]  # noqa: B009
        poll = select.poll()
        for listed in (self._listener, *(one.get_extra_info("socket") for one in connections)):
            if listed is not None and listed.fileno() >= 0:
                poll.register(listed, select.POLLIN)
        return bool(poll.poll(0))

    async def main_loop(self) -> None:
        self._ready.set_result(asyncio.get_running_loop())
        await self._halt.wait()

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


# -- seeds -------------------------------------------------------------------------------------------------


def read_seed(path: str | Path) -> Mapping[str, Any]:
    """The mapping in a JSON or YAML file; a SeedError names the file and what is wrong with it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        if Path(path).suffix in {".yaml", ".yml"}:
            import yaml

            try:
                seed = yaml.safe_load(text)
            except yaml.YAMLError as exc:
                raise SeedError(" ".join(str(exc).split())) from None
        else:
            seed = json.loads(text)
        World(seed, now=dt.datetime.now(dt.UTC))
    except (OSError, ValueError, RecursionError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise SeedError(f"{path}: {reason}") from None
    return dict(seed)


def builtin_seed(*, now: dt.datetime) -> dict[str, Any]:
    """A world with every case of the policy: 26 replicas of the account and 4 stock ones.

    With `older_than` 90 days, in use or not by persona, active conversation and unfinished video, and failed
    trainings left alone for 72 hours, six may go, 23 % of the account's: `spring-campaign_anna`,
    `summer-campaign_ben`, `black-friday_2024` (last used 300 days ago), `onboarding_v1` (last used 12 days
    ago, so `unused_for` keeps it), `webinar_lukas` (a failed training) and the one whose name is an attack.
    """
    naive = (now - dt.timedelta(days=400)).strftime("%Y-%m-%dT%H:%M:%S.%f")

    def replica(replica_id: str, name: str, age: str, **more: str) -> dict[str, Any]:
        return {"replica_id": replica_id, "replica_name": name, "age": age, **more}

    replicas = [
        # these may go
        replica("r1a0c5e8f3b2", "spring-campaign_anna", "120d"),
        replica("r2b9d41c07ae", "summer-campaign_ben", "210d", model_name="phoenix-3"),
        replica("r3f6a2e9d815", "black-friday_2024", "700d", model_name="phoenix-2"),
        replica("r4c81b7f0d3e", "onboarding_v1", "400d", model_name="phoenix-3"),
        replica("r5e27d9a6c40", "webinar_lukas", "150d", updated="149d", status="error"),
        replica("r6d3b8f1e5a7", HOSTILE_NAME, "250d"),
        # too young
        replica("r70f4c2a9e6b", "spring-campaign_dev", "45d"),
        replica("r81e6b3d7f09", "vip_keynote", "80d"),
        replica("r92d5a0c8b4f", "team-a_v1", "85d"),
        replica("ra3c7f1e2d60", "team-a_v2", "64d"),
        replica("rb48e9d0a5f3", "team-a_v3", "33d"),
        replica("rc59f2b6e1d4", "team-a_v4", "6d"),
        replica("rd6a1c3f7e82", "team-b_v1", "3d"),
        {"replica_id": "re7b0d4a8f95", "age": "15d"},  # without a name
        # in use
        replica("rf8c6e5b1a20", "vip_ceo", "500d"),
        replica("r09d7f2c4b6a", "support-desk_live", "380d"),
        replica("r1ae8b0d3c5f", "birthday-video_host", "260d"),
        # in training, stuck in training, failed just now, failed now after long
        replica("r2bf9a1e4d7c", "product-tour_mei", "3h", status="started"),
        replica("r3c0d6f8b2e5", "product-tour_2023", "200d", status="started"),
        replica("r4d1e7a9c3f6", "webinar_sofia", "20h", status="error"),
        replica("r5f2b8c0d4e1", "webinar_retake", "110d", updated="30h", status="error"),
        # in doubt: no date, a date without a zone, one to come, unknown status, unknown type
        {"replica_id": "r6a3d9e1c5b8", "replica_name": "legacy-import_1", "updated": "300d"},
        {"replica_id": "r7b4e0f2d6c9", "replica_name": "legacy-import_2", "created_at": naive},
        replica("r8c5f1a3e7d0", "clock-skew_test", "-30d"),
        replica("r9d6a2b4f8e1", "archive_2023", "300d", status="archived"),
        replica("rae7b3c5a9f2", "stray-quote_test", "320d", replica_type="user'"),
        # stock
        replica("rb1f8c4d6e0a", "Anna - Studio", "600d", replica_type="system"),
        replica("rb2a9d5e7f1b", "Luna - Office", "550d", replica_type="system"),
        replica("rb3b0e6f8a2c", "Gloria - Home", "300d", replica_type="system", model_name="phoenix-3"),
        replica("rb4c1f7a9b3d", "Benjamin - Dark", "100d", replica_type="system"),
    ]
    personas = [
        ("p1c2d3e4f5a6", "Assistant of the CEO", "rf8c6e5b1a20", "user"),
        ("p2d3e4f5a6b7", "Coach", "rb1f8c4d6e0a", "user"),
        ("p3e4f5a6b7c8", "Host of a face that is gone", "r00dead00bee", "user"),
        ("p4f5a6b7c8d9", "Sales Coach", "rb2a9d5e7f1b", "system"),
    ]
    conversations = [
        ("c0eaa60a267274af", "r09d7f2c4b6a", "p2d3e4f5a6b7", "active", "20m"),
        ("c1fbb71b378385b0", "r4c81b7f0d3e", "p2d3e4f5a6b7", "ended", "12d"),
        ("c20cc82c489496c1", "r3f6a2e9d815", "p2d3e4f5a6b7", "ended", "300d"),
        ("c31dd93d5905a7d2", "rf8c6e5b1a20", "p1c2d3e4f5a6", "ended", "2d"),
    ]
    videos = [
        ("1e30440cf9", "r1ae8b0d3c5f", "generating", "10m"),
        ("2f41551d0a", "r1a0c5e8f3b2", "ready", "119d"),
        ("3a52662e1b", "r5e27d9a6c40", "error", "149d"),
    ]
    return {
        "replicas": replicas,
        "personas": [
            {"persona_id": i, "persona_name": name, "default_replica_id": r, "persona_type": t, "age": "200d"}
            for i, name, r, t in personas
        ],
        "conversations": [
            {"conversation_id": i, "replica_id": r, "persona_id": p, "status": status, "age": age}
            for i, r, p, status, age in conversations
        ],
        "videos": [
            {"video_id": i, "video_name": "Greeting", "replica_id": r, "status": status, "age": age}
            for i, r, status, age in videos
        ],
    }


# Markup, a script, an escape sequence, a line break and a right-to-left override, for logs and pages.
HOSTILE_NAME = "<img src=x onerror=alert(1)> **b** [x](javascript:alert(1)) \x1b[31m\n\u202egpj.exe"


# -- the command -------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"tavus sandbox: {message}\n")


def main(arguments: Iterable[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; what cannot be served is said in one line, and the exit code is 2."""
    parser = _Parser(prog="python -m tavus_provider.sandbox", description="A Tavus on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=8600, help="0 takes a free one (default: 8600)")
    parser.add_argument("--seed", metavar="FILE", help="JSON or YAML; default: the built-in world")
    parser.add_argument("--key", default="sandbox", help="the API key it expects (default: sandbox)")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument(
        "--listen-beyond-loopback", action="store_true", help="let other machines reach it, in so many words"
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    halt = threading.Event()
    try:
        with Sandbox(
            options.seed,
            options.key,
            options.port,
            host=options.host,
            listen_beyond_loopback=options.listen_beyond_loopback,
        ) as sandbox:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: halt.set())
            count = len(sandbox.replica_ids())
            sys.stdout.write(f"Tavus sandbox at {sandbox.url}  (key: {sandbox.key}, {count} replicas)\n")
            sys.stdout.flush()
            halt.wait()
    except OSError as exc:
        parser.error(f"cannot listen on {options.host}:{options.port}: {exc.strerror}")
    except (ValueError, OverflowError) as exc:
        parser.error(str(exc))
    return 0


if __name__ == "__main__":
    sys.exit(main())
