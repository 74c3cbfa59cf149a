"""Downloads a data set: its official addresses, its archives, and the folders that they are unpacked to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.errors import DataError, EnvironmentProblem
from pipelines.output.files import put_in_place
from pipelines.output.folders import make_folder
from r3d_fast.download.rar_readers import TO_DO, rar_readers
from r3d_fast.download.transfer import Wanted, fetch
from r3d_fast.download.unpacking import as_bytes, unpack

Say = Callable[[str], None]
Show = Callable[[str, int, int], None]  # (title of a task, steps done, steps in all), for a progress bar
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Archive:
    """An archive to download, and the `folder` that it is unpacked to; in the archive that folder is named `inside`."""

    wanted: Wanted
    folder: str
    inside: str

    @property
    def name(self) -> str:
        """The name of the archive file."""
        return self.wanted.url.rpartition("/")[2]

    @property
    def checked_by(self) -> str:
        """How the download is checked, as words for a message."""
        by = [f"its size of {self.wanted.size} bytes"] if self.wanted.size is not None else []
        by += [self.wanted.checksum.partition(":")[0].upper()] if self.wanted.checksum else []
        return " and ".join([*by, "the checksum of each file in it"])


@dataclass(frozen=True)
class Downloadable:
    """A data set: the archives of its lists and of its videos, and the config to train on it.

    `is_nested`: the archive of the videos contains one archive per class.
    """

    lists: Archive
    videos: Archive
    is_nested: bool
    config: str


_UCF, _HMDB = "https://www.crcv.ucf.edu/data/UCF101/", "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/"

# No checksum of UCF101.rar and hmdb51_org.rar was published, so only the checksums inside the archives are compared.
# Their sizes are from logs of wget that others published (hmdb51_org.rar: June 2021). Size and SHA-256 of UCF-101's
# lists are from TensorFlow Datasets, url_checksums/ucf101.txt; the MD5 of HMDB-51's lists is from torchvision,
# datasets/hmdb51.py. HMDB-51's server is said to be gone (fiftyone, pull request 6528, November 2025); the address is
# still the one that its authors gave.
DOWNLOADS = {
    "ucf101": Downloadable(
        Archive(
            Wanted(
                f"{_UCF}UCF101TrainTestSplits-RecognitionTask.zip",
                113_943,
                "sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
            ),
            "ucfTrainTestlist",
            "ucfTrainTestlist",
        ),
        Archive(Wanted(f"{_UCF}UCF101.rar", 6_932_971_618), "UCF-101", "UCF-101"),
        is_nested=False,
        config="ucf101_r3d18",
    ),
    "hmdb51": Downloadable(
        Archive(
            Wanted(f"{_HMDB}test_train_splits.rar", None, "md5:15e67781e70dcfbdce2d7dbb9b3344b5"),
            "testTrainMulti_7030_splits",
            "testTrainMulti_7030_splits",
        ),
        Archive(Wanted(f"{_HMDB}hmdb51_org.rar", 2_124_008_126), "HMDB-51", ""),
        is_nested=True,
        config="hmdb51_r3d18",
    ),
}


@dataclass(frozen=True)
class Downloaded:
    """The folders of a downloaded data set: its videos and its lists."""

    videos: Path
    lists: Path


def download(
    name: str, root: Path, *, mirror: str = "", keep_archives: bool = False, say: Say, show: Show | None = None
) -> Downloaded:
    """Download the data set `name` into the folder `root` and unpack it; parts that are there already are kept.

    `mirror` is a folder on the web to use instead of the official one. After an interruption, the next call continues
    where this one stopped. Archives are deleted after they are unpacked, unless `keep_archives`. `say` gets lines of
    text, `show` the progress. Raises what fetch and unpack raise, and UsageError where `root` can't be written. If no
    program here can unpack RAR archives, it raises EnvironmentProblem before it downloads anything.
    """
    data = DOWNLOADS[name]
    todo = [archive for archive in (data.lists, data.videos) if not (root / archive.folder).is_dir()]
    if any(archive.name.endswith(".rar") for archive in todo) and not rar_readers():
        raise EnvironmentProblem(
            f"{name} comes as RAR archives, and no program here unpacks them; install one: {TO_DO}"
        )
    make_folder(root)
    if data.videos not in todo:
        shutil.rmtree(_outer(root / data.videos.name), ignore_errors=True)  # left by a call that was stopped at its end
    for archive in todo:
        wanted = archive.wanted
        if mirror:
            wanted = replace(wanted, url=f"{mirror.rstrip('/')}/{archive.name}")
        file = root / archive.name
        partial = root / f"{archive.folder}{_PARTIAL}"
        if not partial.is_dir() or (archive.folder == data.videos.folder and data.is_nested):
            say(f"downloading {wanted.url}" + (f" ({as_bytes(wanted.size)})" if wanted.size else ""))
            fetch(wanted, file, on_bytes=_in_megabytes(archive.name, show))
            say(f"unpacking {archive.name}; it is checked by {archive.checked_by}")
            if archive is data.videos and data.is_nested:
                _unpack_nested(file, partial, show)
            else:
                unpack(file, partial, strip=archive.inside, on_file=_named(f"files of {archive.name}", show))
        put_in_place(partial, root / archive.folder)
        shutil.rmtree(_outer(file), ignore_errors=True)
        if not keep_archives:
            file.unlink(missing_ok=True)
    return Downloaded(root / data.videos.folder, root / data.lists.folder)


def _unpack_nested(file: Path, partial: Path, show: Show | None) -> None:
    """Unpack an archive that contains one archive per class, each to a folder in `partial`; finished ones are kept."""
    outer = _outer(file)
    if not outer.is_dir():
        unpack(file, outer, on_file=_named(f"classes of {file.name}", show))
    archives = sorted(outer.rglob("*.rar"))
    if not archives:
        raise DataError(f"{file}: contains no archive; expected one per class, such as brush_hair.rar")
    partial.mkdir(exist_ok=True)
    for number, archive in enumerate(archives):
        if not (partial / archive.stem).is_dir():
            unpack(archive, partial / archive.stem, strip=archive.stem)
        if show is not None:
            show("classes unpacked", number + 1, len(archives))


def _outer(file: Path) -> Path:
    """The temporary folder for the archives inside the archive `file`."""
    return file.with_name(f"{file.stem}.archives")


def _named(title: str, show: Show | None) -> Callable[[int, int], None] | None:
    return None if show is None else lambda done, total: show(title, done, total)


def _in_megabytes(name: str, show: Show | None) -> Callable[[int, int], None] | None:
    return None if show is None else lambda had, total: show(f"MB of {name}", had // 10**6, max(total, had) // 10**6)
