from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from clips import write_classes, write_stamped_video
from damage.forged_index import forge, read_all
from loading import children, content, make
from small_disk import mounted

from pipelines.errors import IndexFileError, UsageError
from pipelines.index.index_file import PAGE_BYTES
from pipelines.index.replacing import build_lock
from pipelines.index.video_index import VideoIndex

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", 6, num_frames=9)


def hidden(folder: Path) -> list[str]:
    """The names of the hidden files in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_build_beside_another_is_refused_at_once(root: Path) -> None:
    index = VideoIndex.build(root, workers=0)
    before = index.path.read_bytes()
    with build_lock(index.path), pytest.raises(UsageError) as error:
        VideoIndex.build(root, workers=0)
    assert str(error.value) == (
        f"{index.path}: the index can't be written: another process is building it; wait for it"
    )
    assert index.path.read_bytes() == before
    assert VideoIndex.build(root, workers=0).digest == index.digest
    assert hidden(root.parent) == []


def test_the_lock_and_the_half_of_a_killed_build_are_no_obstacle(root: Path) -> None:
    index = VideoIndex.build(root, workers=0)
    code = (
        "import os, sys\n"
        "from pipelines.index.video_index import VideoIndex\n"
        "VideoIndex.build(sys.argv[1], workers=0, retry=True, progress=lambda *_: os.kill(os.getpid(), 9))\n"
    )
    write_stamped_video(root / "a" / "new.avi", num_frames=5)
    done = subprocess.run([sys.executable, "-c", code, str(root)], cwd=REPO, check=False)
    assert done.returncode == -signal.SIGKILL
    left = hidden(root.parent)
    assert left[0] == ".data.r3dindex.lock"
    assert len(left) == 2
    assert len(VideoIndex.open(index.path)) == 6
    (root / "a" / "new.avi").unlink()
    assert VideoIndex.build(root, workers=0).digest == index.digest
    assert hidden(root.parent) == []


def test_who_has_an_index_open_goes_on_with_it_when_it_is_made_again(root: Path) -> None:
    old = VideoIndex.build(root, workers=0)
    records = [old[number] for number in range(6)]
    write_stamped_video(root / "a" / "new.avi", num_frames=5)
    new = VideoIndex.build(root, workers=0)
    assert (len(old), len(new)) == (6, 7)
    assert [old[number] for number in range(6)] == records
    assert old.names() == tuple(record.path for record in records)
    read_all(old)
    # Another process, such as a worker that is started again, opens the same by its path and digest.
    same = VideoIndex.open(old.path, old.root, old.digest)
    assert [same[number] for number in range(6)] == records
    assert same.path == new.path
    assert hidden(root.parent) == [f".data.r3dindex.{old.digest[:16]}.kept"]
    (root / "b" / "v1.avi").unlink()
    third = VideoIndex.build(root, workers=0)
    assert len(hidden(root.parent)) == 2
    assert [VideoIndex.open(index.path, root, index.digest).digest for index in (old, new, third)] == [
        old.digest, new.digest, third.digest,
    ]  # fmt: skip
    del old, same, new
    VideoIndex.build(root, workers=0)
    assert hidden(root.parent) == []


def test_an_index_that_nobody_has_open_is_not_kept(root: Path) -> None:
    old = VideoIndex.build(root, workers=0).digest
    write_stamped_video(root / "a" / "new.avi", num_frames=5)
    new = VideoIndex.build(root, workers=0)
    assert hidden(root.parent) == []
    with pytest.raises(IndexFileError) as error:
        VideoIndex.open(new.path, root, old)
    assert str(error.value) == (
        f"{new.path}: was made again while in use, and has other videos now; start again with those, or index the "
        "videos as they were"
    )


def test_workers_that_start_after_a_new_index_load_the_clips_of_the_old_one(root: Path) -> None:
    index = VideoIndex.build(root, workers=0)
    with make(index, workers=0) as loader:
        expected = content([*loader, *loader])
    with make(index, workers=1) as loader:
        epoch = iter(loader)
        batches = [next(epoch)]
        write_stamped_video(root / "a" / "new.avi", num_frames=5)
        VideoIndex.build(root, workers=0)
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        batches += [*epoch, *loader]
    assert content(batches) == expected


@pytest.mark.parametrize("name", ["other.db", "other.r3dindex"])
def test_the_database_of_another_program_stays_as_it_is(root: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE meta (key TEXT, value TEXT); INSERT INTO meta VALUES ('schema', '1');")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="not an r3d-fast index: it stays as it is; remove it, or choose another path"):
        VideoIndex.build(root, index=path, workers=0)
    assert path.read_bytes() == before
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 77")
    changed = path.read_bytes()
    with pytest.raises(UsageError, match="not an r3d-fast index"):
        VideoIndex.build(root, index=path, workers=0)
    assert path.read_bytes() == changed
    with pytest.raises(IndexFileError, match="not a readable index"):
        VideoIndex.open(path)


@pytest.mark.parametrize("content", [b"some text", b"RIFF....AVI ", b"SQLite format 3\0" + bytes(200)])
def test_a_file_of_another_kind_stays_as_it_is(root: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not an r3d-fast index: it stays as it is"):
        VideoIndex.build(root, index=path, workers=0)
    assert path.read_bytes() == content
    with pytest.raises(IndexFileError, match=r"; expected the file that `r3d-fast data index ROOT` wrote$"):
        VideoIndex.open(path)


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "flipped", "text", "head"])
def test_the_command_that_is_named_makes_a_damaged_index_again(root: Path, damage: str) -> None:
    index = VideoIndex.build(root, workers=0, val_fraction=0.5)
    path, digest, before = index.path, index.digest, index.path.read_bytes()
    content = {
        "cut": before[: len(before) // 2],
        "zeros": bytes(len(before)),
        "empty": b"",
        "flipped": before[:-20] + bytes(20),
        "text": b"no index",
        "head": bytes(16) + before[16:],
    }[damage]
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match=r"not a readable index .*; make it again with: r3d-fast data index "):
        read_all(VideoIndex.open(path))
    again = VideoIndex.build(root, workers=0, val_fraction=0.5)
    read_all(again)
    assert again.digest == digest


def test_a_damaged_index_that_tells_nothing_more_is_made_again_from_the_folder_beside_it(root: Path) -> None:
    path = VideoIndex.build(root, workers=0, val_fraction=0.5).path
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(IndexFileError) as error:
        VideoIndex.open(path)
    command = f"r3d-fast data index {root} and the options that it was made with"
    assert str(error.value).endswith(f"; make it again with: {command}")


@pytest.mark.parametrize(("name", "remedy"), [("i.r3dindex", "make it again"), ("i.db", "expected the file")])
def test_no_folder_is_named_that_is_not_there_or_that_the_name_does_not_tell(
    tmp_path: Path, name: str, remedy: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"no index")
    with pytest.raises(IndexFileError) as error:
        VideoIndex.open(path)
    assert f"; {remedy}" in str(error.value)
    assert ("data index ROOT --index" in str(error.value)) == (path.suffix == ".r3dindex")


def test_options_that_are_nested_without_an_end_are_left_out(root: Path) -> None:
    path = VideoIndex.build(root, workers=0).path
    forge(path, "UPDATE meta SET value = ? WHERE key = 'options'", values=("[" * 9000,))
    with pytest.raises(IndexFileError) as error:
        VideoIndex.open(path)
    assert str(error.value).endswith(f"; make it again with: r3d-fast data index {root}")


def test_an_index_of_an_earlier_version_without_our_mark_is_replaced_whatever_its_name(
    root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as db:
        for name in ("meta", "videos", "quarantine", "columns"):
            db.execute(f"CREATE TABLE {name} (key TEXT, value TEXT)")
    assert len(VideoIndex.build(root, index=path, workers=0)) == 6


def test_what_a_damaged_index_still_knows_is_used(root: Path) -> None:
    index = VideoIndex.build(root, workers=0)
    content = bytearray(index.path.read_bytes())
    with closing(sqlite3.connect(index.path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'packets'").fetchone()
    content[page * PAGE_BYTES - 30] ^= 1  # a byte of the packets of the first video
    index.path.write_bytes(content)
    looked: list[int] = []
    again = VideoIndex.build(root, workers=0, progress=lambda done, total: looked.append(done))
    read_all(again)
    assert (again.digest, looked) == (index.digest, [])


@pytest.mark.parametrize("place", ["/dev/null", "-", "/dev/fd/1", "{folder}", "{folder}/none/x", "{pipe}", "{loop}"])
def test_places_where_no_index_can_be_are_one_line(root: Path, tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    place = place.format(folder=tmp_path, pipe=tmp_path / "pipe", loop=tmp_path / "loop")
    with pytest.raises(UsageError) as error:
        VideoIndex.build(root, index=place, workers=0)
    assert "; choose another path with --index" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_link_stays_a_link_to_the_new_index(root: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link.r3dindex"
    link.symlink_to(tmp_path / "far" / "real.r3dindex")
    old = VideoIndex.build(root, index=link, workers=0)
    write_stamped_video(root / "a" / "new.avi", num_frames=5)
    new = VideoIndex.build(root, index=link, workers=0)
    assert link.is_symlink()
    assert (len(new), len(VideoIndex.open(link, root, old.digest))) == (7, 6)
    assert hidden(tmp_path) == []
    assert hidden(tmp_path / "far") == [f".real.r3dindex.{old.digest[:16]}.kept"]


def test_a_full_disk_leaves_the_old_index(root: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=96k") as disk:
        path = VideoIndex.build(root, index=disk / "i.r3dindex", workers=0).path
        before = path.read_bytes()
        write_stamped_video(root / "a" / "new.avi", num_frames=5)
        (disk / "filler").write_bytes(bytes(96 * 1024 - len(before) - PAGE_BYTES * 3))
        with pytest.raises(UsageError, match=r"i.r3dindex: .*(full|No space left).*; choose another path with --index"):
            VideoIndex.build(root, index=path, workers=0)
        assert path.read_bytes() == before
        assert hidden(disk) == []
