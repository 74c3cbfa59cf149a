from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

import clips
import oddities
import pytest

from pipelines.checks.check import Check, ClassVideos, Copies, PartedGroup, Trouble
from pipelines.checks.findings import findings_of
from pipelines.checks.index_check import check_index
from pipelines.errors import INDEX_FULLY
from pipelines.index.video_index import VideoIndex


def write(root: Path, *paths: str, num_frames: int = 6) -> None:
    """Videos at `paths`, each with one frame more than the one before, so that no two are alike."""
    for i, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(root / path, num_frames=num_frames + i)


def said(check: Check) -> dict[str, str]:
    """The texts of the findings, each with its level."""
    return {finding.text: finding.level for finding in findings_of(check)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "data", "train/a/0.avi", "train/a/1.avi", "train/b/2.avi", "test/a/3.avi", "test/b/4.avi")
    return tmp_path / "data"


def test_what_is_in_the_index_is_counted(root: Path) -> None:
    oddities.write_turned(root / "train" / "a" / "turned.mp4", degrees=90)
    (root / "notes.txt").write_text("x")
    (root / "train" / "a" / "still.JPG").write_bytes(b"x")
    (root / "train" / "b" / "cut.avi").write_bytes((root / "train" / "b" / "2.avi").read_bytes()[:-900])
    check = check_index(VideoIndex.build(root, workers=0))
    assert check.splits == {"train": 4, "test": 2}
    assert check.videos == 6
    assert check.classes == (ClassVideos("a", {"train": 3, "test": 1}), ClassVideos("b", {"train": 1, "test": 1}))
    assert check.rule == ""
    assert check.ignored == {".jpg": 1, ".txt": 1}
    assert [(item.name, item.reason) for item in check.left_out] == [("train/b/cut.avi", "truncated")]
    assert check.notes["rotated"] == ("train/a/turned.mp4",)
    assert check.lengths is not None
    assert (check.lengths.lowest, round(check.lengths.low * 25)) == ("train/a/0.avi", 6)
    assert check.decoded is None
    assert (check.unreadable, check.corrupt, check.copies, check.parted_groups) == ((), {}, (), ())


def test_copies_are_found_by_their_bytes(root: Path) -> None:
    shutil.copy(root / "train/a/0.avi", root / "test/a/again.avi")
    shutil.copy(root / "train/a/1.avi", root / "train/b/other.avi")
    shutil.copy(root / "test/b/4.avi", root / "test/b/5.avi")
    check = check_index(VideoIndex.build(root, workers=0))
    assert check.copies == (
        Copies(("test/a/again.avi", "train/a/0.avi"), ("test", "train"), ("a", "a")),
        Copies(("test/b/4.avi", "test/b/5.avi"), ("test", "test"), ("b", "b")),
        Copies(("train/a/1.avi", "train/b/other.avi"), ("train", "train"), ("a", "b")),
    )
    found = {finding.text: finding for finding in findings_of(check)}
    across = found["1 video copied into another split: accuracy on it is no measure"]
    assert (across.level, across.names) == ("problem", ("test/a/again.avi (test) = train/a/0.avi (train)",))
    assert found["1 video copied into another class: one of the labels is wrong"].level == "problem"
    assert found["1 video copied within a split: each copy counts again"].level == "warning"


def test_files_of_the_same_size_and_checksum_are_no_copies_unless_all_bytes_are_the_same(root: Path) -> None:
    path = root / "train/a/0.avi"
    (root / "test/a/forged.avi").write_bytes(forged(path.read_bytes()))
    index = VideoIndex.build(root, workers=0)
    states = {state.path: state for state in index.file_states()}
    one, other = states["train/a/0.avi"], states["test/a/forged.avi"]
    assert (one.size, one.checksum) == (other.size, other.checksum)
    assert check_index(index).copies == ()


def forged(data: bytes) -> bytes:
    """An AVI like that of `data`, with other bytes in its JUNK chunk and yet the same CRC-32.

    A CRC is linear: which bits of 4 bytes have to be turned follows by elimination from what each turns in it.
    """
    junk = data.index(b"JUNK") + 8
    changed = bytearray(data)
    changed[junk] ^= 0xFF
    rows = []
    for bit in range(32):
        turned = bytearray(changed)
        turned[junk + 4 + bit // 8] ^= 1 << bit % 8
        rows.append((zlib.crc32(turned) ^ zlib.crc32(changed), 1 << bit))
    wanted, chosen = zlib.crc32(data) ^ zlib.crc32(changed), 0
    for place in range(32):
        pivot = next(row for row in rows if row[0] >> place & 1)
        rows = [
            (row[0] ^ pivot[0], row[1] ^ pivot[1]) if row[0] >> place & 1 else row for row in rows if row is not pivot
        ]
        if wanted >> place & 1:
            wanted, chosen = wanted ^ pivot[0], chosen ^ pivot[1]
    for bit in range(32):
        changed[junk + 4 + bit // 8] ^= (chosen >> bit & 1) << bit % 8
    return bytes(changed)


def test_the_cuts_of_one_recording_in_two_splits_are_a_problem(tmp_path: Path) -> None:
    write(tmp_path / "data", "train/x/v_x_g01_c01.avi", "train/x/v_x_g02_c01.avi", "test/x/v_x_g01_c02.avi")
    check = check_index(VideoIndex.build(tmp_path / "data", workers=0))
    videos = {"train": "train/x/v_x_g01_c01.avi", "test": "test/x/v_x_g01_c02.avi"}
    assert check.parted_groups == (PartedGroup("x/x/g01", videos),)
    assert said(check)["1 group with videos in several splits"] == "problem"


def test_files_that_are_gone_or_changed_since_are_named(root: Path) -> None:
    index = VideoIndex.build(root, workers=0)
    (root / "train/a/0.avi").unlink()
    with (root / "train/a/1.avi").open("ab") as file:
        file.write(b"more")
    (root / "train/b/2.avi").unlink()
    os.mkfifo(root / "train/b/2.avi")
    write(root, "test/b/new.avi")
    check = check_index(index)
    assert check.unindexed == ("test/b/new.avi",)
    assert [(item.name, item.reason) for item in check.unreadable] == [
        ("train/a/0.avi", "can't be read"),
        ("train/a/1.avi", "changed since it was indexed"),
        ("train/b/2.avi", "not a regular file (FIFO)"),
    ]
    assert said(check)["3 videos can't be read now"] == "problem"


def test_a_full_check_decodes_all_and_tells_how_far_it_is(root: Path) -> None:
    index = VideoIndex.build(root, workers=0)
    told: list[tuple[str, int, int]] = []
    check = check_index(index, full=True, show=lambda *values: told.append(values))
    assert check.decoded == 5
    assert told == [("decoded", k, 5) for k in range(1, 6)]
    assert (check.unreadable, check.corrupt) == ((), {})


def test_a_full_check_finds_damage_that_the_headers_do_not_show(root: Path) -> None:
    """MPEG-4 in AVI is indexed by its headers, so bytes inside of its pictures may be anything."""
    path = root / "train/a/0.avi"
    clips.write_stamped_video(path, num_frames=40, size=(256, 192))
    data = bytearray(path.read_bytes())
    index = VideoIndex.build(root, workers=0)
    packets = index[index.names().index("train/a/0.avi")].packets
    offset, size = int(packets.offset[5]), int(packets.size[5])
    part = slice(offset + size // 3, offset + size // 2)
    data[part] = bytes(byte ^ 0x5A for byte in data[part])
    path.write_bytes(data)
    index = VideoIndex.build(root, workers=0)
    assert check_index(index).corrupt == {}
    check = check_index(index, full=True)
    assert check.corrupt["train/a/0.avi"] >= 1
    assert any(text.endswith("with damaged frames") for text in said(check))


def test_a_full_check_finds_other_bytes_of_the_same_size(root: Path) -> None:
    index = VideoIndex.build(root, workers=0)
    path = root / "train/b/2.avi"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert check_index(index).unreadable == ()
    assert check_index(index, full=True).unreadable == (
        Trouble("train/b/2.avi", "changed since it was indexed", INDEX_FULLY),
    )
