from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_stands_in_the_navigation_under_an_address_that_keeps_to_the_base_url():
    from tavus_provider.plugins.tavus import TavusPlugin

    (view,), (app,) = TavusPlugin.external_views, TavusPlugin.fastapi_apps
    assert (view["name"], view["destination"], view["url_route"]) == ("Tavus", "nav", "tavus")
    for name in ("href", "icon", "icon_dark_mode"):
        assert f"/{view[name]}".startswith(f"{app['url_prefix']}/")


def test_airflow_finds_the_plugin_under_its_entry_point():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["airflow.plugins"].split() == [
        "tavus",
        "=",
        "tavus_provider.plugins.tavus:TavusPlugin",
    ]


def test_loading_the_plugin_brings_in_no_web_framework_and_nothing_else_of_ours():
    code = (
        "import sys, airflow.plugins_manager; from airflow.providers.common.compat.sdk import AirflowPlugin\n"
        "before = set(sys.modules); import tavus_provider.plugins.tavus; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    new = {name for name in done.stdout.splitlines()[-1].split() if not name.startswith("tavus_provider")}
    ours = {name for name in done.stdout.split() if name.startswith("tavus_provider.")}
    assert new == set()
    assert ours == {f"tavus_provider.plugins{name}" for name in ("", ".tavus", ".connection_test", ".server")}
