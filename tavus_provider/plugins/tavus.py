"""What this provider adds to Airflow's own web server. Loaded in every process of Airflow, so it is light."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from tavus_provider.plugins.button import NoPortIsNoPort


class TavusPlugin(AirflowPlugin):
    """Lets the Test button work for connections without a port."""

    name = "tavus"
    fastapi_root_middlewares: list[Any] = [  # noqa: RUF012  # read by Airflow, as everywhere
        {"name": "Test button of Tavus connections", "middleware": NoPortIsNoPort}
    ]
