from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
from clips import write_classes, write_stamped_video
from damage.forged_index import forge, read_all
from faulty_reads import FaultyReads

from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import UsageError
from pipelines.index.known_bad import BadVideo, KnownBad
from pipelines.index.video_index import VideoIndex, write_index


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", 4, num_frames=6)


def built(root: Path, **options: object) -> tuple[VideoIndex, int]:
    """(index, files that were looked at)."""
    calls: list[int] = []
    index = VideoIndex.build(root, progress=lambda done, total: calls.append(done), **options)  # type: ignore[arg-type]
    read_all(index)
    return index, len(calls)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_file_that_an_error_of_the_system_left_out_is_there_the_next_time(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "library").mkdir()
    faults = FaultyReads(tmp_path / "library", monkeypatch)
    faults.begin("a/v0.avi", number)
    index, looked = built(root, workers=1)
    (left_out,) = index.quarantined
    assert (left_out.path, os.strerror(number) in left_out.detail, len(index), looked) == ("a/v0.avi", True, 3, 4)
    assert faults.count
    assert built(root, workers=1)[0].quarantined == [left_out]
    faults.end()
    index, looked = built(root, workers=1)
    assert (index.quarantined, len(index), looked) == ([], 4, 1)


def test_what_the_bytes_prove_is_looked_at_again_only_when_that_is_asked_for(root: Path) -> None:
    (root / "a" / "bad.avi").write_bytes(b"no video")
    assert built(root, workers=0)[1] == 5
    assert built(root, workers=0)[1] == 0
    index, looked = built(root, workers=0, retry=True)
    assert (looked, [item.path for item in index.quarantined]) == (1, ["a/bad.avi"])
    assert "retry" not in index.options


def enter(index: VideoIndex, path: str) -> KnownBad:
    """Let a video be one that took down the processes that decode it."""
    known = KnownBad(index.path)
    known.add(BadVideo.of_file(index.root, path, None, "crashes the decoder", "three times"))
    return known


def test_a_known_bad_video_is_looked_at_again_and_leaves_the_splits_if_its_bytes_prove_it(root: Path) -> None:
    index, _ = built(root, workers=0)
    file = root / "a" / "v0.avi"
    status = file.stat()
    file.write_bytes(bytes(status.st_size))  # of the same size and time
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert built(root, workers=0)[1] == 0
    known = enter(index, "a/v0.avi")
    enter(index, "b/v1.avi")
    again, looked = built(root, workers=0)
    assert (looked, len(again), [item.path for item in again.quarantined]) == (2, 3, ["a/v0.avi"])
    assert [item.path for item in known.entries()] == ["b/v1.avi"]  # nothing proves this one
    assert again.known_bad == {again.names().index("b/v1.avi"): "crashes the decoder: three times"}


def test_all_that_was_left_out_is_tried_again(root: Path) -> None:
    index, _ = built(root, workers=0)
    known = enter(index, "b/v1.avi")
    again, looked = built(root, workers=0, retry=True)
    assert (looked, again.known_bad, known.entries()) == (0, {}, [])
    assert len(again) == 4


def test_another_acceptance_looks_at_all_files_again(root: Path) -> None:
    assert built(root, workers=0)[1] == 4
    assert built(root, workers=0, allow_partial=True)[1] == 4
    assert built(root, workers=0, allow_partial=True)[1] == 0


def test_rows_of_the_old_index_are_taken_over_in_the_order_of_the_new_one(root: Path) -> None:
    built(root, workers=0)
    write_stamped_video(root / "a" / "a.avi", num_frames=7)
    (root / "b" / "v3.avi").unlink()
    index, looked = built(root, workers=0)
    assert (looked, index.names()) == (1, ("a/a.avi", "a/v0.avi", "a/v2.avi", "b/v1.avi"))
    assert [record.num_frames for record in read_all(index)] == [7, 6, 6, 6]
    fresh = VideoIndex.build(root, workers=0, index=root.parent / "fresh.r3dindex")
    assert fresh.digest == index.digest
    assert read_all(fresh) == read_all(index)


def test_what_a_hostile_index_says_of_a_file_is_not_taken_over(root: Path) -> None:
    index, _ = built(root, workers=0)
    forge(index.path, "UPDATE videos SET path = '../data/a/v0.avi' WHERE path = 'a/v0.avi'")
    again, looked = built(root, workers=0)
    assert (looked, again.digest) == (4, index.digest)


def test_a_file_that_goes_while_the_data_set_is_indexed_is_left_out_until_it_is_back(root: Path) -> None:
    data = recognise_dataset(root)
    content = (root / "b" / "v1.avi").read_bytes()
    (root / "b" / "v1.avi").unlink()
    path = root.parent / "data.r3dindex"
    index = write_index(path, root, data, workers=0)
    assert [tuple(vars(item).values()) for item in index.quarantined] == [
        ("b/v1.avi", "can't be read", "No such file or directory")
    ]
    (root / "b" / "v1.avi").write_bytes(content)
    calls: list[tuple[int, int]] = []
    again = write_index(path, root, data, workers=0, progress=lambda done, total: calls.append((done, total)))
    assert (again.quarantined, len(again), calls) == ([], 4, [(4, 4)])


def test_other_parts_of_the_same_files_are_another_data_set(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_stamped_video(tmp_path / "data" / "abc.mp4", codec="h264", num_frames=100)
    digests = []
    for begin in (1, 2, 1):
        rows = f"label,youtube_id,time_start,time_end,split\nx,abc,0,1,train\nx,abc,{begin},{begin + 1},train\n"
        (tmp_path / "train.csv").write_text(rows, encoding="utf-8")
        index = VideoIndex.build(tmp_path / "data", lists=tmp_path / "train.csv", workers=0)
        assert [record.num_frames for record in read_all(index)] == [25, 25]
        digests.append(index.digest)
    assert digests[0] == digests[2] != digests[1]


def test_an_index_for_which_there_is_no_room_is_an_error_and_leaves_nothing(root: Path) -> None:
    usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, most))  # bytes; no file may become larger
    try:
        with pytest.raises(UsageError, match=r"data\.r3dindex: the index can't be written \(.+\); choose another path"):
            VideoIndex.build(root, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))
    assert list(root.parent.glob("*r3dindex*")) == []
