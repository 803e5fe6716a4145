"""The resources of the API: one row for each, from which the paths, the seeds and the switches follow."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """
    One resource of the API: its id field, the fields that a seed may set, and its first page number.

    `alias` is the path of the same resource in the newer vocabulary, such as `faces`.
    """

    id: str
    fields: tuple[str, ...]
    defaults: Mapping[str, str]
    first_page: int = 1
    alias: str | None = None

    @property
    def label(self) -> str:
        return self.id.removesuffix("_id")


RESOURCES: Mapping[str, Resource] = {
    "replicas": Resource(
        "replica_id",
        ("replica_name", "status", "replica_type", "model_name", "training_progress", "error_message"),
        {"status": "completed", "replica_type": "user", "model_name": "phoenix-4"},
        alias="faces",
    ),
    "personas": Resource(
        "persona_id",
        ("persona_name", "persona_type", "default_replica_id"),
        {"persona_type": "user"},
        alias="pals",
    ),
    "conversations": Resource(
        "conversation_id",
        ("conversation_name", "status", "replica_id", "persona_id"),
        {"status": "ended"},
    ),
    "videos": Resource("video_id", ("video_name", "status", "replica_id"), {"status": "ready"}, first_page=0),
}
