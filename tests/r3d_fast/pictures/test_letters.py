"""Texts in the letters that a font has, and as long as there is room."""

from __future__ import annotations

import pytest

from r3d_fast.pictures.letters import drawable, fitting, fitting_end, wide_font, wrapped


@pytest.mark.parametrize(
    ("text", "shown"),
    [("Zürich Ωμέγα Ж", "Zürich Ωμέγα Ж"), ("two\n lines\x1b[2J", "two lines [2J"), ("跳x", "?x"), ("", "")],
)
def test_a_letter_that_the_font_lacks_is_replaced(text: str, shown: str) -> None:
    assert drawable(text, wide_font(12)) == shown


@pytest.mark.parametrize("room", [5, 30, 60, 100, 101, 130])
def test_a_text_is_cut_no_more_than_it_must_be(room: int) -> None:
    font, text = wide_font(12), "a label that is long"
    shown = fitting(text, font, room)
    if shown != text:
        kept = shown.removesuffix("…")
        assert text.startswith(kept)
        assert font.getlength(shown) <= room or kept == ""
        longer = text[: len(kept) + 1]
        while longer.endswith(" "):
            longer = text[: len(longer) + 1]
        assert font.getlength(longer + "…") > room
    else:
        assert font.getlength(text) <= room


def test_a_path_keeps_its_end() -> None:
    font = wide_font(12)
    shown = fitting_end("folder/" * 50 + "name.avi", font, 100)
    assert shown.startswith("…")
    assert shown.endswith("/name.avi")
    assert font.getlength(shown) <= 100
    assert fitting_end("a.avi", font, 100) == "a.avi"


def test_thousands_of_letters_take_no_time() -> None:
    font = wide_font(12)
    assert len(fitting("x" * 200_000, font, 200)) < 40


def test_a_long_text_goes_on_in_more_lines_and_loses_no_word() -> None:
    font = wide_font(15)
    text = "left: the whole first frame, and in red what the model sees of it"
    lines = wrapped(text, font, 200)
    assert len(lines) > 1
    assert " ".join(lines) == text
    assert all(font.getlength(line) <= 200 for line in lines)
    assert wrapped("", font, 200) == [""]
