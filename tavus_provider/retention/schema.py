"""The JSON Schema of a policy file, in draft 7, which every editor supports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tavus_provider.retention.policy import Policy


def policy_schema() -> dict[str, Any]:
    """
    Return the JSON Schema of a policy file.

    It accepts everything that :meth:`.Policy.parse` accepts. It rejects what that rejects as far as JSON
    Schema can express it: not, for example, that rule names are unique or that a regular expression is valid.
    """
    schema = Policy.model_json_schema()
    definitions = schema.pop("$defs")
    inlined: dict[str, Any] = _inline(schema, definitions)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Retention policy for Tavus replicas",
        **inlined,
        "description": "Which replicas expire, which are kept, and how many one run may delete.",
    }


def _inline(node: Any, definitions: Mapping[str, Any], *, is_properties: bool = False) -> Any:
    """Return a schema without references: in draft 7 a reference hides the description beside it."""
    if isinstance(node, list):
        return [_inline(inner, definitions) for inner in node]
    if not isinstance(node, dict):
        return node
    if not is_properties:  # the keys of "properties" are names of fields, not keywords
        if "$ref" in node:
            node = {**definitions[node["$ref"].rsplit("/", 1)[-1]], **node}
        if node.get("default") in (None, "", "None", {}) or isinstance(node.get("default"), dict):
            node = {key: inner for key, inner in node.items() if key != "default"}
        node = {key: inner for key, inner in node.items() if key not in ("$ref", "title")}
        if isinstance(description := node.get("description"), str):
            node["description"] = " ".join(description.replace("``", "").split())
    return {
        key: _inline(inner, definitions, is_properties=key == "properties") for key, inner in node.items()
    }
