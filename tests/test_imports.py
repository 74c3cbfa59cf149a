from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "pipelines": {"r3d_fast", "bench", "paddle", "yaml", "click"},
    "r3d_fast": {"bench"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_dependencies_point_one_way(package: str) -> None:
    files = sorted((REPO / package).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(REPO)): imported(path) & FORBIDDEN[package] for path in files}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_only_decode_and_the_indexing_files_use_pyav() -> None:
    users = {path.name for path in (REPO / "pipelines").rglob("*.py") if "av" in imported(path)}
    assert users == {
        "decoder.py", "demuxer.py", "file_checks.py", "packet_reader.py", "probe.py", "remuxer.py", "scaler.py",
        "sequence.py",
    }  # fmt: skip


@pytest.mark.parametrize("module", ["r3d_fast", "bench"])
def test_help_answers_without_the_heavy_imports(module: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']\n"
        f"from {module}.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'paddle', 'nvidia', 'av', 'numpy', 'pydantic', 'rich', 'yaml', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_names_of_the_packages_are_what_they_say_whatever_was_imported_before() -> None:
    code = (
        "import r3d_fast.training.train, r3d_fast.evaluation.evaluate\n"
        "from r3d_fast import Predictor, build_model, evaluate, load_config, train\n"
        "assert all(map(callable, (Predictor, build_model, evaluate, load_config, train)))\n"
        "import pipelines\n"
        "assert all(getattr(pipelines, name) for name in pipelines.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
