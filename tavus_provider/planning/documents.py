"""Check that a JSON document has the keys and types that its TypedDict declares."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

_Check = Callable[[object, str], str | None]
_NAMES: dict[object, str] = {str: "a string", int: "an integer", bool: "true or false", type(None): "null"}


def find_mismatch(value: object, document: type, *, name: str) -> str | None:
    """
    Return the first difference between a value and the TypedDict of a document, if there is one.

    Keys that the TypedDict does not declare are ignored.

    :param document: a TypedDict of ``str``, ``int``, ``bool``, ``None``, ``Any``, ``Literal``, unions, lists,
        dictionaries with string keys, and other such TypedDicts
    :param name: what to call the document, such as ``plan``
    :returns: one sentence such as ``plan.delete[3].replica_name must be a string or null, not a list``
    """
    return _check_for(document)(value, name)


@functools.cache
def _check_for(hint: Any) -> _Check:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value, path: None
    if is_typeddict(hint):
        return _object_check(hint)
    if origin is list:
        return _list_check(_check_for(arguments[0]))
    if origin is dict:
        return _mapping_check(_check_for(arguments[1]))
    if origin in (Union, types.UnionType):
        return _choice_check(tuple(_check_for(one) for one in arguments), _describe(hint))
    if origin is Literal:
        return _literal_check(arguments, _describe(hint))
    return _type_check(hint, _describe(hint))


def _object_check(document: type) -> _Check:
    # With postponed annotations, __required_keys__ of Python 3.11 does not know NotRequired.
    keys = []
    for key, hint in get_type_hints(document, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        keys.append((key, optional, _check_for(get_args(hint)[0] if optional else hint)))

    def check(value: object, path: str) -> str | None:
        if type(value) is not dict:
            return f"{path} must be an object, not {_type_name(value)}"
        for key, optional, inner in keys:
            if key in value:
                if mismatch := inner(value[key], f"{path}.{key}"):
                    return mismatch
            elif not optional:
                return f"{path}.{key} is missing"
        return None

    return check


def _list_check(inner: _Check) -> _Check:
    def check(value: object, path: str) -> str | None:
        if type(value) is not list:
            return f"{path} must be a list, not {_type_name(value)}"
        for index, item in enumerate(value):
            if mismatch := inner(item, f"{path}[{index}]"):
                return mismatch
        return None

    return check


def _mapping_check(inner: _Check) -> _Check:
    def check(value: object, path: str) -> str | None:
        if type(value) is not dict:
            return f"{path} must be an object, not {_type_name(value)}"
        for key, item in value.items():
            if type(key) is not str:
                return f"{path} must have string keys, not {_type_name(key)}"
            if mismatch := inner(item, f"{path}.{ascii(key)[1:-1][:40]}"):
                return mismatch
        return None

    return check


def _choice_check(choices: tuple[_Check, ...], expected: str) -> _Check:
    def check(value: object, path: str) -> str | None:
        if any(choice(value, path) is None for choice in choices):
            return None
        return f"{path} must be {expected}, not {_type_name(value)}"

    return check


def _literal_check(allowed: tuple[object, ...], expected: str) -> _Check:
    def check(value: object, path: str) -> str | None:
        if any(type(value) is type(one) and value == one for one in allowed):
            return None
        return f"{path} must be {expected}, not {ascii(value)[:40]}"

    return check


def _type_check(kind: type, expected: str) -> _Check:
    def check(value: object, path: str) -> str | None:
        # Not isinstance: True is no count, and JSON has no subclasses.
        return None if type(value) is kind else f"{path} must be {expected}, not {_type_name(value)}"

    return check


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(one) for one in arguments)
    if origin is Literal:
        return " or ".join(ascii(one) for one in arguments)
    return _NAMES[hint]


def _type_name(value: object) -> str:
    if type(value) in (list, dict, float):
        return {list: "a list", dict: "an object", float: "a fraction"}[type(value)]
    return _NAMES.get(type(value), f"a value of type {type(value).__name__}")
