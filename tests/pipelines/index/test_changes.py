from __future__ import annotations

from pathlib import Path

from clips import write_classes, write_stamped_video
from layouts import lines

from pipelines.index.changes import find_changes
from pipelines.index.video_index import VideoIndex


def test_what_is_new_gone_or_changed_is_named(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", 6, num_frames=4)
    (root / "a" / "broken.avi").write_bytes(b"no video")
    index = VideoIndex.build(root, workers=0)
    assert str(find_changes(index)) == ""
    write_stamped_video(root / "b" / "new.avi", num_frames=4)
    (root / "a" / "v0.avi").unlink()
    write_stamped_video(root / "a" / "v2.avi", num_frames=9)
    (root / "note.txt").write_text("x")
    changes = find_changes(index)
    assert changes == (("b/new.avi",), ("a/v0.avi",), ("a/v2.avi",))
    assert str(changes) == "1 new, 1 gone, 1 changed"


def test_videos_that_lists_leave_out_are_not_new(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", 4, num_frames=4)
    file = lines(tmp_path / "list.csv", "path,label", "a/v0.avi,a", "b/v1.avi,b")
    assert str(find_changes(VideoIndex.build(root, lists=file, workers=0))) == ""


def test_an_index_keeps_how_it_was_made(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", 8, num_frames=4)
    index = VideoIndex.build(root, workers=0, group="v[0-9]", val_fraction=0.5)
    write_stamped_video(root / "a" / "v9.avi", num_frames=5)
    again = VideoIndex.build(root, workers=0, **index.options)
    other = VideoIndex.build(root, workers=0)
    assert again.rule.startswith("50% of each class, whole groups")
    assert other.rule.startswith("20% of each class, always")
