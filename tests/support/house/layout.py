"""Rules about the places, names and lengths of files. Each gives the lines of the tree at `root` that break it."""

from __future__ import annotations

import ast
from collections import defaultdict
from configparser import ConfigParser
from pathlib import Path

from house.source import PACKAGES, Source, sources

MOST_FILES = 12  # in a folder, __init__.py not counted
MOST_LINES = 400  # in a file
# Limits for the functions in training/, whose code must read from top to bottom.
MOST_FUNCTION_LINES, MOST_DEPTH = 60, 4

# The module names that occur in several folders: which folders these are, and why the name means the same in them.
SHARED_NAMES = {
    "check": (
        ("pipelines/checks", "r3d_fast/commands/data"),
        "what is known about a data set, and the command that says it",
    ),
    "class_names": (
        ("pipelines/datasets", "r3d_fast/weights/foreign"),
        "the names of classes: out of a text, and out of the file that goes with foreign weights",
    ),
    "cli": (("bench", "r3d_fast"), "the command line of its package"),
    "config": (("r3d_fast/commands", "r3d_fast/config"), "the commands that show configs, and what they show"),
    "cpu": (("bench/studies", "r3d_fast/acceleration"), "models on the CPU: their graphs, and how fast these are"),
    "demo": (("r3d_fast/commands/data", "r3d_fast/demo"), "the command, and what it runs"),
    "doctor": (("r3d_fast/commands", "r3d_fast/doctor"), "the command, and what it runs"),
    "download": (("r3d_fast/commands/data", "r3d_fast/download"), "the command, and what it runs"),
    "errors": (("pipelines", "r3d_fast"), "the errors of its package, those of r3d_fast above those of pipelines"),
    "export": (("r3d_fast/commands", "r3d_fast/export"), "the command, and what it runs"),
    "findings": (("bench/gpu", "pipelines/checks"), "what a check found out, in words: of a GPU, and of a data set"),
    "folds": (("pipelines/index", "r3d_fast/training"), "folds of a data set: what they are, and training on each"),
    "gpu": (
        ("bench/commands", "r3d_fast/acceleration"),
        "training on a GPU: what makes it fast, and what measures that",
    ),
    "index": (("bench/commands", "r3d_fast/commands/data"), "the command that makes an index, and its speed"),
    "loader": (("bench/commands", "pipelines"), "the loader, and the commands that measure it"),
    "memory": (("pipelines/machine", "r3d_fast/backend"), "the memory of a machine, and what of a batch fits into it"),
    "models": (("bench/studies", "r3d_fast/commands"), "all models: the list of them, and their speed"),
    "options": (("bench/commands", "r3d_fast/commands"), "the options that commands share"),
    "plan": (("bench/gpu", "r3d_fast/planning"), "what is going to be done, before it is"),
    "predict": (("bench/studies", "r3d_fast/commands/predict"), "the command, and the measurement of it"),
    "report": (("r3d_fast/commands", "r3d_fast/report"), "the command, and what it runs"),
    "tables": (("bench/reporting", "r3d_fast/commands"), "results as tables"),
    "train": (
        ("bench/commands", "r3d_fast/commands/train", "r3d_fast/training"),
        "the command, what it runs, speed",
    ),
}
# The tests of the whole house, and of files that are no modules.
HOUSE_TESTS = {
    "test_house",
    "test_packaging",
    "test_docs",
    "test_docs_tour",
    "test_docker",
    "test_slurm",
    "test_kubernetes",
}

_NESTING = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def crowded_folders(root: Path) -> list[str]:
    """A folder has at most 12 files."""
    files = defaultdict(list)
    for source in sources(root, *PACKAGES, "tests"):
        if not source.path.endswith("__init__.py"):
            files[Path(source.path).parent.as_posix()].append(source)
    return [
        f"{folder}/: {len(those)} files, at most {MOST_FILES}: put those of one subject into a folder"
        for folder, those in files.items()
        if len(those) > MOST_FILES
    ]


def shared_names(root: Path) -> list[str]:
    """A module name means the same everywhere in the project."""
    found = []
    for name, modules in _by_name(root).items():
        known, _ = SHARED_NAMES.get(name, ((), ""))
        folders = {Path(module.path).parent.as_posix(): module for module in modules}
        new = [module for folder, module in folders.items() if folder not in known]
        if len(modules) > 1 and new:
            other = next(module for module in modules if module != new[-1])
            what = f"{other.path} has this name too: rename one, or say in SHARED_NAMES why they mean the same"
            found.append(new[-1].breach(1, what))
    return found


def unshared_names(root: Path) -> list[str]:
    """SHARED_NAMES names only modules that exist."""
    modules = _by_name(root)
    return [
        f"SHARED_NAMES: {name}: no {folder}/{name}.py any more: take it out"
        for name, (folders, _) in SHARED_NAMES.items()
        for folder in folders
        if folder not in {Path(module.path).parent.as_posix() for module in modules[name]}
    ]


def _by_name(root: Path) -> dict[str, list[Source]]:
    modules: dict[str, list[Source]] = defaultdict(list)
    for source in sources(root):
        name = Path(source.path).stem
        if not name.startswith("__"):
            modules[name].append(source)
    return modules


def long_files(root: Path) -> list[str]:
    """A file has at most 400 lines."""
    return [
        source.breach(MOST_LINES + 1, f"{lines} lines, at most {MOST_LINES}: split it by subject")
        for source in sources(root, *PACKAGES, "tests")
        if (lines := len(source.text.splitlines())) > MOST_LINES
    ]


def long_functions(root: Path) -> list[str]:
    """A function in training/ or learning/ has at most 60 lines with signature and docstring, and at most 4 blocks."""
    found = []
    for source in sources(root, "r3d_fast/training", "r3d_fast/learning"):
        for node in source.nodes:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                found.append(
                    source.breach(node, f"{node.name}: {lines} lines, at most {MOST_FUNCTION_LINES}: split it")
                )
            if (deep := depth(node)) > MOST_DEPTH:
                found.append(source.breach(node, f"{node.name}: {deep} blocks deep, at most {MOST_DEPTH}: split it"))
    return found


def depth(node: ast.AST) -> int:
    """How deeply blocks are nested in the body of `node`; an `elif` is as deep as its `if`."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        elif_of = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, depth(child) + (isinstance(child, _NESTING) and not elif_of))
    return deepest


def homeless_tests(root: Path) -> list[str]:
    """A test file tests/X/test_y.py or tests/X/test_y_topic.py has its module X/y.py.

    The files in tests/faults have none: a fault concerns the whole program.
    """
    return [
        source.breach(1, f"no module {' or '.join(wanted)}: name it after the module that it tests")
        for source in sources(root, "tests")
        if not source.within("tests/support/", "tests/faults/") and Path(source.path).name.startswith("test_")
        if (wanted := _tested(source, root))
    ]


def _tested(source: Source, root: Path) -> list[str]:
    """The modules that a test file could test, if none of them exists; else nothing, as for the tests of the rules."""
    place = Path(source.path).relative_to("tests")
    if place.with_suffix("").as_posix() in HOUSE_TESTS:
        return []
    words = place.stem.removeprefix("test_").split("_")
    wanted = [(place.parent / ("_".join(words[:n]) + ".py")).as_posix() for n in range(len(words), 0, -1)]
    there = (root / path for path in wanted)
    return [] if any(path.is_file() or path.with_suffix(".sh").is_file() for path in there) else wanted


def unlisted_packages(root: Path) -> list[str]:
    """setup.cfg lists every folder that has an __init__.py, so that the wheel contains it, and no other folder."""
    config = ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split()) - set(config["options"].get("package_dir", "").split())
    there = {
        Path(source.path).parent.as_posix().replace("/", ".")
        for source in sources(root)
        if source.path.endswith("__init__.py")
    }
    holding = {path.parent for package in PACKAGES for path in (root / package).rglob("*.py")}
    unmarked = sorted(folder for folder in holding if not (folder / "__init__.py").exists())
    return [
        *(f"{folder.relative_to(root).as_posix()}/: no __init__.py: add one" for folder in unmarked),
        *(f"setup.cfg: [options] packages lacks {name}: add it" for name in sorted(there - listed)),
        *(f"setup.cfg: [options] packages has {name}, no folder here: remove it" for name in sorted(listed - there)),
    ]
