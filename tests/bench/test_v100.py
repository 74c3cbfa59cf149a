"""The script that measures on a bare server: it makes an environment where there is none, then calls `bench gpu`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "v100.sh"
# Stands for Python: it says its version, and makes an environment in which pip and, once installed, bench note how they
# are called. pip fails where FAILING, a pattern, says so.
PYTHON = """#!/bin/sh
case "$1" in -c) echo "$VERSION"; exit ;; esac
echo "python3 $*" >> "$CALLS"
mkdir -p "$3/bin"
cat > "$3/bin/pip" <<'END'
#!/bin/sh
echo "pip $*" >> "$CALLS"
case "$*" in *"$FAILING"*) echo "no index" >&2; exit 1 ;; esac
case "$*" in *--editable*) printf '#!/bin/sh\\necho "bench $*" >> "$CALLS"\\nexit 3\\n' > "$(dirname "$0")/bench"
    chmod +x "$(dirname "$0")/bench" ;; esac
END
chmod +x "$3/bin/pip"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with the script alone, in which `python3` is the stand-in."""
    root = tmp_path / "check out"
    (root / "bench").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "bench")
    (tmp_path / "bin").mkdir()
    for data in ("x", "UCF 101"):
        (tmp_path / data).mkdir()
    (tmp_path / "bin" / "python3").write_text(PYTHON, encoding="utf-8")
    (tmp_path / "bin" / "python3").chmod(0o755)
    return root


def run(
    root: Path, *arguments: str, version: str = "3.11-final", failing: str = "nothing"
) -> tuple[int, str, list[str]]:
    """(exit code, stderr, the calls of the stand-ins)."""
    calls = root.parent / "calls"
    calls.unlink(missing_ok=True)
    path = os.pathsep.join([str(root.parent / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "CALLS": str(calls), "VERSION": version, "FAILING": failing}
    environment.pop("PYTHON", None)
    command = ["bash", str(root / "bench" / "v100.sh"), *arguments]
    done = subprocess.run(
        command, env=environment, cwd=root.parent, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr, calls.read_text().splitlines() if calls.exists() else []


def test_the_script_is_well_formed() -> None:
    subprocess.run([Path(sys.executable).parent / "shellcheck", SCRIPT], check=True)
    assert "set -euo pipefail" in SCRIPT.read_text(encoding="utf-8").splitlines()[:4]
    assert os.access(SCRIPT, os.X_OK)


def test_it_installs_what_a_v100_needs_once_and_hands_everything_on(root: Path) -> None:
    code, _, calls = run(root, "--full", "UCF 101")
    installed = [
        f"python3 -m venv {root}/.venv-v100",
        "pip install --quiet --upgrade pip",
        f"pip install --editable {root}[cuda11,test]",
    ]
    assert (code, calls) == (3, [*installed, "bench gpu --full UCF 101"])  # bench's own exit code
    assert run(root, "x") == (3, "", ["bench gpu x"])


@pytest.mark.parametrize("failing", ["--upgrade pip", "--editable"])
def test_an_installation_that_fails_is_tried_again(failing: str, root: Path) -> None:
    code, stderr, calls = run(root, "x", failing=failing)
    assert code == 4
    assert stderr.splitlines()[-1].startswith("v100.sh: ")
    assert "bench gpu x" not in calls
    assert run(root, "x")[2][-1] == "bench gpu x"


@pytest.mark.parametrize("version", ["3.10", "3.13", "3.14"])
def test_a_python_without_wheels_is_refused_before_anything_is_made(version: str, root: Path) -> None:
    code, stderr, calls = run(root, "x", version=f"{version}-final")
    assert (code, calls) == (4, [])
    assert stderr == (
        f"v100.sh: python3 is Python {version}; a V100 needs 3.11 or 3.12: set PYTHON, such as PYTHON=python3.12\n"
    )
    assert not (root / ".venv-v100").exists()


def test_the_release_candidate_of_ubuntu_22_04_is_refused(root: Path) -> None:
    code, stderr, calls = run(root, "x", version="3.11-candidate")
    assert (code, calls) == (4, [])
    assert stderr == (
        "v100.sh: python3 is a test version of Python 3.11, as Ubuntu 22.04 has it: docs/gpu.md names a released one\n"
    )


def test_without_the_package_for_environments_its_name_is_said(root: Path) -> None:
    (root.parent / "bin" / "python3").write_text('#!/bin/sh\n[ "$1" = -c ] && echo "$VERSION"\n', encoding="utf-8")
    code, stderr, _ = run(root, "x", version="3.12-final")
    assert (code, stderr.splitlines()[-1]) == (
        4,
        f"v100.sh: {root}/.venv-v100: can't be made; Debian, Ubuntu: sudo apt-get install python3.12-venv",
    )


def test_this_python_says_its_version_in_that_form(root: Path) -> None:
    (command,) = re.findall(r"-c '(.*)'\)", SCRIPT.read_text(encoding="utf-8"))
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == f"3.{sys.version_info.minor}-{sys.version_info.releaselevel}\n"


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",), ("--full", "--help"), ("x", "-h")])
def test_help_installs_nothing(arguments: tuple[str, ...], root: Path) -> None:
    assert run(root, *arguments) == (0, "", [])


def test_an_environment_for_something_else_is_left_alone(root: Path) -> None:
    other = root / ".venv" / "bin" / "bench"
    other.parent.mkdir(parents=True)
    other.write_text('#!/bin/sh\necho wrong >> "$CALLS"\n', encoding="utf-8")
    other.chmod(0o755)
    _, stderr, calls = run(root, "x")
    assert calls[0] == f"python3 -m venv {root}/.venv-v100"
    assert "wrong" not in calls
    assert stderr == f"v100.sh: installing into {root}/.venv-v100: 3.1 GB to download, 7.6 GB on the disk\n"


@pytest.mark.parametrize("arguments", [("no such",), ("--full", "no such"), ("--dry-run", "no such")])
def test_videos_that_are_not_there_are_told_before_anything_is_installed(
    arguments: tuple[str, ...], root: Path
) -> None:
    expected = "v100.sh: no such: no such folder; expected one with videos\n"
    assert run(root, *arguments) == (3, expected, [])


def test_a_dry_run_installs_nothing(root: Path) -> None:
    assert run(root, "x", "--dry-run") == (0, "", [])
    run(root, "x")
    assert run(root, "x", "--dry-run")[2] == ["bench gpu x --dry-run"]


def test_through_a_link_it_finds_its_checkout(root: Path) -> None:
    (root.parent / "elsewhere" / "bench").mkdir(parents=True)
    (root.parent / "elsewhere" / "bench" / "v100.sh").symlink_to(root / "bench" / "v100.sh")
    assert run(root.parent / "elsewhere", "x")[2][0] == f"python3 -m venv {root}/.venv-v100"
    assert run(root, "x")[2] == ["bench gpu x"]
