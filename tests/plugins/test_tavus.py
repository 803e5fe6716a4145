from __future__ import annotations

import configparser
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_navigation_entry_is_relative_to_the_base_url():
    from tavus_provider.plugins.tavus import TavusPlugin

    (view,), (app,) = TavusPlugin.external_views, TavusPlugin.fastapi_apps
    assert (view["name"], view["destination"], view["url_route"]) == ("Tavus", "nav", "tavus")
    for name in ("href", "icon", "icon_dark_mode"):
        assert f"/{view[name]}".startswith(f"{app['url_prefix']}/")


def test_entry_point_names_the_plugin():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["airflow.plugins"].split() == [
        "tavus",
        "=",
        "tavus_provider.plugins.tavus:TavusPlugin",
    ]


@pytest.mark.parametrize(("version", "installed"), [("3.2.3", False), ("3.3.2", True), ("3.4.0", False)])
def test_middleware_is_installed_only_on_affected_airflow(monkeypatch, version, installed):
    from tavus_provider.plugins import tavus

    with monkeypatch.context() as patched:
        patched.setattr(metadata, "version", lambda name: version)
        plugin = importlib.reload(tavus).TavusPlugin
    importlib.reload(tavus)
    names = [row["middleware"].__name__ for row in plugin.fastapi_root_middlewares]
    assert names == (["DropZeroPortMiddleware"] if installed else [])


def test_loading_the_plugin_imports_no_other_modules():
    code = (
        "import sys, airflow.plugins_manager; from airflow.providers.common.compat.sdk import AirflowPlugin\n"
        "before = set(sys.modules); import tavus_provider.plugins.tavus; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    ours = {name for name in imported if name.startswith("tavus_provider.")}
    assert imported - ours - {"tavus_provider"} == set()
    assert ours == {f"tavus_provider.plugins{name}" for name in ("", ".tavus", ".connection_test", ".server")}
