"""A Tavus server on loopback for demo, rehearsal and tests."""

from tavus_provider.sandbox.server import Sandbox, builtin_seed, read_seed

__all__ = ["Sandbox", "builtin_seed", "read_seed"]
