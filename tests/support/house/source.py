"""The Python files of a tree, as the rules of the house need them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("pipelines", "r3d_fast", "bench")


@dataclass(frozen=True)
class Source:
    """One file of the tree at `root`; `path` is relative to `root`."""

    root: Path
    path: str

    @cached_property
    def text(self) -> str:
        return (self.root / self.path).read_text(encoding="utf-8")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of its syntax tree, in the order of the lines."""
        nodes = ast.walk(ast.parse(self.text, self.path))
        return sorted(nodes, key=lambda node: (getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))

    def within(self, *places: str) -> bool:
        """Whether the file is one of `places`, or in one of these if they are folders, which end in a slash."""
        return any(self.path == place or (place.endswith("/") and self.path.startswith(place)) for place in places)

    def breach(self, node: ast.AST | int, what: str) -> str:
        """A message `path:line: what`, where `what` says what breaks a rule and how to mend it."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {what}"


def sources(root: Path, *folders: str) -> Iterator[Source]:
    """The Python files below `folders` of the tree, by default below all packages."""
    for folder in folders or PACKAGES:
        for path in sorted((root / folder).rglob("*.py")):
            if "__pycache__" not in path.parts:
                yield Source(root, path.relative_to(root).as_posix())


def called(call: ast.Call) -> str:
    """The name of the called function as it is written, such as `os.replace` or `path.rename`; "" for `f()()`."""
    return dotted(call.func)


def dotted(node: ast.AST) -> str:
    """A dotted name as it is written, such as `a.b`; "_.b" if the part before the dot is not a name; else ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value) or '_'}.{node.attr}"
    return ""
