"""Paths and names are taken out of texts, however a program wrote them."""

from __future__ import annotations

import html
import json
import shlex
import textwrap
from collections.abc import Callable
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pytest
import yaml

from bench.gpu.redaction import redacted, still_names

DATA = '/srv/acme/Bob\'s "café" & <co>/Film_1'
WORDS = {DATA: "DATA", "/root": "~", "bob": "USER", "node-17": "HOST"}


def wrapped(text: str) -> str:
    return textwrap.fill(text, 18, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


@pytest.mark.parametrize(
    "written",
    [
        str, repr, ascii, shlex.quote, json.dumps, lambda text: json.dumps(text, ensure_ascii=False), html.escape,
        quoteattr, quote, yaml.safe_dump, lambda text: yaml.safe_dump(f"{'word ' * 12}{text}"), wrapped,
        lambda text: json.dumps(shlex.quote(text)), lambda text: quoteattr(shlex.quote(text)),
        lambda text: json.dumps(repr(text)), lambda text: quoteattr(json.dumps(text)),
        lambda text: json.dumps(f"first\n{text}"), lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
        lambda text: text.encode("ascii", "backslashreplace").decode(), lambda text: wrapped(shlex.quote(text)),
        lambda text: text.encode("ascii", "replace").decode(),
        lambda text: text.encode("latin-1").decode(errors="replace"),
        lambda text: f"-I{text}",
    ],
)  # fmt: skip
def test_a_path_is_found_in_every_writing(written: Callable[[str], str]) -> None:
    text = redacted(f"read {written(DATA)} and {written(DATA + '/a/b.avi')}", WORDS)
    assert text.count("DATA") == 2
    for part in ("acme", "Bob", "caf", "co>", "Film"):
        assert part not in text
    assert not still_names(text, WORDS)


def test_a_path_as_it_is_seen_from_another_folder() -> None:
    words = {"../../acme/Bob's film": "DATA", "../../acme": "DATA/.."}
    for text in ("../../acme/Bob's film/v.avi", json.dumps("../../acme/Bob's film/v.avi").strip('"')):
        assert redacted(f"FAILED {text}::test", words) == "FAILED DATA/v.avi::test"
    assert redacted("../../acme/other and ../../others", words) == "DATA/../other and ../../others"


def test_a_path_that_was_cut_short_is_found_at_the_end_of_a_text() -> None:
    for length in range(len("/srv/a"), len(DATA)):
        for end in ("", *(DATA[start:] for start in range(length + 1, len(DATA)))):  # as pytest leaves the middle out
            assert redacted(f"not '{DATA[:length]}...{end}/v.avi'", WORDS) == "not 'DATA.../v.avi'"
        for text in (
            json.dumps({"why": DATA[:length]}),
            f"failed: {DATA[:length]}\nmore",
            f"<a b={quoteattr(DATA[:length])}/>",
        ):
            found = redacted(text, WORDS)
            assert "/srv" not in found, text
            assert "ob" not in found
    assert redacted('{"a": "/srv/axe", "b": "/srv/acme/other", "c": "/srv"}', WORDS) == (
        '{"a": "/srv/axe", "b": "DATA/../../other", "c": "/srv"}'
    )


def test_the_folders_above_are_hidden_but_not_those_of_the_system() -> None:
    assert redacted("/srv/acme/lists /usr/local/bin /usr", {**WORDS, "/usr/local/x": "PYTHON"}) == (
        "DATA/../../lists /usr/local/bin /usr"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/tmp/pytest-of-bob/pytest-3/x", "/tmp/pytest-of-USER/pytest-3/x"),
        ("Bob: bob_3 on node-17, bobsled", "USER: USER_3 on HOST, bobsled"),
        ('"one\\nbob"', '"one\\nUSER"'),
        ("/root/x /other/root/x", "~/x /other/root/x"),
        ("/home/eve\\nnext", "/home/USER\\nnext"),
    ],
)
def test_names(text: str, found: str) -> None:
    assert redacted(text, WORDS) == found


def test_what_was_written_in_an_unknown_way_is_noticed() -> None:
    assert still_names("/srv/acme/B-o-b's “cafe” (&) [co]/Film 1", {DATA.replace("_", " "): "DATA"})
    assert not still_names("/srv/acme/other", WORDS)
