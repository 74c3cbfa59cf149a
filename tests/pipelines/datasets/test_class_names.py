from __future__ import annotations

import pytest

from pipelines.datasets.class_names import parse_class_ind, parse_class_json, parse_class_names
from pipelines.errors import ListError

FORMS = {
    "1 Lunges\n2 Punch\n": ("Lunges", "Punch"),
    "# UCF\n\n 2 Punch \r\n1 Lunges\r\n": ("Lunges", "Punch"),
    "2\tJump High\n1\ta #b\n": ("a #b", "Jump High"),
}


@pytest.mark.parametrize("text", FORMS)
def test_both_parsers_read_numbered_names_alike(text: str) -> None:
    assert parse_class_ind(text, "f") == parse_class_names(text, "f") == FORMS[text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 a\n1 b\n", ("a", "b")),
        ("b,1\na,0\n", ("a", "b")),
        ('1;"one, two"\n2;three\n', ("one, two", "three")),
        ("run\n2 fast\n", ("run", "2 fast")),  # not every line has a number: they are names
        ("#clap\nrun\n", ("#clap", "run")),
    ],
)
def test_other_forms(text: str, expected: tuple[str, ...]) -> None:
    assert parse_class_names(text, "f") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "^f: no class names in it; expected a line for each class$"),
        ("1 a\n2 b\n1 c\n", "^f:3: '1 c' repeats a number or a class; expected each once$"),
        ("1 a\n3 b\n", "^f: 2 classes, numbered 1 to 3; expected each number once, from (0 or )?1 on$"),
    ],
)
def test_both_refuse_the_same(text: str, said: str) -> None:
    for parse in (parse_class_ind, parse_class_names):
        with pytest.raises(ListError, match=said):
            parse(text, "f")


def test_a_ucf_list_counts_from_1_and_has_numbers() -> None:
    with pytest.raises(ListError, match=r"^f: 2 classes, numbered 0 to 1; expected each number once, from 1 on$"):
        parse_class_ind("0 a\n1 b\n", "f")
    with pytest.raises(ListError, match=r"^f:2: 'b'; expected '<number> <class>', numbers from 1$"):
        parse_class_ind("1 a\nb\n", "f")


@pytest.mark.parametrize(
    "text",
    ['{"b": 1, "\\"a\\"": 0}', '{"b": "2", "a": "1"}', '{"1": "b", "0": "a"}', '["a", "b"]'],
)
def test_names_in_json(text: str) -> None:
    assert parse_class_json(text, "f") == ("a", "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 0,\n"b" 1}', "^f:2: no valid JSON; expected the names of classes with their numbers$"),
        ("7", "^f: '7'; expected a JSON object of class names and their numbers$"),
        ('{"a": "x"}', "^f: 'a': 'x'; expected a class name and its number$"),
        ('{"a": 0, "b": 0}', "^f: class 'b', number 0: one of them is there twice; expected each once$"),
        ('{"a": 0, "b": 2}', "^f: 2 classes, numbered 0 to 2; expected each number once"),
        ("{}", "^f: no class names in it"),
    ],
)
def test_bad_json_of_names(text: str, said: str) -> None:
    with pytest.raises(ListError, match=said):
        parse_class_json(text, "f")
