"""
Plant one bug after the other into a copy of the package, and see whether a test catches it.

``python scripts/mutants.py [PATTERN]`` prints a line for each bug (whose name matches): the first tests
that caught it, or SURVIVED; and at last how many were caught. A bug whose text is no longer in the
package is an error: it has to be written anew or struck out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WIRE, TRANSPORT, ACCOUNT = "wire.py", "transport.py", "account.py"
HOOK, REPLICA, APPLY = "hooks/tavus.py", "replica.py", "apply.py"

TALK = ("tests/test_wire.py", "tests/test_transport.py", "tests/hooks", "tests/faults/test_connections.py")
MATRIX = ("tests/hooks", "tests/faults/test_connections.py", "tests/faults/test_matrix.py")
BATCH = ("tests/test_apply.py", "tests/faults/test_batch.py")


class Mutant(NamedTuple):
    """A bug: its name, the tests that should catch it, and ``(file, text, text instead)`` for each change."""

    name: str
    tests: tuple[str, ...]
    changes: tuple[tuple[str, str, str], ...]


def mutant(name: str, tests: tuple[str, ...], *changes: tuple[str, str, str]) -> Mutant:
    return Mutant(name, tests, changes)


MUTANTS = [
    mutant(
        "redirects are followed",
        TALK,
        (TRANSPORT, "allow_redirects=False", "allow_redirects=True"),
        (WIRE, "    def get_redirect_target(self", "    def _unused(self"),
    ),
    mutant(
        "any look-up proves that it is gone",
        MATRIX,
        (HOOK, "did not settle it: %s\", replica_id, error)\n", "\", 0, 0)\n            return True\n"),
    ),
    mutant(
        "5xx means not deleted",
        MATRIX,
        (HOOK, "  return TavusOutcomeUnknownError(**told)", "  return (TavusRequestRejectedError if answer.status > 499 else TavusOutcomeUnknownError)(**told)"),
    ),
    mutant(
        "no deadline: each wait has its own second",
        TALK,
        (WIRE, "left = self._call.deadline - time.monotonic()", "left = 1.0"),
    ),
    mutant(
        "Retry-After without a cap",
        TALK,
        (TRANSPORT, "if wait + waited > PATIENCE:", "if wait != wait:"),
    ),
    mutant(
        "an unreadable Retry-After is an hour",
        TALK,
        (TRANSPORT, '        return max(0.0, left) if left < 86_400 else float("inf")\n    return None',
         '        return max(0.0, left) if left < 86_400 else float("inf")\n    return 3600.0'),
    ),
    mutant(
        "1xx is a final answer",
        TALK,
        (TRANSPORT, "if not 200 <= response.status_code", "if not 100 <= response.status_code"),
    ),
    mutant(
        "404 after doubt is put down to somebody else",
        MATRIX,
        (HOOK, "(fault, ReplicaNotFoundError) and doubt:", "(fault, ReplicaNotFoundError) and sends > 9:"),
    ),
    mutant(
        "a refusal after doubt makes it certain",
        MATRIX,
        (HOOK, "or (isinstance(fault, TavusRequestRejectedError) and doubt is None):", "or isinstance(fault, TavusRequestRejectedError):"),
    ),
    mutant(
        "a connection with bytes left over is used again",
        TALK,
        (WIRE, "if self.peek(1) or incoming.pending():", "if incoming.closed:"),
    ),
    mutant(
        "the body decides a delete",
        MATRIX,
        (HOOK, "in (200, 204) and (", "in (200, 204) and not answer.flaw and ("),
    ),
    mutant(
        "202 is done",
        MATRIX,
        (HOOK, "return answer.status in (200, 204) and (", "return answer.status in (200, 202, 204) and ("),
    ),
    mutant(
        "an HTML page is done",
        MATRIX,
        (HOOK, 'answer.is_json or not answer.headers.get("content-type")', "answer.status or True"),
    ),
    mutant(
        "hard=True with a capital",
        TALK,
        (HOOK, '{"hard": "true"} if check_bool', '{"hard": "True"} if check_bool'),
        (TRANSPORT, r"(\?hard=true)?", r"(\?hard=[Tt]rue)?"),
    ),
    mutant(
        "hard is whatever is true",
        TALK,
        (HOOK, 'check_bool("hard", hard)', "bool(hard)"),
    ),
    mutant(
        "a listing that is not complete will do",
        MATRIX,
        (HOOK, "if len(totals) == 1 and len(seen) == total:", "if seen:"),
    ),
    mutant(
        "a count that is no number will do",
        MATRIX,
        (HOOK, "if type(total) is not int or total < 0:", "if total is None:"),
    ),
    mutant(
        "proxy variables and .netrc steer",
        TALK,
        (WIRE, "self.trust_env = False", "self.trust_env = True"),
    ),
    mutant(
        "cookies are sent back",
        TALK,
        (WIRE, "        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))\n", ""),
    ),
    mutant(
        "the library retries on its own",
        MATRIX,
        (WIRE, "max_retries=0", "max_retries=urllib3.Retry(2, allowed_methods=None)"),
    ),
    mutant(
        "any certificate will do",
        TALK,
        (TRANSPORT, "session.verify = self._verify", "session.verify = False"),
    ),
    mutant(
        "what was put together is not looked at again",
        TALK,
        (TRANSPORT, "if not meant or request.method", "if False and request.method"),
    ),
    mutant(
        "an id may end in a newline",
        ("tests/test_replica.py", *TALK),
        (REPLICA, "and _ID.fullmatch(value)", 'and re.match(_ID.pattern + "$", value)'),
    ),
    mutant(
        "the answer to a delete may be as long as a list",
        TALK,
        (TRANSPORT, '"DELETE": 64 * 2**10', '"DELETE": 8 * 2**20'),
    ),
    mutant(
        "answers are unpacked",
        TALK,
        (TRANSPORT, "decode_content=False", "decode_content=True"),
        (TRANSPORT, 'elif encoding not in ("", "identity"):', "elif False:"),
    ),
    mutant(
        "a rate limit pauses only the one who met it",
        TALK,
        (TRANSPORT, "            self.gate.close_for(wait)\n", "            pass\n"),
    ),
    mutant(
        "retries without a budget",
        TALK,
        (TRANSPORT, "max(10, self._calls // 10)", "10**9"),
    ),
    mutant(
        "no connection counts as doubt",
        TALK,
        (TRANSPORT, "        if certain:\n", "        if certain and bad_certificate:\n"),
    ),
    mutant(
        "what the server repeats is shown with the key",
        TALK,
        (TRANSPORT, 'return self._key_forms.sub("***", text)', "return text"),
    ),
    mutant(
        "what a library makes of the request leaves as it is",
        TALK,
        (WIRE, "            raise NotMeant\n", "            pass\n"),
    ),
    mutant(
        "the standard library prints what it sends",
        TALK,
        (WIRE, "    debuglevel = 0", "    _debuglevel = 0"),
    ),
    mutant(
        "waits read the wall clock",
        TALK,
        (TRANSPORT, "clock: Callable[[], float] = time.monotonic", "clock: Callable[[], float] = time.time"),
    ),
    mutant(
        "any origin is admitted",
        ("tests/test_account.py",),
        (ACCOUNT, "if origin not in admitted:", "if origin is None:"),
    ),
    mutant(
        "unknown extras are ignored",
        ("tests/test_account.py",),
        (ACCOUNT, "sorted(set(values) - known):", "sorted(set(values) - set(values)):"),
    ),
    mutant(
        "a refused key does not stop a batch",
        BATCH,
        (APPLY, "if error.status in (401, 403):", "if error.status in (498, 499):"),
    ),
    mutant(
        "doubt never stops a batch",
        BATCH,
        (APPLY, "MAX_IN_A_ROW = 5", "MAX_IN_A_ROW = 5000"),
    ),
]  # fmt: skip


def changed(one: Mutant) -> dict[str, str]:
    """The text of each file that this bug changes."""
    texts: dict[str, str] = {}
    for file, text, instead in one.changes:
        whole = texts.get(file) or (ROOT / "tavus_provider" / file).read_text(encoding="utf-8")
        if whole.count(text) != 1:
            raise LookupError(f"{one.name}: {file} holds {whole.count(text)} times: {text!r}")
        texts[file] = whole.replace(text, instead)
    return texts


def plant(one: Mutant, folder: Path) -> None:
    """Copy what the tests need, and change the copy."""
    for name in ("tavus_provider", "tests", "dags"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / name, folder)
    for file, text in changed(one).items():
        (folder / "tavus_provider" / file).write_text(text, encoding="utf-8")


def caught_by(one: Mutant) -> list[str]:
    """The first tests that fail on a copy with this bug."""
    with tempfile.TemporaryDirectory(prefix="tavus-mutant-") as name:
        plant(one, Path(name))
        command = [sys.executable, "-m", "pytest", "-q", "--maxfail=3", "-p", "no:cacheprovider", *one.tests]
        try:
            done = subprocess.run(command, cwd=name, capture_output=True, text=True, timeout=900, check=False)
        except subprocess.TimeoutExpired:
            return ["a test that did not end"]
        if done.returncode not in (0, 1):
            raise RuntimeError(
                f"{one.name}: pytest could not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, re.MULTILINE)


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [one for one in MUTANTS if re.search(word, one.name)]
    for one in chosen:
        changed(one)  # before the first one runs for minutes
    survivors = 0
    with ThreadPoolExecutor(2) as pool:
        for one, tests in zip(chosen, pool.map(caught_by, chosen), strict=True):
            survivors += not tests
            shown = ", ".join(dict.fromkeys(test.split("[")[0] for test in tests))
            print(f"{one.name}: {'caught by ' + shown if tests else 'SURVIVED'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
