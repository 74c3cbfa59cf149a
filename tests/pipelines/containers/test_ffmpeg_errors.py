from __future__ import annotations

import errno
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import av
import av.error
import clips
import pytest

from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.errors import VideoError
from pipelines.video.decoder import FrameReader
from pipelines.video.probe import probe_video
from pipelines.video.proof import decode_fully
from pipelines.video.sequence import FrameSequence

RAW = re.compile(r"Errno|avcodec|\(\)|processing input|last error log|\d{6,}")


@pytest.mark.parametrize("codec", ["h264", "vp8", "vp9", "mpeg4"])
def test_a_packet_that_the_decoder_refuses_is_told_in_words(codec: str) -> None:
    with pytest.raises(av.error.FFmpegError) as refused:
        av.CodecContext.create(codec, "r").decode(av.Packet(b"\xff" * 100))
    assert "avcodec_send_packet()" in str(refused.value)  # what FFmpeg says itself
    assert reason_of(refused.value) == "the decoder refused a packet: invalid data"


def test_each_kind_of_error_has_its_words(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(av.error.FFmpegError) as no_video:
        av.open(str(tmp_path / "text.avi"))
    assert reason_of(no_video.value) == "invalid data"
    with pytest.raises(av.error.FFmpegError) as gone:
        av.open(str(tmp_path / "gone.avi"))
    assert reason_of(gone.value) == "No such file or directory"
    for code in (*(kind.value for kind in av.error.ErrorType), errno.EINVAL, errno.ENOMEM, errno.EIO, 987654):
        with pytest.raises(av.error.FFmpegError) as error:
            av.error.err_check(-code, "avcodec_receive_frame()")
        words = reason_of(error.value)
        assert words.startswith("the decoder gave no frame: ")
        assert not RAW.search(words.replace("987654", ""))
    assert reason_of(OSError(errno.EIO, "Input/output error", "x")) == "Input/output error"
    assert reason_of(ValueError("odd")) == "odd"
    assert reason_of(MemoryError()) == "MemoryError"


@pytest.mark.parametrize(
    ("codec", "name"), [("h264", "a.mp4"), ("h264", "a.mkv"), ("vp9", "a.webm"), ("mpeg4", "a.avi")]
)
def test_no_text_of_ffmpeg_is_in_what_is_said_of_a_damaged_video(codec: str, name: str, tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / name, codec=codec, size=(192, 128))
    record, whole = probe_video(path), path.read_bytes()
    said: set[str] = set()
    for seed in range(8):
        damaged, dice = bytearray(whole), Random(seed)
        for _ in range(60):
            at = dice.randrange(len(whole) // 4, len(whole) * 7 // 8)
            damaged[at : at + 40] = dice.randbytes(40)
        path.write_bytes(damaged)
        changed = replace(record, mtime_ns=path.stat().st_mtime_ns)
        with FrameSequence(path) as video:
            for read in (
                lambda changed=changed: FrameReader(recovers=False).read(changed, range(record.num_frames)),
                lambda video=video: list(video),
                lambda: said.add(decode_fully(str(path)).error),
            ):
                try:
                    read()
                except VideoError as error:
                    said.add(str(error).removeprefix(f"{path}: "))
    assert not [text for text in said if RAW.search(text)]
    assert any("refused a packet" in text for text in said) or name not in ("a.mp4", "a.webm")
