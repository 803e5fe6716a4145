"""Check what a run was triggered with, by the form, the command line or the REST API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.sanitize import quote

if TYPE_CHECKING:
    from airflow.sdk import Context

_MAX_NAMED: Final = 5


def check_run_conf(context: Context) -> None:
    """
    Check that every key of the run's conf is a param of the DAG, and has an effect.

    Airflow adds unknown keys to the params without a message, so that ``{"dryrun": true}`` would delete.

    :raises TavusValidationError: naming the unknown keys and the known ones
    """
    conf = getattr(context.get("dag_run"), "conf", None) or {}
    if not isinstance(conf, Mapping):
        raise TavusValidationError(f"conf: must be a mapping, not {quote(conf)}; nothing was deleted")
    dag = context.get("dag")
    known = list(getattr(dag, "params", None) or ())
    unknown = [quote(key) for key in conf if key not in known]
    if unknown:
        more = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
        raise TavusValidationError(
            f"conf: unknown key {', '.join(unknown[:_MAX_NAMED])}{more}; known: "
            f"{', '.join(known) or 'none'}. Nothing was deleted; trigger the DAG again with the right key"
        )
    params = context.get("params") or {}
    ignored = [key for key in conf if key not in params or params[key] != conf[key]]
    if ignored:
        raise TavusValidationError(
            f"conf: {', '.join(ignored)} has no effect, because [core] dag_run_conf_overrides_params is off; "
            "trigger the DAG without conf, or turn the setting on. Nothing was deleted"
        )
