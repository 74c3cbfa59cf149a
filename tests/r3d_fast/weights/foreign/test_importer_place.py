"""`import-weights` onto disks that can't take its file: one line, and what was there stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from small_disk import mounted
from written import names

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.models.architectures import build_model

paddle = import_paddle()


@pytest.mark.parametrize(
    ("options", "reason"), [("size=64k", "No space left on device"), ("ro", "Read-only file system")]
)
def test_a_disk_that_can_not_take_the_file_is_said_and_keeps_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, reason: str
) -> None:
    file = tmp_path / "model.pdparams"
    paddle.save(build_model("r3d18_reference", num_classes=8, width=4).state_dict(), str(file))
    with mounted(tmp_path / "disk", options) as disk:
        out = disk / "w.safetensors"
        if options != "ro":
            out.write_text("mine")
        code, said, err = tiny.said(capsys, "import-weights", file, "-o", out)
        assert (code, said) == (2, "")
        assert err == f"r3d-fast: {out}: can't be written: {reason}; what was there is as it was\n"
        assert names(disk) == ([] if options == "ro" else ["w.safetensors"])
