"""
The provider description. An error in it stops the discovery of all providers of an Airflow installation.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import airflow
import jsonschema
import pytest

import tavus_provider
from tavus_provider.client.config import DEFAULT_ORIGIN, ClientOptions
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")

INFO = get_provider_info()
CONNECTION = INFO["connection-types"][0]
DOTTED_NAMES = [
    *(
        module
        for group in ("hooks", "operators")
        for entry in INFO[group]
        for module in entry["python-modules"]
    ),
    *INFO["extra-links"],
    *INFO["notifications"],
    *INFO["cli"],
    *(entry["hook-class-name"] for entry in INFO["connection-types"]),
]

FORM = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
from airflow.providers_manager import ProvidersManager
form = [row.model_dump() for row in HookMetaService.hook_meta_data() if row.connection_type == "tavus"]
print(json.dumps({"form": form, "version": ProvidersManager().providers["airflow-provider-tavus"].version}))
"""


@pytest.fixture(scope="module")
def discovered(tmp_path_factory):
    """What Airflow discovers in an environment in which the package is installed."""
    site = tmp_path_factory.mktemp("site")
    info = site / "airflow_provider_tavus.dist-info"
    info.mkdir()
    name = SETUP["metadata"]["name"]
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {tavus_provider.__version__}\n"
    )
    points = SETUP["options.entry_points"]["apache_airflow_provider"].strip()
    (info / "entry_points.txt").write_text(f"[apache_airflow_provider]\n{points}\n")
    done = subprocess.run(
        [sys.executable, "-c", FORM],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_airflow_discovers_the_provider_by_its_entry_point(discovered):
    assert discovered["version"] == tavus_provider.__version__


def test_form_shows_base_url_and_api_key_and_hides_unused_fields(discovered):
    (form,) = discovered["form"]
    assert (form["hook_class_name"], form["hook_name"]) == ("tavus_provider.hooks.tavus.TavusHook", "Tavus")
    standard = form["standard_fields"]
    assert (standard["host"]["title"], standard["host"]["placeholder"]) == ("Base URL", DEFAULT_ORIGIN)
    assert standard["password"]["title"] == "API key"
    assert {name for name, field in standard.items() if field and field["hidden"]} == {
        "login",
        "port",
        "url_schema",
    }


def test_form_shows_three_empty_extras(discovered):
    extras = discovered["form"][0]["extra_fields"]
    assert extras.keys() == {"timeout", "concurrency", "requests_per_second"}
    assert {field["value"] for field in extras.values()} == {None}
    assert {field["schema"]["title"] for field in extras.values()} == {
        "Timeout (seconds)",
        "Concurrency",
        "Requests per second",
    }


def test_form_has_the_bounds_of_the_extras(discovered):
    """Airflow's form sets a number to the bound next to it; it does not know exclusiveMinimum."""
    bounds = {
        name: (field["schema"]["minimum"], field["schema"]["maximum"])
        for name, field in discovered["form"][0]["extra_fields"].items()
    }
    assert bounds == {"timeout": (1, 600), "concurrency": (1, 64), "requests_per_second": (0.1, 1000)}


def test_description_is_a_literal_and_its_module_imports_nothing():
    tree = ast.parse((ROOT / "tavus_provider" / "get_provider_info.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "tavus_provider"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.Call)]
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert isinstance(function.body[-1], ast.Return)
    assert isinstance(function.body[-1].value, ast.Dict)


def test_importing_the_description_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import tavus_provider.get_provider_info; "
        "print(*sorted(set(sys.modules) - before - {'__future__'}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["tavus_provider", "tavus_provider.get_provider_info"]


def test_description_is_valid_in_the_schema_of_airflow():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_package_name_and_version_are_those_of_the_distribution():
    assert INFO["package-name"] == SETUP["metadata"]["name"] == "airflow-provider-tavus"
    assert SETUP["metadata"]["version"] == "attr: tavus_provider.__version__"
    assert INFO["versions"] == [tavus_provider.__version__]


@pytest.mark.parametrize("dotted", DOTTED_NAMES)
def test_named_modules_and_classes_can_be_imported(dotted):
    module, _, name = dotted.rpartition(".")
    if dotted in INFO["cli"]:
        assert callable(getattr(importlib.import_module(module), name))
        return
    assert importlib.util.find_spec(dotted if name.islower() else module)
    if name.islower():
        importlib.import_module(dotted)
    else:
        assert hasattr(importlib.import_module(module), name)


def test_hook_and_description_have_the_same_connection_type():
    from tavus_provider.hooks.tavus import TavusHook

    assert (TavusHook.conn_type, TavusHook.hook_name) == (
        CONNECTION["connection-type"],
        CONNECTION["hook-name"],
    )
    assert (TavusHook.conn_name_attr, TavusHook.default_conn_name) == ("tavus_conn_id", "tavus_default")
    assert f"{TavusHook.__module__}.{TavusHook.__qualname__}" == CONNECTION["hook-class-name"]


def test_form_has_the_extras_of_the_client():
    assert list(CONNECTION["conn-fields"]) == [field.name for field in fields(ClientOptions)]


@pytest.mark.parametrize("name", [field.name for field in fields(ClientOptions)])
def test_form_and_client_accept_the_same_values(name):
    schema = CONNECTION["conn-fields"][name]["schema"]
    form = jsonschema.Draft202012Validator(schema)
    bounds = (schema["minimum"], schema["maximum"], schema["maximum"] + 1)
    for value in (None, 0, -1, 0.5, 1, 30, *bounds, "x", True):
        try:
            ClientOptions.parse(json.dumps({name: value}))
            accepted = True
        except TavusValidationError:
            accepted = False
        if (name, value) == ("timeout", 0.5):  # the form begins with 1
            continue
        assert form.is_valid(value) == accepted, (name, value)
    # Only the client accepts numbers as text: a connection URI has no others.
    assert not form.is_valid("5")
    ClientOptions.parse(json.dumps({name: "5"}))


@pytest.mark.parametrize("option", fields(ClientOptions), ids=lambda option: option.name)
def test_form_says_the_bounds_and_the_default_of_the_client(option):
    field = CONNECTION["conn-fields"][option.name]
    default = "no limit" if option.default is None else f"{option.default:g}"
    assert field["description"].endswith(
        f"({field['schema']['minimum']} to {field['schema']['maximum']}). Default: {default}."
    )


def test_configuration_options_have_safe_defaults():
    options = INFO["config"]["tavus"]["options"]
    defaults = {
        "allowed_origins": DEFAULT_ORIGIN,
        "approver_must_differ": "False",
        "ledger_is_shared": "False",
        "legal_holds_max_age": "7d",
    }
    assert {name: option["default"] for name, option in options.items()} == dict.fromkeys(
        options, ""
    ) | defaults
    assert {"allowed_origins", "proxy", "ca_bundle", "approvers"} <= options.keys()


def test_options_that_can_contain_a_password_are_sensitive():
    options = INFO["config"]["tavus"]["options"]
    sensitive = {name for name, option in options.items() if option.get("sensitive")}
    assert sensitive == {"proxy", "policy", "legal_holds", "ledger"}
