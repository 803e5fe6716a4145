"""The command `python -m tavus_provider.sandbox`."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterable
from typing import NoReturn

from tavus_provider.sandbox.server import Sandbox


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tavus sandbox: {message}\n")


def main(arguments: Iterable[str] | None = None) -> int:
    """Serve a sandbox until SIGINT or SIGTERM.

    An invalid argument is reported in one line on standard error, with exit code 2.

    :param arguments: command-line arguments; None for those of the process
    """
    parser = _Parser(
        prog="python -m tavus_provider.sandbox", description="Run a Tavus server for tests on 127.0.0.1."
    )
    parser.add_argument("--port", type=int, default=8600, help="0 chooses a free port (default: 8600)")
    parser.add_argument("--seed", metavar="FILE", help="JSON or YAML file; default: the built-in account")
    parser.add_argument("--key", default="sandbox", help="the API key to accept (default: sandbox)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--listen-beyond-loopback",
        action="store_true",
        help="allow a --host that other machines can reach",
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    stop = threading.Event()
    try:
        with Sandbox(
            options.seed,
            options.key,
            options.port,
            host=options.host,
            listen_beyond_loopback=options.listen_beyond_loopback,
        ) as sandbox:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            count = len(sandbox.replica_ids())
            sys.stdout.write(f"Tavus sandbox at {sandbox.url}  (key: {sandbox.key}, {count} replicas)\n")
            sys.stdout.flush()
            stop.wait()
    except OSError as exc:
        parser.error(f"cannot listen on {options.host}:{options.port}: {exc.strerror}")
    except (ValueError, OverflowError) as exc:
        parser.error(str(exc))
    return 0


if __name__ == "__main__":
    sys.exit(main())
