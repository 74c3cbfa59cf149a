"""The progress bars of a command that does several long tasks, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r3d_fast.progress import Progress

_DECODING = "decoding"


class Bars:
    """Shows one progress bar at a time; a new title starts a new bar."""

    def __init__(self) -> None:
        self._title = ""
        self._bar: Progress | None = None

    def show(self, title: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of the task `title` are finished; ignores a repeated call."""
        from r3d_fast.progress import Progress

        if self._bar is None or title != self._title:
            self.__exit__()
            self._title, self._done = title, -1
            # What an earlier call did took no time of this one, so it does not count for the estimate of the rest.
            self._bar = Progress(title, total, max(0, done - 1), max(1, total // 10))
        if done != self._done:
            self._done = done
            self._bar.step(done=done)

    def show_file(self, path: str, share: float) -> None:
        """Show that `share` (0 to 1) of a long file is decoded: by a bar, or beside the one that counts files."""
        if self._bar is None or self._title.startswith(_DECODING):
            self.show(f"{_DECODING} {path}", int(100 * share), 100)
        else:
            self._bar.note(f"{_DECODING} {path}: {share:.0%}")

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
