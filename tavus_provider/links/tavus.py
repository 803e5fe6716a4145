"""Buttons on a task: to the Tavus page with the plan of its run, and to the replicas in Tavus's portal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from airflow.configuration import conf
from airflow.providers.common.compat.sdk import BaseOperatorLink

from tavus_provider.exceptions import TavusValidationError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PORTAL: Final = "https://platform.tavus.io/dev/replicas"
"""
The replica list in Tavus's older portal; in the newer one it is https://maker.tavus.io/dev/faces. Tavus
documents no address for one replica, and a deleted replica has no page, so the link opens the list.
"""


class TavusPageLink(BaseOperatorLink):
    """Link to the Tavus page, opened at the plan of the task's run."""

    name = "Tavus page"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the page, under the base URL of the deployment (``[api] base_url``)."""
        base = conf.get("api", "base_url", fallback=None) or ""
        query = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": ti_key.map_index,
        }
        return f"{base.rstrip('/')}/plugin/tavus?{urlencode(query)}"


class ReplicaLibraryLink(BaseOperatorLink):
    """Link to the replica list in Tavus's portal."""

    name = "Replicas at Tavus"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Return the address in ``[tavus] portal``.

        :raises TavusValidationError: if it is not an ``http`` or ``https`` URL
        """
        portal = conf.get("tavus", "portal", fallback="").strip() or PORTAL
        if not re.fullmatch(r"https?://[^\s\"'<>\\]+", portal):
            raise TavusValidationError(
                f"[tavus] portal: {ascii(portal)[:80]} is not the URL of a web page; expected a URL such as "
                f"{PORTAL}"
            )
        return portal
