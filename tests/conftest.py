from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from clips import write_stamped_video
from loading import LENGTHS, SIZES

from pipelines import VideoIndex
from r3d_fast.compat import import_paddle

# Before any test module says `import paddle`: what Paddle warns of while it is imported is not ours.
import_paddle()


def _real_root() -> Path:
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "clips"
    return Path(os.environ.get("R3D_REAL_CLIPS", default))


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real clips: UCF-101/, ucfTrainTestlist/, odd/."""
    root = _real_root()
    if not (root / "UCF-101").is_dir():
        message = f"no real clips at {root}: set R3D_REAL_CLIPS to the folder that holds UCF-101/ and odd/"
        if os.environ.get("R3D_REQUIRE_REAL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return root


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """12 stamped videos in 3 classes of 3 shapes, one of each class shorter than a clip; 8 to train on, 4 to test."""
    root = tmp_path_factory.mktemp("loader") / "videos"
    for name, size in SIZES.items():
        (root / name).mkdir(parents=True)
        for k, length in enumerate(LENGTHS):
            write_stamped_video(root / name / f"v{k}.avi", num_frames=length, size=size, b_frames=k % 3)
    return VideoIndex.build(root, val_fraction=0.34, workers=0)


@pytest.fixture
def copied(index: VideoIndex, tmp_path: Path) -> VideoIndex:
    """The same videos and index, to damage."""
    shutil.copytree(index.root, tmp_path / "videos")  # keeps the times
    shutil.copy(index.path, tmp_path / "index")
    return VideoIndex.open(tmp_path / "index", tmp_path / "videos")
