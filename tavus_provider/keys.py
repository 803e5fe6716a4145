"""
The kinds of objects that this package deletes, and the keys that name one object of any kind.

A key is what plans, ledgers and reports call ``replica_id`` or ``key``. A replica keeps its bare id, so that
documents about replicas only are as before; the key of every other object begins with its kind, as in
``video/<id>``. What Tavus's API has for each kind is in :mod:`tavus_provider.client.kinds`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.sanitize import quote

NON_IDS: Final = frozenset({"none", "null", "undefined", "nan", "true", "false"})
"""What a template or a script writes for a missing value, in lower case. Never accepted as an id."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,63}")


class Kind(StrEnum):
    """
    A kind of objects that can be deleted. The value is Tavus's word for one of them.

    The members are in the order in which an erasure deletes them: first the replicas, which are the most
    sensitive, because nothing new can be made with them afterwards.
    """

    REPLICA = "replica"
    VIDEO = "video"
    CONVERSATION = "conversation"

    @property
    def plural(self) -> str:
        """Tavus's word for several of these objects, which is also the name of their list."""
        return f"{self.value}s"

    @property
    def ids_name(self) -> str:
        """The name of the argument, and of the field of a form, that has ids of this kind."""
        return f"{self.value}_ids"

    @property
    def example(self) -> str:
        """An id as Tavus assigns it."""
        return _IDS[self].example

    @property
    def shape(self) -> re.Pattern[str] | None:
        """What ids of this kind look like; ``None`` if they have no shape of their own."""
        return _IDS[self].shape


class _Ids(NamedTuple):
    example: str
    shape: re.Pattern[str] | None


_IDS: Final[Mapping[Kind, _Ids]] = {
    Kind.REPLICA: _Ids("rf4e9d9790f0", re.compile("r[0-9a-f]{9,12}")),
    Kind.VIDEO: _Ids("1e30440cf9", None),  # ten hexadecimal digits
    Kind.CONVERSATION: _Ids("c0eaa60a267274af", re.compile("c[0-9a-f]{14,16}")),
}

_WITH_PREFIX: Final = tuple(kind for kind in Kind if kind is not Kind.REPLICA)
"""The kinds whose name is a part of their keys."""


def check_id(kind: Kind, value: object) -> str:
    """
    Return ``value`` if it can be the id of an object.

    The id becomes a part of the path of a request that cannot be undone. Only an allow-list of
    characters is safe there: URL quoting would leave ``..`` as it is.

    Tavus assigns ids as in ``rf4e9d9790f0``, ``1e30440cf9`` and ``c0eaa60a267274af`` (seen in its
    documentation and in responses). Their format is not documented, so it is not required.

    :raises TavusValidationError: if ``value`` is not a ``str``, does not match
        ``[A-Za-z0-9][A-Za-z0-9_-]{1,63}`` in full, or is one of :data:`NON_IDS` in any case
    """
    if type(value) is str and _ID.fullmatch(value) and value.lower() not in NON_IDS:
        return value
    raise TavusValidationError(
        f"{kind}_id: {quote(value)} is not a {kind} id; expected a string of 2 to 64 letters, digits, "
        f"'_' or '-', such as '{kind.example}'; nothing was sent"
    )


def fold(item_id: str) -> str:
    """
    Return an id as it is compared where it keeps something: legal holds, protected ids, references.

    Whether Tavus tells letter cases apart is not documented. To keep a replica too many does no harm.
    """
    folded = item_id.lower()
    return item_id if folded == item_id else folded  # the same object: a large account has many


def is_named(item_id: str, ids: frozenset[str]) -> bool:
    """Return whether ``ids`` has an id, in any letter case."""
    return item_id in ids or fold(item_id) in _folded(ids)


@lru_cache(maxsize=8)
def _folded(ids: frozenset[str]) -> frozenset[str]:
    return frozenset(map(fold, ids))


def item_key(kind: Kind, item_id: str) -> str:
    """
    Return the key of an object.

    :raises TavusValidationError: if :func:`check_id` rejects the id
    """
    item_id = check_id(kind, item_id)
    return item_id if kind is Kind.REPLICA else f"{kind}/{item_id}"


def parse_key(key: object) -> tuple[Kind, str]:
    """
    Return the kind and the id of a key. Each object has exactly one key.

    :param key: the bare id of a replica, or a kind and an id, such as ``video/<id>``
    :raises TavusValidationError: if it is not a key, or :func:`check_id` rejects its id
    """
    if type(key) is not str or "/" not in key:
        return Kind.REPLICA, check_id(Kind.REPLICA, key)
    word, _, item_id = key.partition("/")
    if word not in _WITH_PREFIX:
        expected = " or ".join(["the id of a replica", *(f"'{kind}/<id>'" for kind in _WITH_PREFIX)])
        raise TavusValidationError(
            f"key: {quote(key)} is not the key of an object; expected {expected}; nothing was sent"
        )
    kind = Kind(word)
    return kind, check_id(kind, item_id)
