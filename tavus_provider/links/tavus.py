"""Buttons on a task: to the Tavus page for its run, and to the library of replicas at the vendor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow.configuration import conf
from airflow.providers.common.compat.sdk import BaseOperatorLink

from tavus_provider.exceptions import TavusValidationError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PORTAL = "https://platform.tavus.io/dev/replicas"
"""The library in Tavus's older portal; in the newer one it is https://maker.tavus.io/dev/faces. Neither has a
documented address for one replica, and a deleted one has no page, so the list is the place to look."""


class TavusPageLink(BaseOperatorLink):
    """To the Tavus page, showing the plan of the task's run."""

    name = "Tavus page"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address under the base URL of the deployment (``[api] base_url``)."""
        base = conf.get("api", "base_url", fallback=None) or ""
        query = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": ti_key.map_index,
        }
        return f"{base.rstrip('/')}/plugin/tavus?{urlencode(query)}"


class ReplicaLibraryLink(BaseOperatorLink):
    """To the library of replicas in Tavus's portal."""

    name = "Replicas at Tavus"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Return the address in ``[tavus] portal``.

        :raises TavusValidationError: if that is not the address of a web page
        """
        portal = conf.get("tavus", "portal", fallback="").strip() or PORTAL
        if not re.fullmatch(r"https?://[^\s\"'<>\\]+", portal):
            raise TavusValidationError(
                f"[tavus] portal is {ascii(portal)[:80]}: expected an address such as {PORTAL}"
            )
        return portal
