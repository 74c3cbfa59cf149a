"""Text in which names of files and classes do no harm, in terminals and in tables."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTES = range(0xDC80, 0xDD00)  # by which Python stands for the bytes of a name that are not UTF-8


def plain(text: str, encoding: str | None = None, *, keep: str = "") -> str:
    """`text` as one line that any terminal shows as it is: characters that are not printable become escapes.

    A file may be called by any bytes but / and NUL. Without this, a name could move the cursor, colour the screen or
    look like a line of its own. A byte that is not UTF-8 becomes ``\\xff``, its value. With `encoding`, characters that
    it lacks become escapes, too. The characters in `keep` stay.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)
    return text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text


def valid(text: str) -> str:
    """`text` as UTF-8 can hold it: what it can't, such as bytes of a name that are not UTF-8, becomes escapes."""
    return _SURROGATE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if number in _BYTES else character.encode("unicode_escape").decode()
