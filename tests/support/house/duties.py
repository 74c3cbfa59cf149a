"""Rules about what only one place in the code may do. Each gives the lines of the tree at `root` that break it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from house.source import PACKAGES, called, dotted, sources

_RENAMERS = {"os.rename", "os.renames", "os.replace", "os.link", "shutil.move"}
_LEAVERS = {"exit", "quit", "sys.exit", "os._exit", "SystemExit", "ctx.exit", "click.exceptions.Exit", "Exit"}
_DRIVER = re.compile(r"lib(cuda|nvidia|nvcuvid)[\w-]*\.so|^/(proc|sys)(/|$)")


def renames(root: Path) -> list[str]:
    """Only pipelines/output/ renames a file or folder into place."""
    mend = "write by `pipelines.output`, the one place that renames into place"
    found = []
    for source in sources(root):
        if source.within("pipelines/output/"):
            continue
        for node in source.nodes:
            if isinstance(node, ast.Call) and _renames_a_path(node):
                found.append(source.breach(node, f"{called(node)}(...): {mend}"))
            elif isinstance(node, ast.Attribute) and dotted(node) in _RENAMERS:
                found.append(source.breach(node, f"{dotted(node)}: {mend}"))
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names} & _RENAMERS
                found += [source.breach(node, f"{name}: {mend}") for name in sorted(names)]
    return found


def _renames_a_path(call: ast.Call) -> bool:
    """Whether a call is `path.rename(new)` or `path.replace(new)`.

    `str.replace` has two arguments, and the `replace` of dates and dataclasses has named ones.
    """
    if not isinstance(call.func, ast.Attribute) or dotted(call.func) in _RENAMERS:
        return False
    if call.func.attr == "rename":
        return True
    names = [keyword.arg for keyword in call.keywords]
    return call.func.attr == "replace" and (len(call.args), names) in ((1, []), (0, ["target"]))


def exit_codes(root: Path) -> list[str]:
    """Only the two modules errors.py write exit codes as numbers."""
    found = []
    for source in sources(root):
        if source.within("pipelines/errors.py", "r3d_fast/errors.py"):
            continue
        for node in source.nodes:
            for number in _exit_codes(node):
                mend = "take it from `pipelines.errors.ExitCode`, or raise an error that has one"
                found.append(source.breach(number, f"exit code {number.value}: {mend}"))
    return found


def _exit_codes(node: ast.AST) -> list[ast.Constant]:
    """The numbers in `node` that are exit codes: arguments of `sys.exit` and the like, or values of `exit_code`."""
    values: list[ast.AST | None] = []
    if isinstance(node, ast.Call):
        if called(node) in _LEAVERS:
            values += node.args
        values += [keyword.value for keyword in node.keywords if keyword.arg == "exit_code"]
    elif isinstance(node, ast.Assign):
        values += [node.value for target in node.targets if dotted(target).endswith("exit_code")]
    elif isinstance(node, ast.AnnAssign) and dotted(node.target).endswith("exit_code"):
        values.append(node.value)
    elif isinstance(node, ast.arguments):
        given = node.args[len(node.args) - len(node.defaults) :] + node.kwonlyargs
        values += [
            value
            for argument, value in zip(given, [*node.defaults, *node.kw_defaults], strict=True)
            if argument.arg == "exit_code"
        ]
    return [number for value in values if value is not None for number in _numbers(value)]


def _numbers(value: ast.AST) -> list[ast.Constant]:
    """The numbers from which `value` is made, but not those in the arguments of a call or in an index."""
    if isinstance(value, ast.Constant):
        return [value] if type(value.value) is int else []
    if isinstance(value, (ast.Call, ast.Subscript)):
        return []
    return [number for part in ast.iter_child_nodes(value) for number in _numbers(part)]


def machine(root: Path) -> list[str]:
    """Only pipelines/machine/ reads /proc and /sys and loads the libraries of the GPU driver."""
    found = []
    for source in sources(root):
        # bench reads the counters of a GPU by nvidia-ml-py while it measures; only bench depends on that package.
        if source.within("pipelines/machine/", "bench/measuring/gpu_use.py"):
            continue
        for node in source.nodes:
            names = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name == "pynvml"]
            elif isinstance(node, ast.ImportFrom) and node.module == "pynvml":
                names = [node.module]
            found += [
                source.breach(node, f"{name.splitlines()[0]}: ask `pipelines.machine`, which alone looks there")
                for name in names
                if name == "pynvml" or _DRIVER.search(name)
            ]
    return found


def imports_by_name(root: Path) -> list[str]:
    """The project's modules and Paddle are not imported by a string, except where there is no other way.

    The other rules could not see imports by a string.
    """
    found = []
    for source in sources(root):
        # The two top packages import their public names on first use; backend/ looks for parts of Paddle that depend on
        # its version.
        if source.within("pipelines/__init__.py", "r3d_fast/__init__.py", "r3d_fast/backend/"):
            continue
        for node in source.nodes:
            if not isinstance(node, ast.Call) or called(node).rpartition(".")[2] not in ("import_module", "__import__"):
                continue
            strings = [part.value for value in node.args for part in ast.walk(value) if isinstance(part, ast.Constant)]
            named = [name for name in strings if str(name).partition(".")[0] in (*PACKAGES, "paddle")]
            found += [source.breach(node, f'"{name}" imported by a string: write it as an import') for name in named]
    return found


# The places that may take the whole config, and why: the verbs, and modules that make, print or edit configs.
WHOLE_CONFIG = {
    "r3d_fast/config/": "it is theirs",
    "r3d_fast/commands/": "they read it for the verbs",
    "r3d_fast/demo/": "it calls the verbs",
    "bench/": "it calls the verbs",
    "r3d_fast/training/train.py": "a verb",
    "r3d_fast/training/trainer.py": "the loop of a verb",
    "r3d_fast/training/folds.py": "it calls a verb for each fold",
    "r3d_fast/evaluation/evaluate.py": "a verb",
    "r3d_fast/prediction/predictor.py": "a verb",
    "r3d_fast/export/export.py": "a verb",
    "r3d_fast/planning/": "it foresees the whole run",
    "r3d_fast/runs/folder.py": "it keeps the config of a run as a file, and compares it with the one that goes on",
}


def whole_config(root: Path) -> list[str]:
    """Only the verbs (train, evaluate, predict, export) and the config's own modules take the whole Config."""
    mend = "take the one spec of it that is needed"
    return [
        source.breach(argument, f"{argument.arg}: {ast.unparse(argument.annotation)}: {mend}")
        for source in sources(root)
        if not source.within(*WHOLE_CONFIG)
        for argument in source.nodes
        if isinstance(argument, ast.arg) and argument.annotation is not None and _is_config(argument.annotation)
    ]


def _is_config(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    return any(dotted(node).rpartition(".")[2] == "Config" for node in ast.walk(annotation))
