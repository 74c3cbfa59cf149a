"""The rules of the house: what may import what, what is done in one place only, where files lie.

Which rule says what is in the first line of each function of tests/support/house, and in setup.cfg at `importlinter`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from house import duties, layout
from house.source import PACKAGES

REPO = Path(__file__).resolve().parent.parent
Rule = Callable[[Path], list[str]]

RULES: list[Rule] = [
    duties.renames,
    duties.exit_codes,
    duties.machine,
    duties.imports_by_name,
    duties.whole_config,
    layout.crowded_folders,
    layout.shared_names,
    layout.unshared_names,
    layout.long_files,
    layout.long_functions,
    layout.homeless_tests,
    layout.unlisted_packages,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_to(rule: Rule) -> None:
    assert rule(REPO) == []


def lines(count: int, indent: str = "") -> str:
    return "".join(f"{indent}line_{k} = {k}\n" for k in range(count))


def nested(count: int) -> str:
    ifs = "".join(f"{'    ' * k}if {k}:\n" for k in range(1, count + 1))
    return f"def step():{'  # here' * (count > 4)}\n{ifs}{'    ' * (count + 1)}pass\n"


# A rule, what it says, and the files of a tree that breaks it in the lines that end in `# here`, and in no other.
BREACHES: list[tuple[Rule, str, dict[str, str]]] = [
    (
        duties.renames,
        "write by `pipelines.output`",
        {
            "pipelines/output/files.py": "import os\nbuilding.replace(target)\nos.replace(a, b)",
            "r3d_fast/runs/folder.py": "text.replace('a', 'b')\nreplace(spec, size=2)\nhalf.rename(whole)  # here",
            "r3d_fast/metrics.py": "(a / b).replace(a / c)  # here\nnow.replace(hour=1)\nc.replace(target=d)  # here",
            "pipelines/index/database.py": "os.rename(a, b)  # here\nf = os.replace  # here\nshutil.move(a, b)  # here",
            "bench/cli.py": "from os import path, replace  # here",
        },
    ),
    (
        duties.exit_codes,
        "take it from `pipelines.errors.ExitCode`",
        {
            "pipelines/errors.py": "class DataError(Exception):\n    exit_code = 3",
            "r3d_fast/cli.py": "sys.exit(3)  # here\nsys.exit(run(1))\nsys.exit(codes[1])\nsys.exit(ExitCode.OK)",
            "r3d_fast/console.py": "raise SystemExit(2 if bad else ExitCode.OK)  # here\nctx.exit(1)  # here",
            "r3d_fast/runs/folder.py": "class Full(Exception):\n    exit_code: int = 4  # here",
            "r3d_fast/ranks/group.py": "Lost(exit_code=6)  # here\nos._exit(128 + n)  # here\nself.exit_code = code",
            "r3d_fast/ranks/control.py": "def leave(message, exit_code=5):  # here\n    pass",
        },
    ),
    (
        duties.machine,
        "ask `pipelines.machine`",
        {
            "pipelines/machine/nvidia.py": "ctypes.CDLL('libcuda.so.1')\nPath('/proc/cpuinfo')",
            "r3d_fast/doctor/doctor.py": "Path('/proc/cpuinfo')  # here\nPath('/sys/fs/cgroup')  # here",
            "r3d_fast/backend/paddle.py": "ctypes.CDLL('libnvidia-ml.so.1')  # here\nctypes.CDLL(None)\nPath('/probe')",
            "bench/studies/cpu.py": "import pynvml  # here\nopen(f'/proc/{pid}/status')  # here",
        },
    ),
    (
        duties.imports_by_name,
        "imported by a string: write it as an import",
        {
            "r3d_fast/__init__.py": "import_module(f'r3d_fast.{name}')",
            "r3d_fast/cli.py": "import_module('yaml')\nimport_module(f'r3d_fast.commands.{name}')  # here",
            "bench/cli.py": "importlib.import_module('paddle.nn')  # here\n__import__('pipelines')  # here",
        },
    ),
    (
        duties.whole_config,
        "take the one spec of it that is needed",
        {
            "r3d_fast/training/train.py": "def train(config: Config): ...",
            "r3d_fast/config/config.py": "def dump(config: Config): ...",
            "r3d_fast/learning/ema.py": "def a(b: EmaSpec) -> Config: ...\ndef c(d, *, e: Config | None): ...  # here",
            "r3d_fast/loaders.py": "class Loader:\n    def __init__(self, c: 'config.Config'): ...  # here",
        },
    ),
    (
        layout.shared_names,
        "has this name too: rename one, or say in SHARED_NAMES why they mean the same",
        {
            "pipelines/dali/routing.py": "",
            "r3d_fast/ranks/routing.py": "# here",
            "r3d_fast/cli.py": "",
            "bench/cli.py": "",
            "pipelines/cli.py": "# here",
            "bench/__init__.py": "",
            "r3d_fast/__init__.py": "",
        },
    ),
    (
        layout.long_files,
        "lines, at most 400: split it",
        {
            "pipelines/loader.py": f"{lines(400)}more = 1  # here",
            "r3d_fast/cli.py": lines(400),
            "tests/test_house.py": f"{lines(400)}more = 1  # here\n{lines(100)}",
        },
    ),
    (
        layout.long_functions,
        "split it",
        {
            "r3d_fast/training/train.py": f"def train():  # here\n{lines(60, '    ')}",
            "r3d_fast/learning/ema.py": f"def update():\n{lines(59, '    ')}",
            "r3d_fast/learning/step.py": nested(5),
            "r3d_fast/training/state.py": nested(4),
            "r3d_fast/learning/mixing.py": "def mix(x):\n    if x: pass\n" + "    elif x: pass\n" * 5,
            "r3d_fast/cli.py": f"def main():\n{lines(80, '    ')}",
        },
    ),
    (
        layout.homeless_tests,
        "no module pipelines/video/sampler.py: name it after the module that it tests",
        {
            "pipelines/sampler.py": "",
            "bench/v100.sh": "",
            "tests/pipelines/test_sampler_order.py": "",
            "tests/pipelines/video/test_sampler.py": "# here",
            "tests/bench/test_v100.py": "",
            "tests/test_packaging.py": "",
            "tests/support/videos/test_clips.py": "",
        },
    ),
]


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("rule", "says", "files"), BREACHES, ids=[rule.__name__ for rule, _, _ in BREACHES])
def test_a_rule_names_the_lines_that_break_it(rule: Rule, says: str, files: dict[str, str], tmp_path: Path) -> None:
    write_tree(tmp_path, files)
    wrong = [
        f"{name}:{number}"
        for name, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if line.endswith("# here")
    ]
    found = rule(tmp_path)
    assert sorted(breach.partition(": ")[0] for breach in found) == sorted(wrong)
    assert all(says in breach for breach in found)


def test_a_crowded_folder_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"r3d_fast/prediction/{name}.py": "" for name in ("__init__", *"abcdefghijklm")})
    write_tree(tmp_path, {f"tests/r3d_fast/models/test_{name}.py": "" for name in "abcdefghijkl"})
    says = "r3d_fast/prediction/: 13 files, at most 12: put those of one subject into a folder"
    assert layout.crowded_folders(tmp_path) == [says]


def test_a_name_that_is_shared_no_more_is_named(tmp_path: Path) -> None:
    shared = layout.SHARED_NAMES.items()
    write_tree(tmp_path, {f"{folder}/{name}.py": "" for name, (folders, _) in shared for folder in folders})
    assert layout.unshared_names(tmp_path) == []
    (tmp_path / "bench" / "cli.py").unlink()
    assert layout.unshared_names(tmp_path) == ["SHARED_NAMES: cli: no bench/cli.py any more: take it out"]


def test_what_setup_cfg_leaves_out_of_the_packages_is_named(tmp_path: Path) -> None:
    setup = "[options]\npackages =\n    pipelines\n    bench.gone\n"
    files = {"setup.cfg": setup, "pipelines/__init__.py": "", "r3d_fast/__init__.py": "", "bench/chart.py": ""}
    write_tree(tmp_path, files)
    assert layout.unlisted_packages(tmp_path) == [
        "bench/: no __init__.py: add one",
        "setup.cfg: [options] packages lacks r3d_fast: add it",
        "setup.cfg: [options] packages has bench.gone, no folder here: remove it",
    ]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-P", "-c", code, "--no-cache", "--no-logo"]
    environment = {"PYTHONPATH": str(root), "COLUMNS": "400"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_imports_keep_the_contracts() -> None:
    done = lint_imports(REPO)
    assert done.returncode == 0, done.stdout + done.stderr


LAZY = "\ndef later() -> None:\n    from r3d_fast.cli import main\n"
TYPED = "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipelines.video.probe import probe_video\n"


# A file of ours, an import added to it, the contract that this breaks, and what to do, as it is said.
FORBIDDEN = [
    ("pipelines/video/packets.py", "import r3d_fast.metrics\n", "The packages import only downwards", "down into"),
    ("pipelines/bitstreams/mpeg4.py", "import pipelines.loader\n", "The floors of pipelines", "from floors below"),
    ("r3d_fast/version.py", LAZY, "The floors of r3d_fast", "from floors below"),
    ("r3d_fast/metrics.py", "import r3d_fast.console\n", "The floors of r3d_fast", "from floors below"),
    ("bench/measuring/turns.py", "import bench.reporting.text\n", "The floors of bench", "from floors below"),
    ("r3d_fast/newcomer.py", "", "The floors of r3d_fast", "gets a floor in setup.cfg"),
    ("pipelines/video/record.py", TYPED, "No circle between files or folders", "a module below both"),
    ("r3d_fast/cli.py", "from r3d_fast import train\n", "Nobody inside imports the faces", "from the module"),
    ("bench/cli.py", "from pipelines import ClipLoader\n", "Nobody inside imports the faces", "from the module"),
    ("r3d_fast/learning/step.py", "import paddle\n", "Only backend imports Paddle", "Call `import_paddle()`"),
    ("r3d_fast/console.py", "from paddle.nn import Layer\n", "Only backend imports Paddle", "r3d_fast.backend.layers"),
    ("pipelines/loader.py", "import yaml\n", "pipelines needs no Paddle, no YAML", "Do it in r3d_fast"),
    ("pipelines/sampler.py", "import av\n", "Only these files of pipelines read videos", "Ask pipelines.video"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with every import of FORBIDDEN added."""
    root = tmp_path_factory.mktemp("broken")
    for package in PACKAGES:
        shutil.copytree(REPO / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(REPO / "setup.cfg", root)
    for path, code, _, _ in FORBIDDEN:
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(code)
    return root


@pytest.fixture(scope="module")
def complaint(broken: Path) -> str:
    """What is said of it."""
    done = lint_imports(broken)
    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.mark.parametrize(("path", "code", "contract", "mend"), FORBIDDEN)
def test_an_import_that_breaks_a_contract_is_named(
    path: str, code: str, contract: str, mend: str, broken: Path, complaint: str
) -> None:
    verdicts, _, details = complaint.partition("Broken contracts")
    assert re.search(rf"^{contract}.* BROKEN", verdicts, re.M)
    (said,) = re.findall(rf"^{contract}.*\n-+\n((?:.*\n(?!-----))*)", details, re.M)
    assert mend in said
    if contract.startswith("No circle"):
        assert ".record -> .probe (1 import)" in said
    elif code:
        importer = path.removesuffix(".py").replace("/", ".")
        line = len((broken / path).read_text(encoding="utf-8").splitlines())
        assert re.search(rf"{importer} -> \S+ \((.*, )?l\.{line}\)", said)
    else:
        assert "newcomer" in said


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("module", ["r3d_fast", "bench"])
def test_help_answers_without_the_heavy_imports(module: str) -> None:
    done = python(
        f"import sys; sys.argv = ['x', '--help']\n"
        f"from {module}.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'paddle', 'nvidia', 'av', 'numpy', 'pydantic', 'rich', 'yaml', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_names_of_the_packages_are_what_they_say_whatever_was_imported_before() -> None:
    done = python(
        "import r3d_fast.training.train, r3d_fast.evaluation.evaluate\n"
        "from r3d_fast import Predictor, build_model, evaluate, load_config, train\n"
        "assert all(map(callable, (Predictor, build_model, evaluate, load_config, train)))\n"
        "import pipelines\n"
        "assert all(getattr(pipelines, name) for name in pipelines.__all__)\n"
    )
    assert done.returncode == 0, done.stderr
