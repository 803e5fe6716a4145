"""
Where a retention policy may contain Jinja templates, and what they become.

A template may change an age or which replicas are considered. Everything that protects replicas, such as
limits, legal holds and protected ids, must be written in the DAG file, where a trigger form cannot reach it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.sanitize import quote

Path = tuple[str, ...]

_TEMPLATE_MARKS: Final = ("{{", "{%", "{#")
_CONDITIONS: Final = ("older_than", "unused_for")
_SECTIONS: Final = ("scope", "narrow")
_LISTS: Final = ("include", "exclude", "model_names")


def is_template(value: object) -> bool:
    """Return whether a value is text that Airflow renders."""
    return isinstance(value, str) and any(mark in value for mark in _TEMPLATE_MARKS)


def find_templates(value: object, path: Path = ()) -> Iterator[Path]:
    """
    Yield the path of every template in a value.

    :param path: the path of ``value`` itself
    """
    if is_template(value):
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from find_templates(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from find_templates(inner, (*path, str(number)))


def check_templates(policy: object, narrow: object) -> bool:
    """
    Check that templates are only where a policy may contain them.

    :param policy: the policy as the DAG file has it: a mapping, or the location of a file
    :param narrow: the argument ``narrow`` of the operator
    :returns: whether there are any templates
    :raises TavusValidationError: naming the first template in any other place
    """
    templates = [*find_templates(policy), *find_templates(narrow, ("narrow",))]
    for path in templates:
        if not _is_allowed(path):
            raise TavusValidationError(
                f"policy: {'.'.join(path) or 'the location'}: must not be a template; write it in the DAG "
                "file. Templates are allowed in older_than and unused_for of a rule, in scope and in narrow"
            )
    return bool(templates)


def with_placeholders(value: Any, key: str = "") -> Any:
    """
    Return a policy with a valid value in place of each template, so that the rest can be validated.

    :param key: the key of ``value`` in its mapping
    """
    if is_template(value):
        return [] if key in _LISTS else {} if key in _SECTIONS else "1d"
    if isinstance(value, Mapping):
        return {name: with_placeholders(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [with_placeholders(inner) for inner in value]
    return value


def take_rendered(written: Any, rendered: Any) -> Any:
    """
    Return a value as written, with only its templates replaced by what they were rendered to.

    Native rendering also changes text that is not a template: it turns ``'123'`` into a number.

    :param written: the value as the DAG file has it
    :param rendered: the same value after Airflow has rendered it
    """
    if is_template(written):
        return rendered
    if isinstance(written, Mapping):
        return {key: take_rendered(value, rendered[key]) for key, value in written.items()}
    if isinstance(written, list | tuple):
        return [take_rendered(*pair) for pair in zip(written, rendered, strict=True)]
    return written


def check_native(written: Any, rendered: Any, path: Path = ()) -> None:
    """
    Check that templates for lists, mappings and null were not rendered to text.

    :param written: the value as the DAG file has it
    :param rendered: the same value after Airflow has rendered it
    :param path: the path of the value
    :raises TavusValidationError: naming the first template, and the argument of the DAG that is missing
    """
    if is_template(written):
        expects_text = path[-1:] and path[-1] not in (*_SECTIONS, *_LISTS)
        if isinstance(rendered, str) and (rendered == "None" or not expects_text):
            raise TavusValidationError(
                f"policy: {'.'.join(path)}: the template was rendered to the text {quote(rendered)}; set "
                "render_template_as_native_obj=True on the DAG. Nothing was read or deleted"
            )
    elif isinstance(written, Mapping):
        for key, value in written.items():
            check_native(value, rendered[key], (*path, str(key)))
    elif isinstance(written, list | tuple):
        for number, pair in enumerate(zip(written, rendered, strict=True)):
            check_native(*pair, (*path, str(number)))


def _is_allowed(path: Path) -> bool:
    return path[:1] in [(section,) for section in _SECTIONS] or (
        path[:1] == ("expire",) and path[-1] in _CONDITIONS
    )
