"""What this provider adds to Airflow's own web server. Loaded in every process of Airflow, so it is light."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from tavus_provider.plugins.connection_test import DropZeroPortMiddleware
from tavus_provider.plugins.server import PageServer


class TavusPlugin(AirflowPlugin):
    """The Tavus page in Airflow's navigation, and a Test button that works for connections without a port."""

    name = "tavus"
    fastapi_apps: list[Any] = [  # noqa: RUF012  # read by Airflow, as everywhere
        {"name": "Tavus page", "app": PageServer(), "url_prefix": "/tavus"}
    ]
    fastapi_root_middlewares: list[Any] = [  # noqa: RUF012
        {"name": "Test button of Tavus connections", "middleware": DropZeroPortMiddleware}
    ]
    # Addresses without a leading slash are read against the base URL of the deployment, sub-path and all.
    external_views: list[Any] = [  # noqa: RUF012
        {
            "name": "Tavus",
            "href": "tavus/",
            "icon": "tavus/icon.svg",
            "icon_dark_mode": "tavus/icon-dark.svg",
            "destination": "nav",
            "url_route": "tavus",
            "nav_top_level": True,
        }
    ]
