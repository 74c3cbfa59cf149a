"""Reads the pages of the documentation for tests: their blocks of code, the commands in the text, and their output.

A comment on the line before a block says what is needed to run it, such as `<!-- needs: gpu -->`, or which parts of
its output differ from run to run, such as `<!-- output: numbers vary -->`; with `predictions vary` the classes of the
demo may differ too. A `text` block with a comment about output shows what the `sh` or `python` block before it
prints.

If the line before a block is only `path.py:function`, the block quotes lines of that function. A comment such as
`<!-- file: examples/slurm/two_nodes.sh -->` says that the block is that file, from its first line to its last.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from r3d_fast.demo.videos import CLASSES

REPO = Path(__file__).resolve().parents[2]
NEEDS = ("gpu", "download", "data set")
OUTPUTS = ("exact", "numbers vary", "predictions vary")
LANGUAGES = ("sh", "console", "python", "yaml", "text")
SECTIONS = ("data", "clip", "augment", "loader", "model", "init", "optimizer", "schedule", "train", "eval")
ANY_LINES = "..."

_FENCE = re.compile(r"^```(\w*)$")
_COMMENT = re.compile(r"^<!-- (needs|output|file): (.+) -->$")
_SOURCE = re.compile(r"^`([\w/]+\.py:[\w.]+)`$")
_CLASS = re.compile(rf"\b(?:{'|'.join(sorted(CLASSES, key=len, reverse=True))})\b")
# The images of docker/, as they are called on the pages, and what they start.
_IMAGES = {
    "r3d-fast:cpu": ["r3d-fast"], "r3d-fast:cuda12": ["r3d-fast"], "r3d-fast:v100": ["r3d-fast"],
    "r3d-fast:measure": ["bench", "gpu"],
}  # fmt: skip
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*(?:e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: the path of the page in the repository, the line of its fence, and its comments."""

    page: str
    line: int
    language: str
    text: str
    needs: str = ""
    output: str = ""
    source: str = ""
    file: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """The paths in the repository of the README and of the pages in docs/."""
    return ["README.md", *sorted(str(path.relative_to(REPO)) for path in (REPO / "docs").glob("*.md"))]


def read(page: str) -> str:
    return (REPO / page).read_text(encoding="utf-8")


def blocks(page: str, text: str) -> list[Block]:
    """The fenced blocks in the text of a page, in order. Raises ValueError for a fence that is not closed."""
    found: list[Block] = []
    comments: dict[str, str] = {}
    start, language, inside = 0, "", []
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if start and line == "```":
            found.append(Block(page, start, language, "".join(f"{part}\n" for part in inside), **comments))
            start, comments = 0, {}
        elif start:
            inside.append(line)
        elif fence:
            start, language, inside = number, fence[1], []
        elif comment := _COMMENT.match(line):
            comments[comment[1]] = comment[2]
        elif source := _SOURCE.match(line):
            comments["source"] = source[1]
        elif line.strip():
            comments = {}
    if start:
        raise ValueError(f"{page}:{start}: a fence that is not closed")
    return found


def prose(text: str) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def spans(text: str) -> list[str]:
    """The texts in single backticks outside of fenced blocks, each joined to one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def called(text: str) -> Iterator[list[str]]:
    """Each call of `r3d-fast`, `bench` or `make` in shell text, from that word on; a variable counts as 1.

    `docker run ... IMAGE` is a call of what the image starts.
    """
    text = re.sub(r"\$\w+", "1", text)
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        call: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if call:
                    yield call
                call = []
            elif call:
                call.append(word)
            elif word in ("r3d-fast", "bench", "make"):
                call = [word]
            elif word in _IMAGES and line.startswith("docker run "):
                call = [*_IMAGES[word]]
            elif " " in word:  # quoted: `bash -c '...'`
                yield from called(word)


def found_command(group: click.Command, words: list[str]) -> tuple[click.Command, list[str]]:
    """(the command that `words` name, the words after its name). Raises ValueError if there is no such command."""
    command, rest = group, list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        below = command.get_command(click.Context(command), rest[0])
        if below is None:
            raise ValueError(f"no command {rest[0]}; expected one of {', '.join(command.commands)}")
        command, rest = below, rest[1:]
    return command, rest


def check_options(command: click.Command, words: list[str]) -> None:
    """Raise ValueError for a word that looks like an option but is not an option of the command."""
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        option = word.partition("=")[0]
        if re.match(r"--?[a-z]", option) and option not in {*known, "-h", "--help", "--debug"}:
            raise ValueError(f"no option {option}; expected one of {', '.join(sorted(known))}")


def matches(shown: str, printed: str, how: str) -> bool:
    """Whether the output `printed` contains the lines that a page shows; `...` stands for any lines."""

    def plain(line: str) -> str:
        line = " ".join(line.split())
        if how == "predictions vary":
            line = _CLASS.sub("motion", line)
        return line if how == "exact" else _NUMBER.sub("#", line)

    lines = [line for line in shown.splitlines() if line.strip()]
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == ANY_LINES else re.escape(plain(line)) + r"\n" for line in lines)
    there = "".join(f"{plain(line)}\n" for line in printed.splitlines() if line.strip())
    return re.search("^" + pattern, there, re.M) is not None


def console_steps(text: str) -> list[tuple[str, str]]:
    """The commands in a console block, each as (command, its output)."""
    steps: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        elif steps and steps[-1][0].endswith("\\"):
            steps[-1] = (f"{steps[-1][0]}\n{line}", "")
        elif steps:
            steps[-1] = (steps[-1][0], f"{steps[-1][1]}{line}\n")
        else:
            raise ValueError(f"{line!r}: expected a line that begins with '$ '")
    return steps


def with_checked_shapes(code: str) -> str:
    """The code with a check for each comment about type and shape, as in `x = f()  # uint8 [3, 240, 320, 3]`."""
    lines = []
    for line in code.splitlines():
        lines.append(line)
        said = re.match(r"^(\s*)(?:(\w+) = .*?|(.*?\S))  # (?:\w+: )?([a-z]+\d+) \[([\d, ]+)\]", line)
        if said:
            value, dtype, shape = said[2] or said[3], said[4], [int(size) for size in said[5].split(",")]
            lines.append(
                f"{said[1]}assert (str(({value}).dtype).split('.')[-1].lower(), list(({value}).shape)) "
                f"== ({dtype!r}, {shape}), (({value}).dtype, ({value}).shape)"
            )
    return "\n".join(lines) + "\n"
