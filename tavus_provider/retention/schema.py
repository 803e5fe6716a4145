"""
What an editor is told of a policy file: the JSON Schema made of the words of a policy.

In draft 7, which every editor knows. Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tavus_provider.retention.policy import Policy


def policy_schema() -> dict[str, Any]:
    """
    Return the JSON Schema of a policy file.

    It accepts whatever :meth:`Policy.parse` accepts, and refuses what that refuses as far as JSON
    Schema can say it: not that a regular expression is one, nor that rules have names of their own.
    """
    schema = Policy.model_json_schema()
    parts = schema.pop("$defs")
    told: dict[str, Any] = _told(schema, parts)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Retention policy for Tavus replicas",
        **told,
        "description": "What may go, what stays, and how much one run may delete.",
    }


def _told(node: Any, parts: Mapping[str, Any], *, names: bool = False) -> Any:
    """The same with every part in its place: in draft 7 a reference hides the description beside it."""
    if isinstance(node, list):
        return [_told(inner, parts) for inner in node]
    if not isinstance(node, dict):
        return node
    if not names:  # of a mapping of properties the keys are words of ours
        if "$ref" in node:
            node = {**parts[node["$ref"].rsplit("/", 1)[-1]], **node}
        if node.get("default") in (None, "", "None", {}) or isinstance(node.get("default"), dict):
            node = {key: inner for key, inner in node.items() if key != "default"}
        node = {key: inner for key, inner in node.items() if key not in ("$ref", "title")}
        if isinstance(said := node.get("description"), str):
            node["description"] = " ".join(said.replace("``", "").split())
    return {key: _told(inner, parts, names=key == "properties") for key, inner in node.items()}
