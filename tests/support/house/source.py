"""The Python files of a tree: what the rules of the house are asked of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("pipelines", "r3d_fast", "bench")


@dataclass(frozen=True)
class Source:
    """One file of the tree at `root`, by its path in it."""

    root: Path
    path: str

    @cached_property
    def text(self) -> str:
        return (self.root / self.path).read_text(encoding="utf-8")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All that it says, from its first line to its last."""
        nodes = ast.walk(ast.parse(self.text, self.path))
        return sorted(nodes, key=lambda node: (getattr(node, "lineno", 0), getattr(node, "col_offset", 0)))

    def within(self, *places: str) -> bool:
        """Whether it is one of these files, or in one of these folders (which end in a slash)."""
        return any(self.path == place or (place.endswith("/") and self.path.startswith(place)) for place in places)

    def breach(self, node: ast.AST | int, what: str) -> str:
        """One line that says where a rule is broken, and how to mend it."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {what}"


def sources(root: Path, *folders: str) -> Iterator[Source]:
    """The files below these folders of the tree, or below all packages."""
    for folder in folders or PACKAGES:
        for path in sorted((root / folder).rglob("*.py")):
            if "__pycache__" not in path.parts:
                yield Source(root, path.relative_to(root).as_posix())


def called(call: ast.Call) -> str:
    """The name of what is called as it is written: `os.replace`, `path.rename`, `SystemExit`; "" for `f()()`."""
    return dotted(call.func)


def dotted(node: ast.AST) -> str:
    """A name as it is written; what stands before the last dot is "_" where it is no name itself."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value) or '_'}.{node.attr}"
    return ""
