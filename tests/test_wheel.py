"""The wheel, installed in an environment that does not contain this checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tavus_provider.sandbox import Sandbox

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Return a function that runs Python in an environment with the wheel and with our dependencies."""
    home = tmp_path_factory.mktemp("env")
    python = home / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    # With PYTHONPATH, pip would find this checkout and take it for an installation.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, env=env)
    # Use the dependencies of this environment. Its .pth files, and so the editable install, are ignored.
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*arguments: str, **environment: str) -> str:
        env = (
            {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
            | {"AIRFLOW_HOME": str(home / "airflow"), "PATH": "/usr/bin:/bin"}
            | environment
        )
        done = subprocess.run(
            [python, *arguments],
            check=False,
            cwd=home,
            env=env,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


def test_wheel_contains_only_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "tavus_provider/py.typed" in names
    assert "tavus_provider/sandbox/server.py" in names
    www = ROOT / "tavus_provider" / "plugins" / "www"
    files = {
        f"tavus_provider/plugins/www/{file.relative_to(www)}" for file in www.rglob("*") if file.is_file()
    }
    assert {"index.html", "app.js", "labels.json"} <= {name.rsplit("/")[-1] for name in files}
    assert files <= set(names)
    assert {re.split("[-/]", name)[0] for name in names} == {
        "tavus_provider",
        "airflow_provider_tavus",  # the folder of the metadata
        "airflow_provider_tavus.py",
    }


def test_wheel_contains_every_package_and_the_dags(wheel):
    """setup.cfg lists the packages by name, because ``find:`` would leave out the DAGs."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    package = {file.relative_to(ROOT).as_posix() for file in (ROOT / "tavus_provider").rglob("*.py")}
    dags = {f"tavus_provider/dags/{file.name}" for file in (ROOT / "dags").glob("*.py")}
    assert packed == package | dags | {"airflow_provider_tavus.py"}


def test_installed_dags_load_from_their_folder_as_a_bundle(installed):
    folder = installed("-P", "-c", "import tavus_provider.dags as dags; print(dags.__path__[0])").strip()
    bundles = json.dumps(
        [
            {
                "name": "tavus",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": folder},
            }
        ]
    )
    environment = {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": bundles,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def rows(*command: str) -> list[dict[str, str]]:
        output = installed("-m", "airflow", "dags", *command, "--output", "json", **environment)
        return json.loads(output.splitlines()[-1])

    installed("-m", "airflow", "db", "migrate", **environment)
    installed("-m", "airflow", "dags", "reserialize", **environment)
    assert rows("list-import-errors") == []
    assert {row["dag_id"] for row in rows("list")} == {
        file.stem for file in (ROOT / "dags").glob("tavus_*.py")
    }


def test_airflow_with_its_example_dags_logs_no_error_about_the_provider(installed):
    """Airflow 3.3 imports a module named like the distribution, to find example DAGs."""
    output = installed(
        "-c",
        "from airflow.dag_processing.bundles.manager import DagBundlesManager; DagBundlesManager()",
        AIRFLOW__CORE__LOAD_EXAMPLES="True",
    )
    assert "example_dags" in output
    assert "Traceback" not in output


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="asks git which files to pack")
def test_two_builds_are_identical(tmp_path, monkeypatch):
    """Also of the source distribution, for which setuptools does not use SOURCE_DATE_EPOCH."""
    for folder in ("one", "two"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
        command = [sys.executable, ROOT / "scripts" / "build_dist.py", "--outdir", tmp_path / folder]
        subprocess.run(command, check=True, capture_output=True)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert len(one) == 2
    assert one == two


def test_airflow_lists_the_provider_and_its_hook(installed):
    providers = json.loads(installed("-m", "airflow", "providers", "list", "--output", "json"))
    assert "airflow-provider-tavus" in [row["package_name"] for row in providers]
    hooks = json.loads(installed("-m", "airflow", "providers", "hooks", "--output", "json"))
    (ours,) = [row for row in hooks if row["connection_type"] == "tavus"]
    assert ours["class"] == "tavus_provider.hooks.tavus.TavusHook"


def test_three_commands_of_the_quickstart_show_the_first_plan(installed, tmp_path):
    """The first of them has installed the wheel."""
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"three commands show the same:\n\n```bash\n(.*?)```", page, re.DOTALL)
    install, connect, plan = block.splitlines()
    assert install == "pip install ."
    connection = json.loads(re.fullmatch(r"export AIRFLOW_CONN_TAVUS_DEFAULT='(.*)'", connect)[1])
    with Sandbox() as tavus:
        output = installed(
            *plan.split()[1:],
            AIRFLOW_CONN_TAVUS_DEFAULT=json.dumps(connection | {"host": tavus.url, "password": tavus.key}),
            AIRFLOW__TAVUS__ALLOWED_ORIGINS=tavus.url,
        )
        assert tavus.state()["deletes"] == []
    assert "6 of 26 replicas to delete" in output


def test_installed_package_deletes_a_replica_of_its_sandbox(installed):
    output = installed(
        "-c",
        """
import json, os
from tavus_provider.sandbox import Sandbox
with Sandbox() as tavus:
    os.environ["AIRFLOW_CONN_TAVUS_DEFAULT"] = json.dumps(
        {"conn_type": "tavus", "host": tavus.url, "password": "sandbox"})
    os.environ["AIRFLOW__TAVUS__ALLOWED_ORIGINS"] = tavus.url
    import tavus_provider
    from tavus_provider.operators.tavus import DeleteReplicaOperator
    done = DeleteReplicaOperator(task_id="delete", replica_id="r1a0c5e8f3b2").execute({})
    print(json.dumps([tavus_provider.__file__, done["outcome"], tavus.state()["deletes"]]))
""",
    )
    file, outcome, deletes = json.loads(output.splitlines()[-1])
    assert not file.startswith(str(ROOT))
    assert outcome == "deleted"
    assert deletes == [{"replica_id": "r1a0c5e8f3b2", "hard": False}]
