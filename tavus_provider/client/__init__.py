"""
Client of the Tavus REST API, without Airflow and without retention policies.

Names are imported on first use, so that importing this package loads no HTTP library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tavus_provider.client.api import TavusClient
    from tavus_provider.client.config import ClientConfig, ClientOptions

__all__ = ["ClientConfig", "ClientOptions", "TavusClient"]

_MODULES = {"ClientConfig": "config", "ClientOptions": "config", "TavusClient": "api"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
