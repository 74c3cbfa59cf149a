"""The changes that can be made to a module, by Cosmic Ray's operators, and a sample of them that a seed draws."""

from __future__ import annotations

import ast
import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from math import ceil
from pathlib import Path
from random import Random
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

_LEFT_OUT = {
    "core/RemoveDecorator",  # of properties and context managers: any test fails
    "core/VariableInserter",
    "core/VariableReplacer",
}


class Mutant(NamedTuple):
    """A change: of which module, by which operator, at which of its places; `before` and `after` are the lines.

    `function` is the qualified name of the function or class that the change lies in.
    """

    module: str
    operator: str
    occurrence: int
    function: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module}:{self.function}: {self.before} -> {self.after}"


class Place(NamedTuple):
    """A place that can be changed, and the (operator, occurrence) that can do it."""

    start: tuple[int, int]
    ways: tuple[tuple[str, int], ...]


def places(source: str) -> list[Place]:
    """The places of a module where an operator can change something, in order, with all the ways to do it."""
    tree = get_ast(source)
    nodes = list(ast_nodes(tree))
    ways: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for name in operator_names():
        if name in _LEFT_OUT:
            continue
        operator = get_operator(name)()
        found = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(found):
            ways[start].append((name, occurrence))
    return [Place(start, tuple(those)) for start, those in sorted(ways.items())]


def mutants(module: str, source: str, draw: Random) -> Iterator[Mutant]:
    """Changes of a module in the order that `draw` gives, one for each place; none that changes nothing that runs."""
    runs = _what_runs(source)
    found = places(source)
    draw.shuffle(found)
    for place in found:
        operator, occurrence = draw.choice(place.ways)
        if _is_in_constant(source, place.start) and operator == "core/NumberReplacer":
            continue  # of a limit or a pace, which only says how much
        changed = _changed(source, operator, occurrence)
        if not (shown := _what_runs(changed)) or shown == runs:
            continue
        before, after = _changed_lines(source, changed)
        yield Mutant(module, operator, occurrence, function_at(source, place.start[0]), before, after)


def sample(root: Path, modules: Iterable[str], count: int, seed: int, only: str = "") -> list[Mutant]:
    """At least `count` changes of `modules` under `root`, by the share of all places in each; a seed gives the same.

    Returns those of the modules whose path has the word `only`: the same that a sample of all modules has of them.
    """
    sources = {module: (root / module).read_text(encoding="utf-8") for module in modules}
    sizes = {module: len(places(source)) for module, source in sources.items()}
    total = sum(sizes.values())
    chosen: list[Mutant] = []
    for module, source in sources.items():
        if only in module:
            share = ceil(count * sizes[module] / total)
            chosen += islice(mutants(module, source, Random(f"{seed} {module}")), share)
    Random(seed).shuffle(chosen)
    return chosen


def changed_source(mutant: Mutant, source: str) -> str:
    """The source of a module with the change of `mutant`."""
    return _changed(source, mutant.operator, mutant.occurrence)


def _changed(source: str, operator: str, occurrence: int) -> str:
    """The source with one change; "" where the operator can't make it."""
    try:
        return mutate_code(source, get_operator(operator)(), occurrence) or ""
    except AttributeError:  # Cosmic Ray 8.7 can't replace an exception that has dots in its name
        return ""


def function_at(source: str, line: int) -> str:
    """The qualified name of the function or class that `line` of a module lies in; "" outside of all."""
    name = ""
    nodes: list[tuple[str, ast.AST]] = [("", ast.parse(source))]
    while nodes:
        prefix, node = nodes.pop()
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{prefix}.{child.name}".lstrip(".")
                if child.lineno <= line <= (child.end_lineno or line):
                    name = max(name, inner, key=len)
            nodes.append((inner, child))
    return name


class _Bare(ast.NodeTransformer):
    """Takes away what does not run: annotations of functions and variables, `if TYPE_CHECKING`; and decorators."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns, node.decorator_list = None, []
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.decorator_list = []
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        self.generic_visit(node)
        return node


def _what_runs(source: str) -> str:
    """What of a module runs, as text to compare; "" where it has no right syntax."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    for node in list(tree.body):  # names of types, such as `Result = Video | Error`
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and _is_union(node.value):
            tree.body.remove(node)
    return ast.dump(_Bare().visit(tree))


def _is_union(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_union(node.left) and _is_union(node.right)
    is_name = isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).rpartition(".")[2][:1].isupper()
    return is_name or isinstance(node, ast.Subscript) or (isinstance(node, ast.Constant) and node.value is None)


def _is_in_constant(source: str, start: tuple[int, int]) -> bool:
    """Whether a place lies in an assignment of a module itself, outside of functions and classes."""
    return any(
        node.lineno <= start[0] <= (node.end_lineno or 0)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
    )


def _changed_lines(before: str, after: str) -> tuple[str, str]:
    """What was taken away and what was put there, each in one line."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    gone, new = ([line[2:].strip() for line in lines if line.startswith(mark)] for mark in ("- ", "+ "))
    return " ".join(gone), " ".join(new)
