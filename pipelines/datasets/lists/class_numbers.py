"""Numbers the classes of lists, by the labels in the lists and by the files of class names beside them."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.class_names import parse_class_json, parse_class_names
from pipelines.datasets.lists.listed_videos import INTEGER, ListLine
from pipelines.datasets.text_files import escaped, first_ten, names_in, read_text, text_lines
from pipelines.errors import ListError

_MAX_CLASSES = 100_000  # a larger label is a mistake, and would make as many class names
_CLASSES = "classes.txt"
_NAME_FILE = re.compile(
    r"class_?names\.(txt|json)|classind\.txt|(.+_)?label_?map(_.+)?\.txt|.+[_-]class_?names\.json|(.+-)?labels\.json|"
    r".+-labels\.csv|categor(y|ies)\.txt",
    re.IGNORECASE,
)
_REMEDY = f"or name all classes, one a line, in a file {_CLASSES} beside the list"


@dataclass(frozen=True)
class NameFile:
    """A file of class names: its path for messages, and the names in the order of their numbers."""

    file: str
    names: tuple[str, ...]
    is_binding: bool  # every label must be of one of its classes


@dataclass(frozen=True)
class Numbered:
    """The classes of the lists, the 0-based label of each line, and warnings."""

    classes: tuple[str, ...]
    labels: list[int]
    warnings: tuple[str, ...] = ()


def find_name_files(folder: Path, lists: Collection[Path], *, is_binding: bool = False) -> list[NameFile]:
    """The files of class names in `folder`, without the files `lists`: classes.txt, or else those of other tools.

    These are classInd.txt, label_map_k400.txt, kinetics_classnames.json, something-something-v2-labels.json and the
    like; `is_binding` goes to them. Raises ListError if one can't be read.
    """
    given = folder / _CLASSES
    if given.exists() and given not in lists:
        names = tuple(line.strip() for _, line in text_lines(read_text(given)) if not line.lstrip().startswith("#"))
        if len(set(names)) != len(names):
            raise ListError(f"{escaped(given)}: a class is named twice; expected each once, in the order of labels")
        return [NameFile(escaped(given), names, is_binding=True)] if names else []
    found: list[NameFile] = []
    for file in map(folder.joinpath, names_in(folder)):
        if _NAME_FILE.fullmatch(file.name) and file not in lists and file.is_file():
            parse = parse_class_json if file.suffix.lower() == ".json" else parse_class_names
            found.append(NameFile(escaped(file), parse(read_text(file), escaped(file)), is_binding))
    return found


def number_classes(lines: Sequence[ListLine], files: Sequence[NameFile], what: str, *, by_folder: bool) -> Numbered:
    """The number of the class of each of `lines`, with the names in one of `files` if it fits.

    If all labels are integers, they are numbers of classes, counted from 0, or from 1 where that is certain; else they
    are names of classes. `what` are the lists, for messages. With `by_folder`, classes without names are called like
    the folders of their videos, if each has a folder of its own. Raises ListError with the file and the line.
    """
    integers = sum(bool(INTEGER.fullmatch(line.label)) for line in lines)
    if integers < len(lines):
        labels = {line.label for line in lines}
        fitting = next((file for file in files if labels <= set(file.names)), None)
        binding = next((file for file in files if file.is_binding), None)
        if not integers or fitting or binding:
            return _by_name(lines, fitting or binding, files)
    for line in lines:
        if not INTEGER.fullmatch(line.label):
            raise ListError(
                f"{line.where}: label {line.label!r} is not an integer, others are; expected one kind of label"
            )
    return _by_number(lines, [int(line.label) for line in lines], files, what, by_folder)


def _by_name(lines: Sequence[ListLine], known: NameFile | None, files: Sequence[NameFile]) -> Numbered:
    names = known.names if known else tuple(sorted({line.label for line in lines}))
    number = {name: i for i, name in enumerate(names)}
    for line in lines:
        if not line.label or line.label not in number:
            expected = f"a class of {posixpath.basename(known.file)}" if known else "a name"
            raise ListError(f"{line.where}: class {line.label!r}; expected {expected}")
    warnings = [f"{file.file} lacks classes of the lists and is not used" for file in files if known is None]
    return Numbered(names, [number[line.label] for line in lines], tuple(warnings))


def _by_number(
    lines: Sequence[ListLine], numbers: list[int], files: Sequence[NameFile], what: str, by_folder: bool
) -> Numbered:
    least, most, different = min(numbers), max(numbers), len(set(numbers))
    names, warnings = _fitting_names(files, least, most)
    first = 1 if least == 1 and most == (len(names.names) if names else different) else 0
    count = len(names.names) if names else _MAX_CLASSES
    for line, number in zip(lines, numbers, strict=True):
        if not first <= number < count + first:
            expected = f"labels are 0-based: expected 0..{count - 1}"
            hint = f", the classes of {names.file}" if names else ""
            hint += "; a list that has -1 for all videos has no labels: leave it out" if number == -1 else ""
            raise ListError(f"{line.where}: label {number} is out of range; {what} {expected}{hint}")
    if first:
        warnings.append(
            f"the labels count from 1: {different} different ones up to {most}, none is 0; so label 1 became class 0"
        )
    elif names is None:
        _check_gaps(lines, numbers, different)
    elif least > 0:
        warnings.append(
            f"no label is 0, which is {names.names[0]} in {names.file}; if the labels of the lists count from 1, "
            "subtract 1 from each"
        )
    labels = [number - first for number in numbers]
    if names:
        return Numbered(names.names, labels, tuple(warnings))
    shown = tuple(str(number) for number in range(first, most + 1))
    return Numbered((by_folder and _folders(lines, labels)) or shown, labels, tuple(warnings))


def _fitting_names(files: Sequence[NameFile], least: int, most: int) -> tuple[NameFile | None, list[str]]:
    """(the file whose names belong to labels from `least` to `most`, warnings).

    Of several files it is the one with just as many names as there are labels, such as label_map_k400.txt beside
    label_map_k600.txt.
    """
    if len(files) < 2:
        return (files[0] if files else None), []
    fitting = [file for file in files if len(file.names) == (most if least == 1 else most + 1)]
    if len({file.names for file in fitting}) == 1:
        return fitting[0], []
    return None, [
        f"{len(files)} files of class names are beside the lists, none is used: {first_ten([f.file for f in files])}; "
        f"keep the right one, {_REMEDY}"
    ]


def _check_gaps(lines: Sequence[ListLine], numbers: Sequence[int], different: int) -> None:
    """Raise ListError if the numbers, which have no names, don't begin at 0, or leave out more than they use."""
    least, most = min(numbers), max(numbers)
    at = lines[numbers.index(least if least else most)]
    if least:
        raise ListError(
            f"{at.where}: label {least} is the lowest of {different} different ones, up to {most}; expected all from 0 "
            f"to {different - 1}, or from 1 to {different}: number the classes anew, {_REMEDY}"
        )
    if most + 1 > 2 * different:
        raise ListError(
            f"{at.where}: label {most}, but there are only {different} different labels; expected 0..{different - 1}: "
            f"number the classes anew, {_REMEDY}"
        )


def _folders(lines: Sequence[ListLine], labels: Sequence[int]) -> tuple[str, ...] | None:
    """The folder of the videos of each class, by label, if each class has just one folder and none shares it."""
    folders: dict[int, set[str]] = defaultdict(set)
    for line, label in zip(lines, labels, strict=True):
        folders[label].add(posixpath.basename(posixpath.dirname(line.path.replace("\\", "/"))))
    names = [next(iter(folders[label]), "") for label in range(max(labels) + 1)]
    is_named = all(len(those) == 1 for those in folders.values()) and all(names) and len(set(names)) == len(names)
    return tuple(names) if is_named else None
