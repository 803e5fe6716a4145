from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_loading_the_plugin_brings_in_no_web_framework_and_nothing_else_of_ours():
    code = (
        "import sys, airflow.plugins_manager; from airflow.providers.common.compat.sdk import AirflowPlugin\n"
        "before = set(sys.modules); import tavus_provider.plugins.tavus; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    new = {name for name in done.stdout.splitlines()[-1].split() if not name.startswith("tavus_provider")}
    ours = {name for name in done.stdout.split() if name.startswith("tavus_provider.")}
    assert new == set()
    assert ours == {f"tavus_provider.plugins{name}" for name in ("", ".tavus", ".button")}
