"""Texts without paths and names, in whatever way a program wrote them: quoted, escaped, wrapped or cut short."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from urllib.parse import unquote

from pipelines.input.credentials import without_credentials

# Folders of a system, which tell nothing of whoever uses it.
_SYSTEM = {
    "/home",
    "/Users",
    "/usr/local",
    "/usr/lib",
    "/usr/share",
    "/usr/bin",
    "/var/lib",
    "/var/tmp",
    "/opt/conda",
    "/dev/shm",
}
_LEAST_CUT = 2  # characters of the second folder of a path, after which a text that was cut there is held to mean it
_DOUBLE = r'\\*(?:"|&(?:quot|\#34);)'
_SINGLE = r"\\*(?:'|&(?:apos|\#0?39|\#x27);)"
_FOLD = r"(?:\\\n\s*)?"  # YAML may end a line after a letter that it escapes
_FORMS = {
    # A shell's 'it'"'"'s, YAML's 'it''s, Python's 'it\'s'.
    "'": rf"(?:{_SINGLE}{_DOUBLE}{_SINGLE}{_DOUBLE}{_SINGLE}|{_SINGLE}{_SINGLE}|{_SINGLE}|%27|\\+u0027|\\+x27)",
    '"': rf"(?:{_DOUBLE}|%22|\\+u0022|\\+x22)",
    # Where a text is wrapped, a line may end here.
    " ": r"(?:(?:\\+[nrt]|\\|\s|&\#(?:10|13|9|32);|%20)+)",
    "/": r"(?:(?:\\*/|%2F)+)",
    "\\": r"(?:\\+|%5C)",
    "&": r"(?:\\*&(?:amp;)*|%26|&\#38;|\\+u0026|\\+x26)",
    "<": r"(?:\\*<|&lt;|&\#60;|%3C|\\+u003c|\\+x3c)",
    ">": r"(?:\\*>|&gt;|&\#62;|%3E|\\+u003e|\\+x3e)",
}
# What may follow where a text was cut short.
_ELIDED = re.compile(r"\.\.\.|…")
_CUT = re.compile(r"(?:\\*[\"']|</?|&quot;|&apos;|\\+n|\s*\n|\s*\Z)")
_BEFORE = r"(?:(?<![\w-])|(?<=\\[nrt]))"  # of what is a word, also at the beginning of a line within JSON


def redacted(text: str, words: Mapping[str, str]) -> str:
    """`text` with what is hidden replaced; folders below /home lose the user's name, addresses their passwords."""
    for word, stand_in in words.items():
        if is_relative(word):
            text = _path(word).sub(stand_in, text)
    paths = {word: stand_in for word, stand_in in words.items() if word.startswith("/")}
    for path, stand_in in paths.items():
        text = _without_cut(text, path, stand_in)
    lower = text.lower()
    for path, stand_in in _with_parents(paths).items():
        if _longest_run(path) in lower:  # else the pattern, which is slow, finds nothing
            text = _path(path).sub(stand_in, text)
    text = re.sub(r'\bhostname="[^"]*"', 'hostname=""', text)  # of pytest's file
    text = re.sub(r"pytest-of-[^/\\\s\"'<&]+", "pytest-of-USER", text)
    text = re.sub(r"(/(?:home|Users))/[^/\s\"'\\<&]+", r"\1/USER", text)
    text = re.sub(r"(\w://)[^/\s\"'@]+@", r"\1", without_credentials(text))
    for word, stand_in in words.items():
        if word not in paths and not is_relative(word):
            text = _name(word).sub(stand_in, text)
    return text


def is_relative(word: str) -> bool:
    """Whether a hidden word is a path as it is written from another folder, such as `../videos`."""
    return word.startswith("../")


def still_names(text: str, words: Mapping[str, str]) -> bool:
    """Whether a path with letters or signs that programs escape is still in `text`, whatever signs are within it.

    Paths of usual letters are replaced for certain; of these, what only begins alike would be found too.
    """
    plain, escaped = _plain(text), re.compile(r"[^\w/.-]|[^\x00-\x7f]")
    paths = {word: stand_in for word, stand_in in words.items() if word.startswith("/")}
    return any(_plain(path) in plain for path in _with_parents(paths) if escaped.search(path))


def _with_parents(paths: Mapping[str, str]) -> dict[str, str]:
    """`paths` and the folders that they are in, but for those at the top and those of the system; longest first."""
    found = dict(paths)
    for path, stand_in in paths.items():
        if stand_in != "~":
            parent, above = path.rpartition("/")[0], f"{stand_in}/.."
            while parent.count("/") > 1 and parent not in _SYSTEM:
                found.setdefault(parent, above)
                parent, above = parent.rpartition("/")[0], f"{above}/.."
    return {path: found[path] for path in sorted(found, key=len, reverse=True)}


@cache
def _form(letter: str) -> str:
    """The pattern of all that may stand for a letter."""
    if letter in _FORMS:
        return _FORMS[letter]
    if letter.isascii():
        return letter if letter.isalnum() else rf"\\*{re.escape(letter)}"
    utf8, utf16 = letter.encode(errors="surrogatepass"), letter.encode("utf-16-be", errors="surrogatepass")
    units = [utf16[k : k + 2].hex() for k in range(0, len(utf16), 2)]
    forms = [
        re.escape(letter), re.escape(unicodedata.normalize("NFD", letter)), *(rf"&\#{ord(letter)};",),
        rf"&\#x{ord(letter):x};", "".join(rf"\\+u{unit}" for unit in units), rf"\\+U{ord(letter):08x}",
        rf"\\+x{ord(letter):02x}", "".join(f"%{byte:02x}" for byte in utf8),
        "".join(rf"\\+x{byte:02x}" for byte in utf8), "".join(rf"\\+{byte:03o}" for byte in utf8), "\ufffd+", r"\?+",
    ]  # fmt: skip
    return rf"(?:{'|'.join(forms)}){_FOLD}"


def _longest_run(path: str) -> str:
    """The longest run of letters of ASCII and digits, which every program writes as they are, in small letters."""
    runs: list[str] = re.findall(r"[a-z0-9]*", path.lower())
    return max(runs, key=len)


@cache
def _path(path: str) -> re.Pattern[str]:
    # The folder of a system's user, such as /root, may be the end of another path; a longer one is no accident.
    before = _BEFORE if path.count("/") < 2 else ""
    return re.compile(rf"{before}{''.join(map(_form, path))}(?![\w-])", re.I)


@cache
def _name(name: str) -> re.Pattern[str]:
    """A name as a whole word; an underscore ends it too."""
    return re.compile(rf"(?:(?<![^\W_])|(?<=\\[nrt])){''.join(map(_form, name))}(?![^\W_])", re.I)


def _without_cut(text: str, path: str, stand_in: str) -> str:
    """`text` without the beginnings of `path` where a text was cut short, or its middle left out, within the path."""
    top = path.find("/", 1)
    least = top + _LEAST_CUT
    if top < 0 or len(path) < least:
        return text
    parts, at = [], 0
    for match in _beginning(path[:least]).finditer(text):
        letters, end = _run(text, match.end(), path[least:])
        rest, elided = path[least + letters :], _ELIDED.match(text, end)
        if elided is None and (rest[:1] in ("", "/") or path[least + letters - 1] == "/"):
            continue  # a whole folder
        if match.start() >= at and (elided or _CUT.match(text, end)):
            parts += [text[at : match.start()], f"{stand_in}..."]
            at = end if elided is None else _after_end(text, elided.end(), rest)
    return "".join([*parts, text[at:]])


def _run(text: str, at: int, letters: str) -> tuple[int, int]:
    """(how many of `letters` follow at `at` in a text, where they end)."""
    for number, letter in enumerate(letters):
        found = _letter(letter).match(text, at)
        if found is None:
            return number, at
        at = found.end()
    return len(letters), at


def _after_end(text: str, at: int, rest: str) -> int:
    """Where the longest end of `rest` that is at `at` in a text is over; `at` where none is there."""
    for start in range(len(rest)):
        letters, end = _run(text, at, rest[start:])
        if letters == len(rest) - start:
            return end
    return at


@cache
def _beginning(path: str) -> re.Pattern[str]:
    return re.compile("".join(map(_form, path)), re.I)


@cache
def _letter(letter: str) -> re.Pattern[str]:
    return re.compile(_form(letter), re.I)


def _plain(text: str) -> str:
    """The ASCII letters, digits and slashes of a text, all that is escaped decoded."""
    text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), html.unescape(unquote(text)))
    return re.sub(r"[^a-z0-9/]", "", unicodedata.normalize("NFKD", text).casefold())
