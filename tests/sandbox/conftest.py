"""A sandbox with the built-in account."""

from collections.abc import Iterator

import pytest

from tavus_provider.sandbox import Sandbox


@pytest.fixture
def tavus() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running
