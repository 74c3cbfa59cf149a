from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import clips
import oddities
import pytest
from damage.forged_index import forge
from damage.mostly_damaged import write_mostly_damaged

from pipelines.errors import DataError, IndexFileError
from pipelines.index.locations import find_index
from pipelines.index.probe_pool import probe_all
from pipelines.index.video_index import FileState, VideoIndex
from pipelines.video.record import VideoRecord

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Nine videos in three classes."""
    for i in range(9):
        path = tmp_path / "data" / "abc"[i % 3] / f"{i}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(path, num_frames=4 + i)
    return tmp_path / "data"


def build(root: Path, **options: object) -> tuple[VideoIndex, int]:
    """(index, files that were looked at)."""
    calls: list[int] = []
    options = {"workers": 0, "progress": lambda done, total: calls.append(done), **options}
    index = VideoIndex.build(root, **options)  # type: ignore[arg-type]
    return index, len(calls)


def test_an_index_holds_what_the_files_are(root: Path) -> None:
    index, looked = build(root)
    assert looked == len(index) == 9
    assert index.path == root.parent / "data.r3dindex" == find_index(root)
    assert [index[i].path for i in range(9)] == sorted(index[i].path for i in range(9))
    for i in range(9):
        record = index[i]
        assert record.video_id == i
        assert record.num_frames == 4 + int(Path(record.path).stem)
        assert index.classes[record.label] == Path(record.path).parent.name
        assert index.columns().num_frames[i] == record.num_frames
    for number in (-1, 9):
        with pytest.raises(IndexError, match=f"video {number} of 9"):
            index[number]


def test_a_second_build_looks_only_at_what_changed(root: Path) -> None:
    first, _ = build(root)
    digest = first.digest
    again, looked = build(root)
    assert (looked, again.digest) == (0, digest)
    clips.write_stamped_video(root / "a" / "0.avi", num_frames=20)
    (root / "b" / "1.avi").unlink()
    clips.write_stamped_video(root / "c" / "new.avi", num_frames=6)
    changed, looked = build(root)
    assert (looked, len(changed)) == (2, 9)
    by_path = {changed[i].path: changed[i].num_frames for i in range(9)}
    assert by_path["a/0.avi"] == 20
    assert by_path["c/new.avi"] == 6
    assert "b/1.avi" not in by_path
    assert changed.digest != digest


def test_a_copy_of_the_files_is_not_probed_again(root: Path, tmp_path: Path) -> None:
    index, _ = build(root)
    oddities.write_turned(root / "a" / "x.mp4", degrees=90)
    index, _ = build(root)
    before = [index[i] for i in range(10)]
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)  # all files are newer
    (tmp_path / "copy" / "a" / "0.avi").write_bytes((root / "a" / "0.avi").read_bytes().replace(b"Lavf", b"lavf"))
    copy, looked = build(tmp_path / "copy", index=index.path)
    assert (looked, copy.digest, str(copy.root)) == (10, index.digest, str(tmp_path / "copy"))
    kept = [copy[i] for i in range(10)]
    for old, new in zip(before, kept, strict=True):
        assert new.mtime_ns == (tmp_path / "copy" / new.path).stat().st_mtime_ns != old.mtime_ns
        assert replace(new, mtime_ns=0, checksum="") == replace(old, mtime_ns=0, checksum="")
        assert (new.checksum != old.checksum) == (new.path == "a/0.avi")
    forge(index.path, "UPDATE videos SET note = 'as it was'")  # to see which are kept as they are
    for path in (tmp_path / "copy").rglob("*.*"):
        path.touch()
    (tmp_path / "copy" / "a" / "0.avi").write_bytes((root / "a" / "0.avi").read_bytes())
    again, looked = build(tmp_path / "copy", index=index.path)
    assert (looked, [again[i].path for i in range(10) if again[i].note != "as it was"]) == (10, ["a/0.avi"])
    assert build(tmp_path / "copy", index=index.path)[1] == 0


def test_parts_of_a_copied_file_are_kept_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    clips.write_stamped_video(tmp_path / "data" / "abc.mp4", codec="h264", num_frames=100)
    rows = "label,youtube_id,time_start,time_end,split\nx,abc,0,1,train\nx,abc,1,2,train\n"
    (tmp_path / "train.csv").write_text(rows, encoding="utf-8")
    index, _ = build(tmp_path / "data", lists=tmp_path / "train.csv")
    (tmp_path / "data" / "abc.mp4").touch()
    again, looked = build(tmp_path / "data", lists=tmp_path / "train.csv")
    assert (looked, again.names(), again.digest) == (2, index.names(), index.digest)
    assert again[1].mtime_ns == (tmp_path / "data" / "abc.mp4").stat().st_mtime_ns


def test_a_split_is_known_by_any_word_for_it(root: Path) -> None:
    index, _ = build(root)
    assert index.splits == ("test", "train")
    for word, own in (("training", "train"), ("Test", "test"), ("testing", "test"), ("train", "train")):
        assert index.own_split(word) == own
        assert index.columns(word).video_id.tolist() == index.columns(own).video_id.tolist()
    for word in ("validation", "dev", ""):
        with pytest.raises(DataError, match=f"data.r3dindex: no split '{word}'; it has test, train$"):
            index.columns(word)


def test_bad_files_are_remembered_and_looked_at_again_when_they_change(root: Path) -> None:
    (root / "a" / "bad.avi").write_bytes(b"nothing")
    index, _ = build(root)
    assert [(q.path, q.reason) for q in index.quarantined] == [("a/bad.avi", "not a readable video")]
    assert build(root)[1] == 0
    clips.write_stamped_video(root / "a" / "bad.avi", num_frames=7)
    mended, looked = build(root)
    assert (looked, len(mended), mended.quarantined) == (1, 10, [])


def test_another_pixel_limit_looks_again_only_at_the_files_that_it_is_about(root: Path) -> None:
    clips.write_stamped_video(root / "a" / "large.avi", num_frames=3, size=(256, 192))
    index, _ = build(root, max_pixels=128 * 96)
    (large,) = index.quarantined
    assert (large.path, large.reason) == ("a/large.avi", "too large")
    assert large.detail == "256x192 px, the limit is 12288 px a frame; --max-pixels 49152 allows it"
    assert build(root, max_pixels=128 * 96)[1] == 0
    raised, looked = build(root, max_pixels=256 * 192)
    assert (looked, len(raised), raised.quarantined) == (1, 10, [])
    lowered, looked = build(root, max_pixels=128 * 96)
    assert (looked, len(lowered), len(lowered.quarantined)) == (1, 9, 1)


def test_each_note_has_the_names_of_all_videos_that_it_is_true_of(root: Path) -> None:
    oddities.write_turned(root / "a" / "turned.mp4", degrees=90)
    (root / "a" / "turned.mp4").rename(root / "a" / "turned.avi")
    oddities.write_turned(root / "b" / "turned.mp4", degrees=90)
    index, _ = build(root)
    noted = {"rotated": ["a/turned.avi", "b/turned.mp4"], "mov content under an .avi name": ["a/turned.avi"]}
    assert list(index.noted().items()) == list(noted.items())


def test_other_lists_change_labels_without_looking_at_files(root: Path, tmp_path: Path) -> None:
    index, _ = build(root)
    (tmp_path / "l.csv").write_text("a/0.avi,x,train\nb/1.avi,y,test\nc/2.avi,x,train\n", encoding="utf-8")
    other, looked = build(root, lists=tmp_path / "l.csv")
    assert looked == 0
    assert other.classes == ("x", "y")
    assert [(other[i].path, other[i].label, other[i].split) for i in range(3)] == [
        ("a/0.avi", 0, "train"),
        ("b/1.avi", 1, "test"),
        ("c/2.avi", 0, "train"),
    ]
    assert other.digest != index.digest


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_split_of_the_lists_is_remembered(root: Path, tmp_path: Path, split: int) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 a\n2 b\n3 c\n", encoding="utf-8")
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.avi"))
    for number in (1, 2, 3):
        test = names[number - 1 :: 3]
        rows = [f"{name} {'abc'.index(name[0]) + 1}\n" for name in names if name not in test]
        (lists / f"trainlist{number:02}.txt").write_text("".join(rows), encoding="utf-8")
        (lists / f"testlist{number:02}.txt").write_text("\n".join(test), encoding="utf-8")
    index, _ = build(root, lists=lists, split=split)
    assert (index.kind, index.lists_split, index.lists) == ("ucf101", split, str(lists))
    assert [index[int(i)].path for i in index.columns("test").video_id] == names[split - 1 :: 3]
    assert index.missing == []
    plain, looked = build(root)
    assert (plain.kind, plain.lists_split, plain.lists, looked) == ("folders", None, "", 0)


def test_an_index_of_an_earlier_version_is_made_anew(root: Path) -> None:
    index, _ = build(root)
    index.path.unlink()
    with sqlite3.connect(index.path) as db:
        db.executescript(
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL); INSERT INTO meta VALUES ('schema', '3');"
            "CREATE TABLE videos (id INTEGER PRIMARY KEY, path TEXT UNIQUE NOT NULL);"
            "CREATE TABLE quarantine (path TEXT PRIMARY KEY); CREATE TABLE missing (name TEXT, split TEXT);"
            "CREATE TABLE columns (name TEXT PRIMARY KEY, data BLOB NOT NULL);"
        )
        db.execute("INSERT INTO meta VALUES ('root', ?)", (str(root),))
        db.execute("INSERT INTO meta VALUES ('options', ?)", (json.dumps({"val_fraction": 0.5, "group": "[0-9]"}),))
    db.close()
    with pytest.raises(IndexFileError) as error:
        VideoIndex.open(index.path)
    assert str(error.value) == (
        f"{index.path}: an index of an earlier version; make it again with: r3d-fast data index {root} "
        "--val-fraction 0.5 --group '[0-9]'"
    )
    again, looked = build(root)
    assert (looked, len(again), again.digest) == (9, 9, index.digest)


def test_kill_9_leaves_the_old_index_or_the_new_one(tmp_path: Path) -> None:
    source = clips.write_stamped_video(tmp_path / "x.avi", num_frames=3)
    for i in range(400):
        path = tmp_path / "data" / str(i % 4) / f"{i}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
    code = (
        "import sys\n"
        "from pipelines.index.video_index import VideoIndex\n"
        "print('go', flush=True)\n"
        "VideoIndex.build(sys.argv[1], workers=1)\n"
    )
    old = VideoIndex.build(tmp_path / "data", workers=0).digest
    rng, cut = random.Random(0), 0
    for attempt in range(5):
        for i in range(400):  # other bytes that mean the same, or the files would not be probed again
            changed = source.read_bytes().replace(b"Lavf", b"Lav%d" % attempt)
            (tmp_path / "data" / str(i % 4) / f"{i}.avi").write_bytes(changed)
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "data")], cwd=REPO, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.3) if attempt else 0.0)  # the first one before it can end, on any machine
        cut += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        index = VideoIndex.open(tmp_path / "data.r3dindex")
        assert (len(index), index.digest) == (400, old)
        assert index[399].num_frames == 3
    assert cut
    assert VideoIndex.build(tmp_path / "data", workers=0).digest == old


def test_another_process_reads_a_pickled_index(root: Path) -> None:
    import pickle

    index, _ = build(root)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)[3].num_frames)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(index), cwd=REPO, capture_output=True, check=True
    )
    assert int(done.stdout) == index[3].num_frames


def test_many_files_come_back_in_order_from_many_processes(tmp_path: Path) -> None:
    names = []
    for length in range(2, 10):
        source = clips.write_stamped_video(tmp_path / f"{length}.avi", num_frames=length)
        for copy in range(10):
            names.append(f"{length}-{copy}.avi")
            shutil.copy(source, tmp_path / names[-1])
    results = list(probe_all(names, tmp_path, workers=2))
    assert [r.num_frames for r in results if isinstance(r, VideoRecord)] == [int(n.split("-")[0]) for n in names]


def test_a_video_of_an_index_prints_in_two_lines(tmp_path: Path) -> None:
    (tmp_path / "data" / "walk").mkdir(parents=True)
    clips.write_stamped_video(tmp_path / "data" / "walk" / "a.avi", num_frames=12)
    index = VideoIndex.build(tmp_path / "data", workers=0, val_fraction=0.0)
    first, second = repr(index[0]).splitlines()
    assert first == "VideoRecord('walk/a.avi', video_id=0, label=0, split='train',"
    size = (tmp_path / "data" / "walk" / "a.avi").stat().st_size
    assert second.strip() == f"12 frames of 128x96 px, 25 fps, mpeg4 (yuv420p) in avi, {size} bytes)"
    first, second = repr(index).splitlines()
    assert first == f"VideoIndex({str(index.path)!r}, root={str(index.root)!r},"
    assert second.strip() == "1 videos of 1 classes: train 1)"
    part = replace(index[0], begin_seconds=1.0, end_seconds=2.5, note="no index")
    assert repr(part).startswith("VideoRecord('walk/a.avi', part 1 to 2.5 s, ")
    assert repr(part).endswith("note='no index')")


def test_what_is_asked_about_many_videos_at_once(tmp_path: Path) -> None:
    root, made = tmp_path / "data", {
        "a/0.avi": {"fps": 10}, "a/1.avi": {"size": (144, 112), "num_frames": 90},
        "b/2.mp4": {"codec": "h264", "fps": 30}, "b/3.avi": {},
    }  # fmt: skip
    for name, options in made.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(root / name, **options)  # type: ignore[arg-type]
    (tmp_path / "l.csv").write_text("a/0.avi,a,train\na/1.avi,a,test\nb/2.mp4,b,train\nb/3.avi,b,train\n")
    index, _ = build(root, lists=tmp_path / "l.csv")
    files = {name: (root / name).read_bytes() for name in made}
    sizes = {name: len(data) for name, data in files.items()}
    assert index.file_states() == [FileState(n, sizes[n], f"{zlib.crc32(data):08x}") for n, data in files.items()]
    assert index.frame_rates().tolist() == [10, 25, 30, 25]
    assert index.frame_rates("train").tolist() == [10, 30, 25]
    assert index.largest_file() == max(sizes.values())
    assert index.largest_file("test") == sizes["a/1.avi"]
    assert index.sizes() == [("h264", 128, 96), ("mpeg4", 128, 96), ("mpeg4", 144, 112)]
    assert index.counts("codec") == [("mpeg4", 3), ("h264", 1)]
    assert index.counts("size") == [("128x96", 3), ("144x112", 1)]
    assert index.counts("split") == [("train", 3), ("test", 1)]
    assert index.groups() == ("", "", "", "")

    def kinds(split: str | None = None, **options: object) -> list[tuple[list[str], int]]:
        return [([r.path for r in few], count) for few, count in index.kinds(split, **options)]  # type: ignore[arg-type]

    assert kinds() == [(["b/2.mp4"], 1), (["a/0.avi", "a/1.avi", "b/3.avi"], 3)]
    assert kinds(examples=2) == [(["b/2.mp4"], 1), (["a/0.avi", "a/1.avi"], 3)]
    assert kinds("train") == [(["b/2.mp4"], 1), (["a/0.avi", "b/3.avi"], 2)]
    assert kinds(units={"mpeg4": 32}) == [(["b/2.mp4"], 1), (["a/0.avi", "b/3.avi"], 2), (["a/1.avi"], 1)]
    assert index.columns("test").video_id.tolist() == [1]
    assert (index.columns().width.tolist(), index.columns().height.tolist()) == (
        [128, 144, 128, 128],
        [96, 112, 96, 96],
    )


def test_an_index_that_is_not_there_or_another_one_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match=r"x\.r3dindex: no such index; make one with: r3d-fast data index ROOT$"):
        VideoIndex.open(tmp_path / "x.r3dindex")
    index, _ = build(root)
    assert VideoIndex.open(index.path, digest=index.digest).digest == index.digest
    with pytest.raises(IndexFileError, match="was made again while in use, and has other videos now; start again"):
        VideoIndex.open(index.path, digest="0" * 64)
    clips.write_stamped_video(root / "a" / "0.avi", num_frames=20)
    again, _ = build(root)
    assert VideoIndex.open(index.path, digest=index.digest)[0] == index[0]  # which is still in use
    assert VideoIndex.open(index.path, digest=again.digest)[0].num_frames == 20
    assert VideoIndex.open(index.path, tmp_path / "moved").root == tmp_path / "moved"
    (tmp_path / "x.r3dindex").write_bytes(b"no index" * 1000)
    for digest in (None, "0" * 64):
        with pytest.raises(IndexFileError, match=r"x\.r3dindex: not a readable index \(it is no SQLite database\)"):
            VideoIndex.open(tmp_path / "x.r3dindex", digest=digest)


def test_what_columns_and_rows_say_must_be_the_same(root: Path) -> None:
    index, _ = build(root)
    forge(index.path, "UPDATE videos SET num_frames = num_frames + 1 WHERE id = 3")
    forged = VideoIndex.open(index.path)
    assert forged[1].num_frames == 10 - 3  # the others are as they were
    for question in (forged.names, forged.frame_rates, lambda: forged[2]):
        with pytest.raises(IndexFileError, match=r"data\.r3dindex: not a readable index \(.*in the columns\); make it"):
            question()


def test_links_are_followed_only_where_that_is_asked_for(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    clips.write_stamped_video(tmp_path / "other" / "x.avi", num_frames=3)
    (root / "d").symlink_to(tmp_path / "other")
    assert len(build(root)[0]) == 9
    assert len(build(root, follow_links=True)[0]) == 10


def test_a_video_with_too_many_damaged_frames_is_left_out_and_taken_by_another_limit(root: Path) -> None:
    corrupt, _ = write_mostly_damaged(root / "a" / "bad.avi")
    index, _ = build(root)
    assert len(index) == 9
    (left_out,) = index.quarantined
    assert (left_out.path, left_out.reason) == ("a/bad.avi", "too many damaged frames")
    assert left_out.detail.startswith(f"{corrupt} of ")
    assert left_out.detail.endswith(" takes it")
    assert build(root)[1] == 0
    more, looked = build(root, max_corrupt_fraction=1.0)
    assert (len(more), looked, more.quarantined) == (10, 1, [])
    number = more.names().index("a/bad.avi")
    assert more[number].corrupt == corrupt
    share = corrupt / more[number].num_frames
    assert more.too_damaged(0.5) == {number: f"too many damaged frames: {corrupt} of {more[number].num_frames}"}
    assert more.too_damaged(share) == more.too_damaged(1.0) == {}
    less, looked = build(root)
    assert (len(less), looked, len(less.quarantined)) == (9, 1, 1)
