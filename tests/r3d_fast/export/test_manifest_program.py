"""The program of docs/export.md predicts from r3d_fast.json alone what `r3d-fast predict` predicts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from clips import write_stamped_video
from pages import blocks, read
from untrained import write_weights

from r3d_fast.export.export import export
from r3d_fast.prediction.predictor import Predictor

FIRST = 'folder, video = "demo/exported", "demo/data/test/rotate_left/000.avi"'
# It runs where neither r3d_fast nor pipelines can be imported.
ALONE = "import sys; sys.modules['r3d_fast'] = sys.modules['pipelines'] = None; exec(open('program.py').read())"


@pytest.fixture(scope="module")
def program() -> str:
    (found,) = [one.text for one in blocks("docs/export.md", read("docs/export.md")) if one.language == "python"]
    return found


def test_the_program_has_25_lines_and_names_no_setting_of_ours(program: str) -> None:
    lines = [line for line in program.splitlines() if line and not re.match("import|from", line)]
    assert len(lines) <= 25
    assert "r3d_fast" not in program.replace("r3d_fast.json", "")


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        (("clip.sampling=segments", "clip.stride=1"), 40),
        (("clip.sampling=segments", "clip.stride=1", "clip.short=repeat"), 5),
        (("clip.sampling=consecutive", "clip.stride=2"), 40),
        (("clip.sampling=consecutive", "clip.stride=2", "clip.short=loop"), 9),
        (("clip.sampling=consecutive", "clip.stride=3", "clip.short=edge"), 9),
        (("clip.sampling=consecutive", "augment.value_max=255", "augment.mean=[114.8, 107.7, 99.5]"), 31),
    ],
    ids=str,
)
def test_the_program_predicts_what_r3d_fast_predicts(
    program: str, settings: tuple[str, ...], frames: int, tmp_path: Path
) -> None:
    write_weights(tmp_path / "w.safetensors", "r3d10", 8, *settings)
    export(tmp_path / "w.safetensors", tmp_path / "out")
    video = tmp_path / "v.avi"
    write_stamped_video(video, num_frames=frames, size=(140, 128))  # 35 px wide once resized: no pixel is its centre
    assert FIRST in program
    (tmp_path / "program.py").write_text(program.replace(FIRST, f"folder, video = 'out', {str(video)!r}"))
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (item,) = Predictor(tmp_path / "out", device="cpu")([video])
    last = done.stdout.splitlines()[-1]  # Paddle prints lines of its own before it
    found = re.fullmatch(r"(.+) ([\d.]+) %", last)
    assert found is not None, done.stdout
    # Pillow's and DALI's antialiased resize differ by some of 255, so two classes may change places if they are equal.
    shares = dict(item.classes)
    assert [float(found[2])] * 2 == pytest.approx([100 * shares[found[1]], 100 * max(shares.values())], abs=0.6)
