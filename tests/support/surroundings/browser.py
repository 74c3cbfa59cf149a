"""Chromium without a window, driven by Playwright: opens pages from files, and notes what it complains of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

PROGRAM = "/usr/bin/chromium"  # of Debian


@dataclass
class Opened:
    """A page that is open, with all errors, warnings and requests to elsewhere that it gave rise to so far."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    @property
    def is_wider_than_its_window(self) -> bool:
        """Whether the page has to be moved sideways to be read."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_text_contents()]

    def values(self, selector: str) -> list[float]:
        """The exact numbers behind the cells that `selector` finds; -1 for a dash."""
        found = self.page.eval_on_selector_all(selector, "cells => cells.map(cell => Number(cell.dataset.v))")
        return list(map(float, found))


class Browser:
    """Opens pages; made once for all tests, as Chromium takes a second to start."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    @contextmanager
    def opened(self, path: Path, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Iterator[Opened]:
        """The page in the file `path`, in a window `width` px wide, for a user who likes light or dark pages."""
        context = self._chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        try:
            page = context.new_page()
            opened = Opened(page)
            page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
            page.on("dialog", lambda dialog: opened.complaints.append(f"dialog: {dialog.message}"))
            page.on("request", lambda request: _note_request(opened, request.url, path))
            page.goto(path.as_uri())
            yield opened
        finally:
            context.close()


def _note_request(opened: Opened, url: str, path: Path) -> None:
    if not url.startswith("data:") and url.partition("#")[0] != path.as_uri():
        opened.complaints.append(f"request: {url}")
