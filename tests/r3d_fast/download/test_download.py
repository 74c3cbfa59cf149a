"""`r3d-fast data download` against a server on this machine that has small archives of the official layouts."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from clips import write_stamped_video
from faulty_server import Fault, FaultyServer, serving
from rar_files import PACKED, Stored, folder, rar4, rar5
from small_disk import mounted

from pipelines.errors import EnvironmentProblem
from pipelines.index.video_index import VideoIndex
from r3d_fast.cli import cli, run_cli
from r3d_fast.download.download import DOWNLOADS, download
from r3d_fast.download.rar_readers import TO_DO, rar_readers

CLASSES = ("Lunges", "Punch")
HMDB = ("brush_hair", "catch")
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_stamped_video(tmp_path_factory.mktemp("video") / "v.avi", num_frames=6).read_bytes()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return out.getvalue()


def ucf_files(video: bytes) -> dict[str, bytes]:
    """The two archives of UCF-101, with 2 classes of 6 groups; split N tests groups 2N - 1 and 2N."""
    names = [f"{name}/v_{name}_g{group:02}_c01.avi" for name in CLASSES for group in range(1, 7)]
    lists = {"classInd.txt": "".join(f"{i} {name}\r\n" for i, name in enumerate(CLASSES, 1))}
    for split in (1, 2, 3):
        tested = [name for name in names if int(name[-10:-8]) in (2 * split - 1, 2 * split)]
        rows = [f"{name} {CLASSES.index(name.partition('/')[0]) + 1}\n" for name in names if name not in tested]
        lists[f"trainlist{split:02}.txt"] = "".join(rows)
        lists[f"testlist{split:02}.txt"] = "".join(f"{name}\n" for name in tested)
    return {
        "/UCF101TrainTestSplits-RecognitionTask.zip": zipped(
            {"ucfTrainTestlist/": b"", **{f"ucfTrainTestlist/{name}": text.encode() for name, text in lists.items()}}
        ),
        "/UCF101.rar": rar4(folder("UCF-101"), *(Stored(f"UCF-101/{name}", video) for name in names)),
    }


def hmdb_files(video: bytes, *, flat: bool = False) -> dict[str, bytes]:
    """The two archives of HMDB-51, with 2 classes of 4 videos; `flat`: no folder in the archive of a class."""
    names = {name: [f"#{i} [x]_{name}_u_cm_np1_fr_med_{i}.avi" for i in range(4)] for name in HMDB}
    lists = [
        Stored(
            f"testTrainMulti_7030_splits/{name}_test_split{split}.txt",
            "".join(f"{video} {(2, 1, 1, 0)[(i + split) % 4]} \n" for i, video in enumerate(names[name])).encode(),
        )
        for name in HMDB
        for split in (1, 2, 3)
    ]
    inner = {
        name: rar5(*(Stored(file if flat else f"{name}/{file}", video) for file in files))
        for name, files in names.items()
    }
    return {
        "/test_train_splits.rar": rar4(*lists),
        "/hmdb51_org.rar": rar4(*(Stored(f"{name}.rar", data) for name, data in inner.items())),
    }


@pytest.fixture
def server(video: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    if not rar_readers():
        pytest.skip("nothing here unpacks RAR archives: pip install 'r3d-fast[download]'")
    files = {**ucf_files(video), **hmdb_files(video)}
    for name, data in DOWNLOADS.items():
        # The small archives have sizes and checksums of their own.
        small = {
            part: replace(archive, wanted=replace(archive.wanted, size=len(files[f"/{archive.name}"]), checksum=""))
            for part, archive in (("lists", data.lists), ("videos", data.videos))
        }
        monkeypatch.setitem(DOWNLOADS, name, replace(data, **small))
    with serving(FaultyServer({f"/mirror{path}": data for path, data in files.items()})) as running:
        yield running


def expect(name: str, part: str, **values: object) -> None:
    """Change what is expected of an archive; the fixture `server` puts it back."""
    archive = getattr(DOWNLOADS[name], part)
    changed = replace(archive, wanted=replace(archive.wanted, **values))  # type: ignore[arg-type]
    DOWNLOADS[name] = replace(DOWNLOADS[name], **{part: changed})


@pytest.fixture
def said(server: FaultyServer, capsys: pytest.CaptureFixture[str]) -> Said:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        return tiny.said(capsys, "data", "download", *arguments, "--mirror", f"{server.url}/mirror/")

    return call


def test_ucf101(said: Said, server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/mirror/UCF101.rar"] = [Fault(after=20_000)]
    root = tmp_path / "d"
    code, out, err = said("ucf101", "--root", root, "--split", "2", "--json", tmp_path / "j")
    assert code == 0, err
    assert "videos   12 (8 train, 4 test)" in out
    assert "lists    split 2 of ucf101" in out
    assert f"r3d-fast train -c ucf101_r3d18 -o data.root={root / 'UCF-101'}\n" in out
    assert re.search(
        r"unpacking UCF101\.rar; it is checked by its size of \d+ bytes and the checksum of each file in it", err
    )
    assert sorted(path.name for path in root.iterdir()) == ["UCF-101", "UCF-101.r3dindex", "ucfTrainTestlist"]
    index = VideoIndex.open(root / "UCF-101.r3dindex")
    assert {index[int(i)].path[-11:-8] for i in index.columns("test").video_id} == {"g03", "g04"}
    assert json.loads((tmp_path / "j").read_text(encoding="utf-8"))["lists_split"] == 2
    asked = len(server.requests)
    code, out, _ = said("ucf101", "--root", root)
    assert (code, len(server.requests)) == (0, asked), "what is there is not downloaded again"
    assert "lists    split 1 of ucf101" in out
    command = re.search(r"^another split: r3d-fast (.*)$", out, re.M)
    assert command
    assert command[1] == f"data index {root / 'UCF-101'} --lists {root / 'ucfTrainTestlist'} --split 2"
    assert run_cli(cli, command[1].split(), "r3d-fast") == 0


@pytest.mark.parametrize("flat", [False, True])
def test_hmdb51(said: Said, server: FaultyServer, tmp_path: Path, video: bytes, flat: bool) -> None:
    server.files["/mirror/hmdb51_org.rar"] = hmdb_files(video, flat=flat)["/hmdb51_org.rar"]
    expect("hmdb51", "videos", size=len(server.files["/mirror/hmdb51_org.rar"]))
    code, out, err = said("hmdb51", "--root", tmp_path, "--keep-archives")
    assert code == 0, err
    assert "videos   6 (4 train, 2 test)" in out
    assert "classes  2: brush_hair (3), catch (3)" in out
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "HMDB-51",
        "HMDB-51.r3dindex",
        "hmdb51_org.rar",
        "testTrainMulti_7030_splits",
        "test_train_splits.rar",
    ]
    assert len(list((tmp_path / "HMDB-51").glob("*/*.avi"))) == 8


def test_classes_that_are_unpacked_are_not_unpacked_again(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r3d_fast.download import download as module

    done: list[str] = []
    original = module.unpack

    def stopped(archive: Path, target: Path, **options: object) -> int:
        if archive.name == "catch.rar" and "catch.rar" not in done:
            done.append("catch.rar")
            raise EnvironmentProblem("stopped")
        done.append(archive.name)
        return original(archive, target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "unpack", stopped)
    assert said("hmdb51", "--root", tmp_path)[0] == 4
    assert not (tmp_path / "HMDB-51").exists()
    assert said("hmdb51", "--root", tmp_path)[0] == 0
    assert done == ["test_train_splits.rar", "hmdb51_org.rar", "brush_hair.rar", "catch.rar", "catch.rar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "HMDB-51",
        "HMDB-51.r3dindex",
        "testTrainMulti_7030_splits",
    ]


def test_an_archive_that_lies_there_already_is_taken(said: Said, server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "UCF101.rar").write_bytes(server.files.pop("/mirror/UCF101.rar"))
    assert said("ucf101", "--root", tmp_path, "--keep-archives")[0] == 0
    assert [path for path, _ in server.requests] == ["/mirror/UCF101TrainTestSplits-RecognitionTask.zip"]
    assert (tmp_path / "UCF101.rar").exists()


def test_a_wrong_checksum(said: Said, server: FaultyServer, tmp_path: Path) -> None:
    expect("ucf101", "lists", checksum="sha256:" + "0" * 64)
    code, _, err = said("ucf101", "--root", tmp_path)
    assert code == 3
    assert "it was deleted" in err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_of_the_right_size(said: Said, server: FaultyServer, tmp_path: Path, video: bytes) -> None:
    whole = server.files["/mirror/UCF101.rar"]
    at = whole.rindex(video) + len(video) // 2
    server.files["/mirror/UCF101.rar"] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    code, _, err = said("ucf101", "--root", tmp_path)
    assert code == 3
    assert "v_Punch_g06_c01.avi" in err
    assert "UCF101.rar" in err
    assert not (tmp_path / "UCF-101").exists()


def test_traversal_names(said: Said, server: FaultyServer, tmp_path: Path, video: bytes) -> None:
    for data in (zipped({"../out.txt": b"x"}), zipped({"/tmp/r3d-fast-out.txt": b"x"})):
        server.files["/mirror/UCF101TrainTestSplits-RecognitionTask.zip"] = data
        expect("ucf101", "lists", size=len(data))
        code, _, err = said("ucf101", "--root", tmp_path / "d")
        assert code == 3
        assert "refused, nothing was unpacked" in err
        (tmp_path / "d" / "UCF101TrainTestSplits-RecognitionTask.zip").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert not Path("/tmp/r3d-fast-out.txt").exists()


def test_a_full_disk_and_room_again(said: Said, tmp_path: Path, video: bytes, limit: Any) -> None:
    limit(len(video) - 1)
    code, _, err = said("ucf101", "--root", tmp_path)
    limit()
    assert code == 4
    assert "the disk is full: downloading UCF101.rar needs" in err
    assert (tmp_path / "UCF101.rar.part").stat().st_size == len(video) - 1
    assert said("ucf101", "--root", tmp_path)[0] == 0


def test_a_disk_that_fills_while_unpacking(said: Said, server: FaultyServer, tmp_path: Path) -> None:
    size = len(server.files["/mirror/UCF101.rar"])
    with mounted(tmp_path / "disk", f"size={size + 200_000}") as disk:
        code, _, err = said("ucf101", "--root", disk)
        assert code == 4
        assert "the disk is full: unpacking " in err
        assert "run the command again: complete files are kept" in err
        assert not list(disk.glob(".*"))
        assert not (disk / "UCF-101").exists()


@pytest.mark.parametrize("kind", ["full", "read-only", "file", "below a file"])
def test_a_root_that_can_not_be_written_is_said_before_a_byte_comes(
    said: Said, server: FaultyServer, tmp_path: Path, kind: str
) -> None:
    root, reason = tmp_path / "d", "a part of the path is a file"
    with ExitStack() as stack:
        if kind == "full":
            stack.enter_context(mounted(root, "size=4k"))
            (root / "all").write_bytes(bytes(4096))
            reason = "No space left on device"
        elif kind == "read-only":
            stack.enter_context(mounted(root, "ro"))
            reason = "Read-only file system"
        else:
            root.write_text("mine")
            root = root / "in" if kind == "below a file" else root
        code, out, err = said("ucf101", "--root", root)
    assert (code, out, err) == (2, "", f"r3d-fast: {root}: can't be written: {reason}\n")
    assert server.requests == []


def test_nothing_that_unpacks_is_said_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r3d_fast.download.download.rar_readers", list)
    with pytest.raises(
        EnvironmentProblem, match="comes as RAR archives, and no program here unpacks them; install one: pip install"
    ) as caught:
        download("ucf101", tmp_path, say=print)
    assert TO_DO in str(caught.value)


def test_the_official_addresses() -> None:
    for data in DOWNLOADS.values():
        for archive in (data.lists, data.videos):
            assert archive.wanted.url.startswith("https://")
            assert archive.name.endswith((".rar", ".zip"))
            assert archive.wanted.size or archive.wanted.checksum
            kind, _, digits = archive.wanted.checksum.partition(":")
            assert len(digits) == {"": 0, "md5": 32, "sha256": 64}[kind]


def test_packed_archives_come_from_the_mirror_too(said: Said, server: FaultyServer, tmp_path: Path) -> None:
    server.files["/mirror/UCF101.rar"] = PACKED[0].read_bytes()
    expect("ucf101", "videos", size=PACKED[0].stat().st_size)
    code, _, err = said("ucf101", "--root", tmp_path / "d")
    assert code == 3, "the lists name videos that it does not have"
    assert "12 of 12 listed videos are missing" in err
    assert len(list((tmp_path / "d" / "UCF-101").rglob("*.avi"))) == 3
