from __future__ import annotations

import os
from pathlib import Path

import pytest

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
