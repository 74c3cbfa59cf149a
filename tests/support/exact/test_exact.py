"""The proof itself finds what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import stamped_frame, write_stamped_video
from damage.mutations import MUTATIONS, mutated

from exact.truth import Truth, truth_of, upright
from exact.verdicts import EXACT, WRONG, compare, judge, judge_cut
from pipelines.video.probe import probe_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_stamped_video(tmp_path / "v.avi", num_frames=12)


def test_a_frame_that_is_off_by_one_level_is_wrong(video: Path) -> None:
    truth = truth_of(video)
    assert judge(video, truth, 0).mark == EXACT
    truth.frames[7][5, 6, 1] ^= 1
    verdict = judge(video, truth, 0)
    assert verdict.mark == WRONG
    assert verdict.reason.startswith("frame 7 of 12 differs")


def test_another_count_size_or_a_refused_file_is_wrong(video: Path) -> None:
    record, truth = probe_video(video), truth_of(video)
    assert compare(record, Truth(truth.frames[:-1]), 0).reason == "12 frames instead of 11"
    assert compare(replace(record, height=95), truth, 0).mark == WRONG
    video.write_bytes(b"no video")
    assert judge(video, truth, 0).mark == WRONG


def test_a_cut_file_has_to_be_refused_unless_it_is_allowed(video: Path) -> None:
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 7 // 10])
    truth = truth_of(video)
    assert 0 < len(truth.frames) < 12
    assert judge_cut(video, truth, 12, 0, allow_partial=False).reason.startswith("refused, truncated")


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_picture_is_turned_as_the_display_matrix_says(turns: int, mirrored: bool) -> None:
    stored = stamped_frame(3)
    one = 1 << 16
    a, b, c, d = [(one, 0, 0, one), (0, -one, one, 0), (-one, 0, 0, -one), (0, one, -one, 0)][turns]
    if mirrored:
        a, c = -a, -c  # x of what is shown
    matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    wanted = np.rot90(stored, turns)
    assert np.array_equal(upright(stored, matrix), wanted[:, ::-1] if mirrored else wanted)


def test_the_same_seed_damages_the_same_way() -> None:
    data = bytes(range(256)) * 40
    for kind in MUTATIONS:
        assert mutated(data, kind, 5) == mutated(data, kind, 5)
        assert any(mutated(data, kind, seed) != data for seed in range(3))
