"""What this provider adds to Airflow's API server. Every process of Airflow imports it."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from tavus_provider.plugins.connection_test import DropZeroPortMiddleware, airflow_version, is_affected
from tavus_provider.plugins.server import PageServer


class TavusPlugin(AirflowPlugin):
    """Add the Tavus page to Airflow's navigation, and repair the Test button where Airflow needs it."""

    name = "tavus"
    fastapi_apps: list[Any] = [  # noqa: RUF012  # Airflow reads class attributes
        {"name": "Tavus page", "app": PageServer(), "url_prefix": "/tavus"}
    ]
    fastapi_root_middlewares: list[Any] = (
        [{"name": "Test button of Tavus connections", "middleware": DropZeroPortMiddleware}]
        if is_affected(airflow_version())
        else []
    )
    # URLs without a leading slash are relative to the base URL of the deployment, so a sub-path works too.
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
