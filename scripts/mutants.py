"""
Put one known bug after the other into a copy of the package, and check that a test fails.

    python scripts/mutants.py            run all bugs of scripts/mutants.toml, some seconds each
    python scripts/mutants.py PATTERN    only those whose name matches a regular expression
    python scripts/mutants.py --check    run nothing; only check that the bugs can still be put in

One line is printed for each bug: the tests that failed, or SURVIVED. The exit code is 1 if a bug survived, or
if the text that a bug replaces is not in the package exactly as often as expected. That is checked for all
bugs before the first test is run. Then the tests are run on an unchanged copy, where they must pass: a test
that fails anyway would seem to catch every bug.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".toml")
NEEDED = ("tavus_provider", "tests", "dags", "docs", "scripts")
NEEDED_FILES = ("setup.cfg", "pyproject.toml", "README.md", "CHANGELOG.md", "Makefile")
QUICK = "not slow and not process"
"""Marks of the tests that are run first; the others are run only if these find nothing."""
NO_TESTS = 5
"""Exit code of pytest if no test has the marks."""
TIMEOUT = 900
"""Seconds after which a test run counts as a failed test."""


class TestRunError(Exception):
    """The tests could not be run, so it is unknown whether they catch the bug."""


@dataclass(frozen=True)
class Change:
    """Replace a text in a file of the package. ``times`` is how often the text must be there."""

    file: str
    find: str
    replace: str
    times: int = 1


@dataclass(frozen=True)
class Mutant:
    """A bug: its name, the tests that must catch it, and its changes."""

    name: str
    tests: tuple[str, ...]
    changes: tuple[Change, ...]

    def problems(self) -> list[str]:
        """Return one line for each change that does not fit the package or that has no test."""
        found = [f"{self.name}: {path} does not exist" for path in self.tests if not (ROOT / path).exists()]
        for change in self.changes:
            file = ROOT / "tavus_provider" / change.file
            count = file.read_text(encoding="utf-8").count(change.find) if file.exists() else 0
            if count != change.times:
                found.append(
                    f"{self.name}: {change.file} has the text {count} times, expected {change.times}: "
                    f"{change.find!r}"
                )
        return found

    def apply(self, package: Path) -> None:
        """Change the files of a copy of the package."""
        for change in self.changes:
            file = package / change.file
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace(change.find, change.replace), encoding="utf-8")


def read_mutants() -> list[Mutant]:
    """Read all bugs of the table."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [
        Mutant(
            row["name"],
            tuple(table["tests"][row["tests"]]),
            tuple(Change(**change) for change in row["changes"]),
        )
        for row in table["mutants"]
    ]


def find_problems(mutants: Sequence[Mutant]) -> list[str]:
    """Return the problems of all bugs, and names that are used twice."""
    names = [mutant.name for mutant in mutants]
    repeated = [f"{name}: the name is used twice" for name in sorted(set(names)) if names.count(name) > 1]
    return repeated + [problem for mutant in mutants for problem in mutant.problems()]


def failed_tests(mutant: Mutant) -> list[str]:
    """Run the tests of a bug on a copy of the package with the bug; return the tests that fail."""
    with tempfile.TemporaryDirectory(prefix="tavus-mutant-") as name:
        folder = Path(name)
        for part in NEEDED:
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in NEEDED_FILES:
            shutil.copy(ROOT / part, folder)
        mutant.apply(folder / "tavus_provider")
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        for marks in (QUICK, f"not ({QUICK})"):
            if failed := _run_tests(mutant.tests, folder, environment, marks=marks):
                return failed
        return []


def _run_tests(
    tests: Sequence[str], folder: Path, environment: Mapping[str, str], *, marks: str
) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=1", "-p", "no:cacheprovider", "-m", marks]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"a test that did not end within {TIMEOUT} s"]
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, re.MULTILINE)
    if not failed and done.returncode not in (0, NO_TESTS):
        output = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise TestRunError(f"pytest ended with exit code {done.returncode}\n{output}")
    return failed


def all_tests(mutants: Sequence[Mutant]) -> list[str]:
    """Return the test files and folders of all bugs, without those that are in a folder of the list."""
    paths = {path for mutant in mutants for path in mutant.tests}
    return sorted(path for path in paths if not any(str(parent) in paths for parent in Path(path).parents))


def run(mutant: Mutant) -> tuple[str, bool]:
    """Return the line to print for a bug, and whether it was caught."""
    try:
        tests = failed_tests(mutant)
    except TestRunError as error:
        return f"{mutant.name}: NOT RUN, {error}", False
    names = ", ".join(dict.fromkeys(test.split("[")[0] for test in tests))
    return f"{mutant.name}: {'caught by ' + names if tests else 'SURVIVED'}", bool(tests)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pattern", nargs="?", default="", help="regular expression for names")
    parser.add_argument("--check", action="store_true", help="only check that the bugs can be put in")
    options = parser.parse_args()
    mutants = read_mutants()
    if problems := find_problems(mutants):
        print("\n".join(problems))
        return 1
    if options.check:
        print(f"all {len(mutants)} bugs of {TABLE.name} fit the package")
        return 0
    chosen = [mutant for mutant in mutants if re.search(options.pattern, mutant.name)]
    caught = 0
    with ThreadPoolExecutor(2) as pool:
        unchanged = [Mutant("no bug", (path,), ()) for path in all_tests(chosen)]
        if failing := [test for tests in pool.map(failed_tests, unchanged) for test in tests]:
            print(f"tests that fail without any bug: {', '.join(failing)}")
            return 1
        for line, is_caught in pool.map(run, chosen):
            caught += is_caught
            print(line, flush=True)
    print(f"{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
