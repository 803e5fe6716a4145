"""The README: short, and right about what it names. Its code blocks are run by test_doc_examples.py."""

from __future__ import annotations

import html
import re
import subprocess
import sys

from pages import ROOT, read

README = read("README.md")


def test_readme_has_at_most_120_lines():
    assert len(README.splitlines()) <= 120


def test_first_commands_are_demo_and_test():
    first = re.search(r"```bash\n(.*?)```", README, re.DOTALL)[1]
    assert re.findall(r"^make ([a-z]+)", first, re.MULTILINE) == ["demo", "test"]


def test_supported_versions_are_those_of_the_package():
    setup = read("setup.cfg")
    airflow = re.search(r"apache-airflow>=(\S+)", setup)[1]
    python = re.search(r"python_requires = >=(\S+)", setup)[1]
    assert f"Airflow {airflow} or newer, Python {python} or newer" in README


def test_default_limits_are_those_of_the_code():
    from tavus_provider.retention.policy import Limits

    limits = Limits()
    assert (
        f"at most {limits.max_deletions} replicas and {limits.max_deletion_percent} % of the account"
        in README
    )


def test_table_of_dags_has_every_dag():
    named = re.findall(r"^\| `(tavus_\w+)` \|", README, re.MULTILINE)
    assert sorted(named) == sorted(file.stem for file in (ROOT / "dags").glob("tavus_*.py"))


def test_picture_of_the_plan_shows_the_reasons_that_are_logged():
    logged = subprocess.run(
        [sys.executable, "-c", "import picture; print(*picture.plan_lines(), sep='\\n')"],
        cwd=ROOT / "scripts",
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    picture = read("docs/plan.svg")
    shown = html.unescape(re.sub(r"<[^>]*>", "", picture)).replace("\N{NO-BREAK SPACE}", " ")
    reasons = [
        re.split(r" {2,}", line.strip())[3]
        for line in logged.splitlines()
        if re.match(r"DELETE|keep", line) and not re.search(r"\d{4}-\d{2}-\d{2}T", line)
    ]
    assert len(reasons) > 20
    assert [reason for reason in reasons if reason not in shown] == []
