"""The rows of a sandbox account and the API's responses. No server, no request log and no API key."""

import datetime as dt
import email.utils
import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from tavus_provider.sandbox.faults import Switches
from tavus_provider.sandbox.resources import RESOURCES, Resource

Row = dict[str, Any]
LOG_LENGTH = 100_000
"""How many requests, and how many deletes, are remembered."""

FACE_WORDS = {
    "replica_id": "face_id", "replica_name": "face_name", "replica_type": "face_type",
    "replica_ids": "face_ids", "default_replica_id": "default_face_id",
    "persona_id": "pal_id", "persona_name": "pal_name", "persona_type": "pal_type",
}  # fmt: skip


# Real persona rows contain API keys of third parties; a client must not log or store them.
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
    """An invalid seed or row; the message is one line and names the field."""


def _parse_age(text: Any, *, now: dt.datetime, where: str) -> dt.datetime:
    match = re.fullmatch(r"(-?\d{1,6})([smhdw])", text) if isinstance(text, str) else None
    if match is None:
        raise SeedError(f"{where}: {text!r} is not an age such as 90d, 36h or 15m")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]
    try:
        return now - dt.timedelta(**{unit: int(match[1])})
    except OverflowError:
        raise SeedError(f"{where}: {text!r} is outside the supported range of dates") from None


def _parse_field(spec: Resource, name: Any, value: Any, *, now: dt.datetime, where: str) -> Any:
    """Return the value that a row stores for one field of a seed."""
    if name in {"age", "updated"}:
        return _parse_age(value, now=now, where=where)
    if name not in {spec.id, "created_at", "updated_at", "deleted", *spec.fields}:
        raise SeedError(f"{where}: unknown field")
    if not isinstance(value, str | None):
        raise SeedError(f"{where}: {value!r} is not a string or null")
    if name == "deleted" and value not in {None, "soft", "hard"}:
        raise SeedError(f"{where}: {value!r} is not null, 'soft' or 'hard'")
    return value


class World:
    """All rows by resource and id, in order of creation. Deleted rows stay, with `deleted` set."""

    def __init__(self, seed: Any, *, now: dt.datetime) -> None:
        self.rows: dict[str, dict[str, Row]] = {kind: {} for kind in RESOURCES}
        if not isinstance(seed, Mapping):
            raise SeedError(
                f"a seed must be an object with {', '.join(RESOURCES)}, not {type(seed).__name__}"
            )
        for kind, rows in seed.items():
            if kind not in RESOURCES:
                raise SeedError(f"{kind!r} is not one of {', '.join(RESOURCES)}")
            if not isinstance(rows, list):
                raise SeedError(f"{kind}: must be a list")
            for index, row in enumerate(rows):
                self.put(kind, row, now=now, where=f"{kind}[{index}]", new=True)

    def put(self, kind: str, raw: Any, *, now: dt.datetime, where: str, new: bool = False) -> None:
        """Add a row as in a seed, or change the given fields of the row with the same id."""
        spec = RESOURCES[kind]
        if not isinstance(raw, Mapping):
            raise SeedError(f"{where}: must be an object")
        row_id = raw.get(spec.id)
        if not isinstance(row_id, str) or not row_id:
            raise SeedError(f"{where}.{spec.id}: {row_id!r} is not a non-empty string")
        rows = self.rows[kind]
        if new and row_id in rows:
            raise SeedError(f"{where}.{spec.id}: {row_id!r} is a duplicate")
        change: Row = {}
        for name, value in raw.items():
            field = {"age": "created_at", "updated": "updated_at"}.get(str(name), str(name))
            if field != name and field in raw:
                raise SeedError(f"{where}.{name}: set {name} or {field}, not both")
            change[field] = _parse_field(spec, name, value, now=now, where=f"{where}.{name}")
        if row_id not in rows:
            change = {"deleted": None, **spec.defaults, **change}
            if "created_at" in change:
                change.setdefault("updated_at", change["created_at"])
        rows.setdefault(row_id, {}).update(change)

    def to_json(self, kind: str) -> list[Row]:
        """Return the rows of one resource with the field names of a seed, dates as ISO 8601."""
        return [{k: format_date(v, "iso") for k, v in row.items()} for row in self.rows[kind].values()]


def format_date(value: Any, dialect: str) -> Any:
    """Return a datetime in one of the formats of the `dates` switch, and any other value unchanged."""
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
        case "blank":
            return value.strftime("%Y-%m-%d %H:%M:%S+00")
        case "utc":
            return value.strftime("%Y-%m-%d %H:%M:%S UTC")
        case "epoch":
            return int(value.timestamp())
        case "naive":
            return value.strftime("%Y-%m-%d %H:%M:%S.%f")
        case _:
            text = value.isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


@dataclass(frozen=True)
class ApiRequest:
    """One request to one resource."""

    kind: str
    alias: bool
    id: str
    query: Mapping[str, str]
    body: bytes

    def param(self, name: str) -> str:
        """Return a query parameter, "" if absent. The face and PAL routes accept both of its names."""
        value = self.query.get(name, "")
        return (self.query.get(FACE_WORDS.get(name, name)) or value) if self.alias else value

    def number(self, name: str, default: int) -> int:
        try:
            return int(self.query.get(name, default))
        except ValueError:
            return default


@dataclass(frozen=True)
class ApiResponse:
    """A status, the JSON body if there is one, and the effect that the request log shows.

    `json` is the value of the switch: what is odd about the text of the body.
    """

    status: int
    body: Any = None
    effect: str | None = None
    json: str = "plain"

    def to_http(self) -> Response:
        if self.body is None:
            return Response(status_code=self.status)
        # Escaped to ASCII, so that a name with a lone surrogate can be sent back unchanged
        text = json.dumps(self.body).replace(f'"{_PLACEHOLDER}"', _ODD_VALUES.get(self.json, "null"))
        bom = "\ufeff" if self.json == "bom" else ""
        return Response(bom + text, self.status, media_type="application/json")


_PLACEHOLDER = "value of the field `odd`"
_ODD_VALUES = {"nan": "NaN", "huge": "9" * 5000, "duplicate": '1, "odd": 2'}
"""JSON text that replaces the placeholder, by value of the switch `json`."""


def _bad_request(field: str, problem: str) -> ApiResponse:
    return ApiResponse(400, {"error": f"Bad Request. {{'{field}': ['{problem}']}}"})


class Api:
    """The operations of the API on the rows of one account."""

    def __init__(self, seed: Any) -> None:
        self.world = World(seed, now=self.now())
        self.switches = Switches()
        self.deletes: deque[dict[str, Any]] = deque(maxlen=LOG_LENGTH)
        self._deleted_at: dict[tuple[str, str], dt.datetime] = {}

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def list_rows(self, request: ApiRequest) -> ApiResponse:
        rows = [row for row in self.world.rows[request.kind].values() if self._listed(request.kind, row)]
        if wanted := request.param(f"{RESOURCES[request.kind].label}_type"):
            valid = wanted in {"user", "system"}
            type_field = f"{RESOURCES[request.kind].label}_type"
            rows = [row for row in rows if valid and (row.get(type_field) or "").startswith(wanted)]
        if request.kind == "replicas" and (ids := request.param("replica_ids")):
            requested = {part.strip() for part in ids.split(",")}
            rows = [row for row in rows if row["replica_id"] in requested]
        if request.kind == "replicas" and (model := request.param("model_name")):
            rows = [row for row in rows if row.get("model_name") == model]
        if request.kind == "conversations":
            if self.switches["order"] == "newest":
                rows.reverse()
            if (status := request.param("status")) and self.switches["status_filter"] == "rejected":
                return _bad_request("status", "Unknown field.")
            if status and self.switches["status_filter"] == "works":
                rows = [row for row in rows if row.get("status") == status]
        first = RESOURCES[request.kind].first_page
        limit = request.number("limit", 10)
        if (most := self.switches["max_limit"]) and limit > most:
            return _bad_request("limit", f"Must be less than or equal to {most}.")
        limit = min(limit if limit > 0 else 10, self.switches["clamp_limit"] or 100)
        start = (max(request.number("page", first), first) - first) * limit
        odd_rows = self.switches["odd_rows"].get(request.kind, [])
        page = [self._render(request, row) for row in rows[start : start + limit]]
        page += odd_rows[max(0, start - len(rows)) : max(0, start + limit - len(rows))]
        if (oddity := self.switches["json"]) in _ODD_VALUES:
            page = [{**row, "odd": _PLACEHOLDER} if isinstance(row, dict) else row for row in page]
        body: dict[str, Any] = {"data": page}
        if (total_count := self.switches["total_count"]) != "missing":
            count = len(page) if total_count == "page" else len(rows) + len(odd_rows)
            body["total_count"] = count + (3 if total_count == "high" else 0)
        return ApiResponse(200, body, json=oddity)

    def get(self, request: ApiRequest) -> ApiResponse:
        row = self.world.rows[request.kind].get(request.id)
        if row is None or not self._visible(request.kind, row):
            return self._invalid_id(request)
        shown = self._render(request, row, alone=True)
        # The documentation shows this envelope for personas; Tavus's own client reads PALs without it.
        return ApiResponse(
            200, {"data": [shown]} if request.kind == "personas" and not request.alias else shown
        )

    def delete(self, request: ApiRequest) -> ApiResponse:
        hard = request.query.get("hard", "false")
        if hard not in {"true", "false"} and request.kind != "personas":
            return _bad_request("hard", "Not a valid boolean.")
        effect = "hard" if hard == "true" or request.kind == "personas" else "soft"
        row = self._find_own(request, hard=effect == "hard")
        if row is None:
            return self._invalid_id(request)
        if request.kind == "conversations" and row.get("status") == "active" and row["deleted"] is None:
            if self.switches["delete_active"] == "rejected":
                return ApiResponse(400, {"error": "Conversation is active"})
            if self.switches["delete_active"] == "ends":
                row["status"] = "ended"
        self._mark_deleted(request.kind, row, effect)
        if request.kind == "replicas":
            self.deletes.append({"replica_id": request.id, "hard": effect == "hard"})
            if effect == "hard":
                self._cascade(request.id)
        return ApiResponse(self._delete_status(request.kind), effect=effect)

    def _delete_status(self, kind: str) -> int:
        status = self.switches["delete_status"]
        if kind == "personas" or status == 204:
            return 204
        return 200 if (kind == "conversations") == (status == "swapped") else 204

    def _mark_deleted(self, kind: str, row: Row, effect: str) -> None:
        row["deleted"] = effect
        self._deleted_at[kind, row[RESOURCES[kind].id]] = self.now()

    def _cascade(self, replica_id: str) -> None:
        """Delete what was made with a replica, as far as the switch `cascade` says."""
        cascade = self.switches["cascade"]
        for kind in ("videos", "conversations"):
            for row in self.world.rows[kind].values() if cascade in {kind, "all"} else ():
                if row.get("replica_id") == replica_id and row["deleted"] != "hard":
                    self._mark_deleted(kind, row, "hard")

    def create(self, request: ApiRequest) -> ApiResponse:
        body = _parse_json_object(request.body)
        if body is None:
            return _bad_request("_schema", "Invalid input type.")
        name_field = "face_name" if request.alias and "face_name" in body else "replica_name"
        texts = ("train_video_url", "train_image_url", "voice_name", name_field, "model_name")
        for field in texts:
            if not isinstance(body.get(field), str | None):
                return _bad_request(field, "Not a valid string.")
        video, image, voice, name, model = (body.get(field) for field in texts)
        if not video and not image:
            return ApiResponse(400, {"error": "Either train_video_url or train_image_url must be provided."})
        if video and image:
            return ApiResponse(
                400, {"error": "Only one of train_video_url and train_image_url may be provided."}
            )
        if image and not voice:
            return _bad_request("voice_name", "Missing data for required field.")
        rows = self.world.rows["replicas"]
        number = len(rows)
        while (new_id := f"r{number:011x}") in rows:
            number += 1
        row = {"replica_id": new_id, "status": "started", "age": "0s", "model_name": model or "phoenix-4"}
        self.world.put("replicas", row | ({"replica_name": name} if name else {}), now=self.now(), where="")
        created = {"replica_id": new_id, "status": "started"}
        return ApiResponse(200, self._rename_fields(request, created), effect="created")

    def rename(self, request: ApiRequest) -> ApiResponse:
        body = _parse_json_object(request.body)
        if body is None:
            return _bad_request("_schema", "Invalid input type.")
        field = "face_name" if request.alias and "replica_name" not in body else "replica_name"
        if field not in body:
            return _bad_request(field, "Missing data for required field.")
        if not isinstance(body[field], str):
            return _bad_request(field, "Not a valid string.")
        row = self._find_own(request)
        if row is None:
            return self._invalid_id(request)
        row |= {"replica_name": body[field], "updated_at": self.now()}
        return ApiResponse(self._delete_status("replicas"), effect="renamed")

    def end(self, request: ApiRequest) -> ApiResponse:
        row = self._find_own(request)
        if row is None:
            return self._invalid_id(request)
        if row.get("status") == "ended" and self.switches["end_ended"] == "rejected":
            return ApiResponse(400, {"error": "Conversation has already ended"})
        if row.get("status") == "ended" and self.switches["end_ended"] == "unknown":
            return self._invalid_id(request)
        row |= {"status": "ended", "updated_at": self.now()}
        return ApiResponse(200, effect="ended")

    def _listed(self, kind: str, row: Row) -> bool:
        row_id = row[RESOURCES[kind].id]
        if kind == "replicas" and row_id in self.switches["unlisted"]:
            return False
        deleted_at = self._deleted_at.get((kind, row_id))
        lag = dt.timedelta(seconds=self.switches["list_lag"])
        return self._visible(kind, row) or (deleted_at is not None and self.now() - deleted_at < lag)

    def _visible(self, kind: str, row: Row) -> bool:
        if row["deleted"] == "soft" and kind == "replicas":
            return bool(self.switches["soft_deleted"] == "listed")
        if row["deleted"] == "soft":
            return self.switches["soft_items"] in {kind, "all"}
        return row["deleted"] is None

    def _find_own(self, request: ApiRequest, *, hard: bool = False) -> Row | None:
        """Return the row if it belongs to the account and is not deleted, else None."""
        row = self.world.rows[request.kind].get(request.id)
        if row is None:
            return None
        again = hard and row["deleted"] == "soft" and self.switches["soft_then_hard"] == "works"
        label = RESOURCES[request.kind].label
        own = label not in {"replica", "persona"} or (row.get(f"{label}_type") or "").startswith("user")
        return row if own and (row["deleted"] is None or again) else None

    def _vocabulary(self, request: ApiRequest) -> str:
        return "face" if request.alias else str(self.switches["vocabulary"])

    def _invalid_id(self, request: ApiRequest) -> ApiResponse:
        id_field = RESOURCES[request.kind].id
        if self._vocabulary(request) == "face":
            id_field = FACE_WORDS.get(id_field, id_field)
        match self.switches["unknown_id"]:
            case "404":
                return ApiResponse(404, {"message": f"{id_field.removesuffix('_id').capitalize()} not found"})
            case "400-message":
                return ApiResponse(400, {"message": f"Invalid {id_field}"})
        return ApiResponse(400, {"error": f"Invalid {id_field}"})

    def _rename_fields(self, request: ApiRequest, row: Row) -> Row:
        vocabulary = self._vocabulary(request)
        if vocabulary == "replica":
            return row
        faces = {FACE_WORDS.get(name, name): value for name, value in row.items()}
        return faces if vocabulary == "face" else {**row, **faces}

    def _render(self, request: ApiRequest, row: Row, *, alone: bool = False) -> Row:
        """Return a row as the API shows it; `alone` is false in a list."""
        kind, shown = request.kind, dict(row)
        deleted = shown.pop("deleted")
        if kind in {"conversations", "videos"} and self.switches["replica_id"] == "null":
            replica = self.world.rows["replicas"].get(row.get("replica_id") or "")
            if replica is not None and replica["deleted"]:
                shown["replica_id"] = None
        verbose = request.query.get("verbose") == "true"
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
                shown[field] = format_date(shown[field], dialect)
        if self.switches["nulls"] == "empty":
            optional = {
                name: shown.get(name) for name in (*RESOURCES[kind].fields, "created_at", "updated_at")
            }
            shown |= {name: "" for name, value in optional.items() if value is None}
        return self._rename_fields(request, shown)


def _parse_json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


OPERATIONS: tuple[tuple[str, str, Callable[[Api, ApiRequest], ApiResponse], tuple[str, ...]], ...] = (
    ("GET", "", Api.list_rows, tuple(RESOURCES)),
    ("GET", "/{id}", Api.get, tuple(RESOURCES)),
    ("DELETE", "/{id}", Api.delete, tuple(RESOURCES)),
    ("POST", "", Api.create, ("replicas",)),
    ("PATCH", "/{id}/name", Api.rename, ("replicas",)),
    ("POST", "/{id}/end", Api.end, ("conversations",)),
)
