from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from layouts import labels, split_of, touch

from pipelines.datasets.entries import LeftOut
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, UsageError

ODD_NAMES = [
    "tai chi ü中.avi",
    "a\nb.avi",
    "#1.avi",
    "-rf.avi",
    "{x}.avi",
    "$(touch x).avi",
    "a,b\"c'.MP4",
    " lead.avi",
]


# ---- the root and the walk


def test_missing_root_names_path_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"/gone: No such file or directory; expected a folder of videos, check the path"
    ):
        recognise_dataset(tmp_path / "gone")


def test_root_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder; expected the folder that holds the videos"):
        recognise_dataset(touch(tmp_path, "x.avi") / "x.avi")


def test_no_video_names_extensions_looked_for_and_seen(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.JPG", "a/2.txt", "a/README")
    with pytest.raises(DataError, match=r"no video file; looked for .*\.avi .*found \.jpg, \.txt, no extension;"):
        recognise_dataset(tmp_path)


def test_no_video_says_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a/x.avi")
    with pytest.raises(DataError, match=r"no video file.*left out: a/x.avi: not a regular file \(FIFO\)"):
        recognise_dataset(tmp_path)


def test_every_extension_in_any_case(tmp_path: Path) -> None:
    ends = ["avi", "MP4", "mkv", "webm", "mov", "m4v", "mpg", "mpeg", "wmv", "flv", "ogv", "Ts", "m2ts", "3gp"]
    ends += [
        "MTS",
        "m2t",
        "asf",
        "VOB",
        "divx",
        "3g2",
        "mxf",
        "f4v",
        "ogm",
        "rm",
        "rmvb",
        "y4m",
        "nut",
        "DV",
        "m2v",
        "qt",
    ]
    ends += [
        "mpe",
        "m1v",
        "ivf",
        "wtv",
        "gxf",
        "dav",
        "h264",
        "264",
        "h265",
        "265",
        "hevc",
        "mjpg",
        "mjpeg",
        "gif",
        "apng",
    ]
    names = [f"A/{end}.{end}" for end in ends]
    data = recognise_dataset(touch(tmp_path, *names, "A/avi", "A/x.avi.txt", "A/x.jpg", "A/x.ogg"), val_fraction=0)
    assert [e.path for e in data.entries] == sorted(names)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_videos_and_classes(tmp_path: Path, name: str) -> None:
    folder = name.rpartition(".")[0]
    data = recognise_dataset(touch(tmp_path, f"{folder}/{name}"))
    assert labels(data) == {f"{folder}/{name}": (folder, "train")}


def test_hidden_names_are_passed_over_silently(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "A/x.avi", "A/._x.avi", ".cache/y.avi"))
    assert [e.path for e in data.entries] == ["A/x.avi"]
    assert data.left_out == ()


def test_special_files_are_left_out_without_being_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "A/x.avi")
    os.mkfifo(tmp_path / "A/fifo.avi")
    os.mkfifo(tmp_path / "A/other.txt")
    (tmp_path / "A/null.avi").symlink_to(os.devnull)
    monkeypatch.chdir(tmp_path)  # a socket's path is at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("A/sock.avi")
        data = recognise_dataset(tmp_path, follow_links=True)
    assert data.left_out == (
        LeftOut("A/fifo.avi", "not a regular file (FIFO)"),
        LeftOut("A/null.avi", "not a regular file (link to a device)"),
        LeftOut("A/sock.avi", "not a regular file (socket)"),
    )
    assert [e.path for e in data.entries] == ["A/x.avi"]


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
@pytest.mark.parametrize("follow", [True, False])
def test_a_link_out_of_the_root_to_no_regular_file_is_named_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, follow: bool
) -> None:
    touch(tmp_path, "root/A/x.avi")
    monkeypatch.chdir(tmp_path)
    os.mkfifo("FIFO")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        places = {"device": Path("/dev/zero"), "FIFO": tmp_path / "FIFO", "socket": tmp_path / "socket"}
        (tmp_path / "root/A/odd.avi").symlink_to(places[kind])
        data = recognise_dataset(tmp_path / "root", follow_links=follow)
    assert data.left_out == (LeftOut("A/odd.avi", f"not a regular file (link to a {kind})"),)
    assert [e.path for e in data.entries] == ["A/x.avi"]


def test_folder_with_a_video_name_is_walked(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "A/x.avi/inner.avi"))
    assert [e.path for e in data.entries] == ["A/x.avi/inner.avi"]


def test_link_loop_ends(tmp_path: Path) -> None:
    touch(tmp_path, "A/x.avi")
    (tmp_path / "A/up").symlink_to("..")
    (tmp_path / "A/self.avi").symlink_to("self.avi")
    data = recognise_dataset(tmp_path)
    assert [e.path for e in data.entries] == ["A/x.avi"]
    assert data.left_out == (
        LeftOut("A/self.avi", "broken link"),
        LeftOut("A/up", "link to a folder that is searched already"),
    )


def test_real_folder_wins_over_a_link_that_sorts_first(tmp_path: Path) -> None:
    touch(tmp_path, "Zebra/x.avi", "Yak/y.avi")
    (tmp_path / "Aardvark").symlink_to("Zebra")
    assert recognise_dataset(tmp_path).classes == ("Yak", "Zebra")


def test_links_inside_root_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, ".store/x.avi", ".files/y.avi", "B/z.avi")
    (tmp_path / "A").symlink_to(".store")
    (tmp_path / "B/y.avi").symlink_to("../.files/y.avi")
    assert [e.path for e in recognise_dataset(tmp_path).entries] == ["A/x.avi", "B/y.avi", "B/z.avi"]


def test_links_outside_root_need_the_flag(tmp_path: Path) -> None:
    touch(tmp_path, "root/A/x.avi", "far/F/f.avi", "far/g.avi")
    (tmp_path / "root/B").symlink_to(tmp_path / "far/F")
    (tmp_path / "root/A/g.avi").symlink_to(tmp_path / "far/g.avi")
    reason = "symlink outside ROOT (--follow-links takes it)"
    data = recognise_dataset(tmp_path / "root")
    assert data.left_out == (LeftOut("A/g.avi", reason), LeftOut("B", reason))
    assert [e.path for e in data.entries] == ["A/x.avi"]
    data = recognise_dataset(tmp_path / "root", follow_links=True)
    assert [e.path for e in data.entries] == ["A/g.avi", "A/x.avi", "B/f.avi"]
    assert data.left_out == ()


def test_root_that_is_itself_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "real/A/x.avi")
    (tmp_path / "real/A/y.avi").symlink_to("x.avi")
    (tmp_path / "link").symlink_to("real")
    assert [e.path for e in recognise_dataset(tmp_path / "link").entries] == ["A/x.avi", "A/y.avi"]


def test_broken_link_to_a_class_folder_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "A/x.avi")
    (tmp_path / "B").symlink_to("unmounted")
    assert recognise_dataset(tmp_path).left_out == (LeftOut("B", "broken link"),)


def test_name_that_is_no_utf8_is_left_out_in_printable_form(tmp_path: Path) -> None:
    touch(tmp_path, "A/x.avi")
    try:
        os.close(os.open(os.fsencode(tmp_path) + b"/A/\xff.avi", os.O_CREAT))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert recognise_dataset(tmp_path).left_out == (LeftOut("A/\\xff.avi", "file name is not valid UTF-8"),)


def test_folder_that_cannot_be_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Deeper than PATH_MAX, a folder can be made step by step but not listed by its path: not even by root.
    touch(tmp_path, "A/x.avi")
    step = "d" * 250
    monkeypatch.chdir(tmp_path / "A")
    for _ in range(17):
        Path(step).mkdir()
        os.chdir(step)
    data = recognise_dataset(tmp_path)
    assert [(left.path[:10], left.reason) for left in data.left_out] == [("A/dddddddd", "unreadable folder")]
    assert [e.path for e in data.entries] == ["A/x.avi"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder; the PATH_MAX test stands in")
def test_folder_without_permission_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "A/x.avi", "B/y.avi")
    (tmp_path / "B").chmod(0)
    try:
        assert recognise_dataset(tmp_path).left_out == (LeftOut("B", "unreadable folder"),)
    finally:
        (tmp_path / "B").chmod(0o700)


# ---- folders


def test_folder_per_class(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "b/1.avi", "b/deep/2.avi", "A/3.avi", "stray.avi"), val_fraction=0)
    assert (data.kind, data.classes) == ("folders", ("A", "b"))
    assert labels(data) == {"A/3.avi": ("A", "train"), "b/1.avi": ("b", "train"), "b/deep/2.avi": ("b", "train")}
    assert data.left_out == (LeftOut("stray.avi", "not in a class folder"),)
    assert data.warnings == ("classes with only 1 video (1): A",)


def test_only_loose_videos_explains_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 videos, none in a class folder \(a.avi, b.avi\); expected ROOT/<class>/"):
        recognise_dataset(touch(tmp_path, "a.avi", "b.avi"))


def test_one_class_asks_whether_root_is_right(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "UCF-101/Lunges/a.avi", "UCF-101/Punch/b.avi"))
    assert data.warnings == (f"only one class, UCF-101: is {tmp_path} the folder that holds the class folders?",)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "test"), ("train", "test")),
        (("training", "Validation"), ("train", "test")),
        (("train", "val", "test"), ("train", "val", "test")),
    ],
)
def test_split_folders(tmp_path: Path, folders: tuple[str, ...], splits: tuple[str, ...]) -> None:
    for folder in folders:
        touch(tmp_path, f"{folder}/A/1.avi", f"{folder}/B/sub/2.avi", f"{folder}/loose.avi")
    data = recognise_dataset(touch(tmp_path, "extra/3.avi"))
    assert (data.kind, data.classes) == ("folders", ("A", "B"))
    for folder, split in zip(folders, splits, strict=True):
        assert labels(data)[f"{folder}/A/1.avi"] == ("A", split)
        assert labels(data)[f"{folder}/B/sub/2.avi"] == ("B", split)
    assert LeftOut("extra/3.avi", "not in the folder of a split") in data.left_out
    assert LeftOut(f"{folders[0]}/loose.avi", "not in a class folder") in data.left_out
    assert data.warnings == ()


def test_val_is_the_test_split_where_test_has_no_classes(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "train/A/1.avi", "val/A/2.avi", "test/unlabelled.avi"))
    assert split_of(data) == {"train/A/1.avi": "train", "val/A/2.avi": "test"}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "train/1.avi", "car/2.avi"))
    assert data.classes == ("car", "train")


def test_only_a_train_folder_warns(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "train/A/1.avi", "train/B/2.avi"))
    assert "no folder test or val beside train: there is nothing to evaluate on" in data.warnings


def test_split_folders_without_class_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none in a class folder"):
        recognise_dataset(touch(tmp_path, "train/1.avi", "test/2.avi"))


def test_class_without_a_train_video_warns(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "train/A/1.avi", "test/A/2.avi", "test/B/3.avi", "test/B/4.avi"))
    assert data.warnings == ("classes without a train video (1): B",)


# ---- the held-out share


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_fraction_outside_its_range(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="expected a share of each class, 0 <= val_fraction < 1"):
        recognise_dataset(touch(tmp_path, "A/1.avi"), val_fraction=fraction)


@pytest.mark.parametrize(
    ("size", "fraction", "held"), [(10, 0.2, 2), (2, 0.01, 1), (1, 0.5, 0), (10, 0.0, 0), (3, 0.99, 2), (8, 0.3, 2)]
)
def test_share_held_out_of_single_videos(tmp_path: Path, size: int, fraction: float, held: int) -> None:
    data = recognise_dataset(touch(tmp_path, *(f"A/{i}.avi" for i in range(size))), val_fraction=fraction)
    assert list(split_of(data).values()).count("test") == held
    assert len(data.entries) == size


def test_held_out_videos_stay_where_others_come_and_go(tmp_path: Path) -> None:
    few = split_of(recognise_dataset(touch(tmp_path, *(f"A/{i}.avi" for i in range(10)))))
    more = split_of(recognise_dataset(touch(tmp_path, *(f"B/{i}.avi" for i in range(10)))))
    assert {path: more[path] for path in few} == few
    # Written down: another machine or version must hold out the same videos.
    assert [path for path, split in few.items() if split == "test"] == ["A/0.avi", "A/6.avi"]


def test_ucf_groups_are_held_out_whole(tmp_path: Path) -> None:
    paths = [f"Punch/v_Punch_g{g:02}_c{c:02}.avi" for g in range(1, 8) for c in range(1, 4)]
    sides: dict[str, set[str]] = {}
    for path, split in split_of(recognise_dataset(touch(tmp_path, *paths))).items():
        sides.setdefault(path[:17], set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert sum(side == {"test"} for side in sides.values()) == 2  # round(0.2 * 21) = 4 videos: two groups of three


def test_class_of_one_group_is_not_held_out(tmp_path: Path) -> None:
    data = recognise_dataset(touch(tmp_path, "P/v_P_g01_c01.avi", "P/v_P_g01_c02.avi", "Q/1.avi", "Q/2.avi"))
    assert {s for p, s in split_of(data).items() if p.startswith("P/")} == {"train"}
