"""
What the Tavus API has for each kind of objects that can be deleted.

Sources: the API reference of Tavus, "List" and "Delete" of replicas, videos and conversations
(https://docs.tavus.io/api-reference). All kinds take ``?hard=true``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tavus_provider.exceptions import ItemNotFoundError, ReplicaNotFoundError
from tavus_provider.keys import Kind
from tavus_provider.models import Conversation, Item, Replica, Video


@dataclass(frozen=True, slots=True)
class KindInfo:
    """
    One kind of objects.

    :param path: path of the list; an object is at ``<path>/<id>``
    :param model: parses its rows, and has every name of its id in responses
    :param first_page: number of the first page of the list
    :param query: what is asked for with a ``GET`` of one object
    :param list_query: what is asked for with a ``GET`` of the list
    :param not_found: raised if Tavus does not know an id
    """

    path: str
    model: type[Item]
    first_page: int = 1
    query: Mapping[str, str] = field(default_factory=dict)
    list_query: Mapping[str, str] = field(default_factory=dict)
    not_found: type[ItemNotFoundError] = ItemNotFoundError

    @property
    def unknown_id_texts(self) -> frozenset[str]:
        """Texts of a 400 response that mean that the id does not exist. Other 400 responses prove nothing."""
        return frozenset(f"Invalid {name}" for name in self.model.id_fields)


KINDS: Final[Mapping[Kind, KindInfo]] = {
    # Tavus also serves replicas under /v2/faces. This is the documented path.
    Kind.REPLICA: KindInfo(
        path="/v2/replicas",
        model=Replica,
        query={"verbose": "true"},  # without it, the type is not shown
        list_query={"verbose": "true", "replica_type": "user"},
        not_found=ReplicaNotFoundError,
    ),
    Kind.VIDEO: KindInfo(path="/v2/videos", model=Video, first_page=0),
    # Not verbose: a verbose conversation contains its transcript.
    Kind.CONVERSATION: KindInfo(path="/v2/conversations", model=Conversation),
}
