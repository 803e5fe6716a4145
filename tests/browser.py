"""A real browser for the tests of Airflow's UI."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

ARGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
CHROMIUM = shutil.which("chromium")

in_browser = pytest.mark.skipif(
    not CHROMIUM or find_spec("playwright") is None,
    reason="chromium or playwright is not installed: make browser",
)


class Browser:
    """
    Open pages of a running Airflow. Note every dialog that opens and every script that fails.

    :param chromium: a browser of Playwright
    :param url: the base URL of Airflow
    """

    def __init__(self, chromium, url: str) -> None:
        self._chromium = chromium
        self._url = url
        self._contexts = []
        self.errors: list[str] = []

    def sign_in(
        self, user: str | None = "admin", scheme: str = "light", *, width: int = 1400, height: int = 1000
    ):
        """Return a page of a new window in which a user is signed in, or nobody if ``user`` is ``None``."""
        viewport = {"width": width, "height": height}
        context = self._chromium.new_context(viewport=viewport, color_scheme=scheme)
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        if user:
            page.goto(f"{self._url}/auth/login")
            page.fill("input[name=username]", user)
            page.fill("input[name=password]", user)
            page.click("button[type=submit]")
            page.get_by_role("link", name="Dags").first.wait_for()
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def save_screenshot(page, name: str, **options) -> None:
    """Save a screenshot if UI_PICTURES names a folder."""
    if folder := os.environ.get("UI_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", **options)


def save_whole_screenshot(page, frame, name: str) -> None:
    """Save a screenshot of all of a frame that fills the page, if UI_PICTURES names a folder."""
    if not os.environ.get("UI_PICTURES"):
        return
    size = page.viewport_size
    page.set_viewport_size({**size, "height": frame.evaluate("document.documentElement.scrollHeight")})
    save_screenshot(page, name)
    page.set_viewport_size(size)


WIDTHS = {390: 844, 1280: 720, 1440: 900}


def frame_of(page):
    """Return the frame of the Tavus page after the first picture."""
    page.frame_locator("iframe").locator("#content:not([aria-busy])").wait_for()
    return page.frames[1]
