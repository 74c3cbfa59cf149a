from __future__ import annotations

import fcntl
import gc
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from clips import write_classes
from damage.forged_index import read_all
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_until

from pipelines.datasets.entries import Missing
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import IndexFileError
from pipelines.index.index_file import PAGE_BYTES, TABLES, IndexFile, connect_guarded
from pipelines.index.video_index import VideoIndex, write_index


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of six videos in two classes, with groups, a file that is left out, and one that the list lacks."""
    root = write_classes(tmp_path_factory.mktemp("videos") / "data", 6, num_frames=4)
    (root / "a" / "bad.avi").write_bytes(b"no video")
    data = recognise_dataset(root, group="v([0-9])")
    data = replace(data, missing=(Missing("a/gone.avi", "train"),), options={"group": "v([0-9])"})
    return write_index(root.parent / "data.r3dindex", root, data, workers=0).path


def said_by(path: Path) -> list[Any]:
    """All that an index says. Raises IndexFileError."""
    index = VideoIndex.open(path)
    return [
        index.classes, index.splits, index.digest, index.kind, index.rule, index.warnings, index.ignored, index.options,
        index.root, index.lists, index.names(), index.file_states(), index.groups(), index.quarantined, index.missing,
        index.noted(), index.sizes(), index.counts("codec"), index.counts("size"), index.largest_file("train"),
        index.frame_rates().tolist(), index.columns("fold-1-of-2").video_id.tolist(), len(index.kinds()),
        *read_all(index),
    ]  # fmt: skip


@dataclass(frozen=True, repr=False)  # Hypothesis shows what a test that fails had, and would choke on this
class Whole:
    """The bytes of the sound index, and what it says."""

    content: bytes
    says: list[Any]


@pytest.fixture(scope="module")
def whole(sound: Path) -> Whole:
    return Whole(sound.read_bytes(), said_by(sound))


def check(sound: Path, content: bytes, said: list[Any]) -> None:
    """An index with this content says the same as the sound one, or is refused with one line that names a remedy."""
    path = sound.with_name("damaged.r3dindex")
    path.write_bytes(content)
    try:
        found = said_by(path)
    except IndexFileError as error:
        text = str(error)
        assert text.startswith(f"{path}: ")
        assert "make it again with: r3d-fast data index " in text or "delete it and run: r3d-fast data index " in text
        assert "\n" not in text
    else:
        assert found == said


# Most of the file are pages that are half empty: look at their beginnings and ends more often.
NEAR = st.integers(0, 120) | st.integers(0, PAGE_BYTES - 1) | st.integers(PAGE_BYTES - 400, PAGE_BYTES - 1)
SHARE = st.floats(0.0, 1.0)  # how far into the file something lies


@given(changes=st.lists(st.tuples(SHARE, NEAR, st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_a_byte_that_is_another_changes_nothing_or_is_noticed(
    sound: Path, whole: Whole, changes: list[tuple[float, int, int]]
) -> None:
    content = bytearray(whole.content)
    for share, place, value in changes:
        content[int(share * (len(content) // PAGE_BYTES - 1)) * PAGE_BYTES + place] = value
    check(sound, bytes(content), whole.says)


@given(
    shares=st.tuples(SHARE, SHARE, SHARE),
    kind=st.sampled_from(["cut", "over", "into", "pages", "more"]),
    more=st.binary(max_size=100),
)
@settings(max_examples=150, deadline=None)
def test_what_is_cut_or_mixed_up_is_noticed(
    sound: Path, whole: Whole, shares: tuple[float, float, float], kind: str, more: bytes
) -> None:
    content = whole.content
    begin, end, target = (int(share * len(content)) for share in shares)
    piece = content[min(begin, end) : max(begin, end)]
    if kind == "cut":
        content = content[:begin]
    elif kind == "over":
        content = (content[:target] + piece + content[target + len(piece) :])[: len(content)]
    elif kind == "into":
        content = content[:target] + piece + content[target:]
    elif kind == "pages":
        source, place = (int(share * (len(content) // PAGE_BYTES - 1)) * PAGE_BYTES for share in shares[:2])
        content = content[:place] + content[source : source + PAGE_BYTES] + content[place + PAGE_BYTES :]
    else:
        content += more
    check(sound, content, whole.says)


@pytest.mark.parametrize("flip", range(8))
def test_each_byte_of_the_header_can_be_another(sound: Path, whole: Whole, flip: int) -> None:
    for place in range(108):
        content = bytearray(whole.content)
        content[place] ^= 1 << flip
        check(sound, bytes(content), whole.says)


# The size of a page, the six bytes of its form, and the last bytes of five numbers; the page's kind and its rows.
@pytest.mark.parametrize("place", [16, 17, *range(18, 24), 39, 55, 59, 67, 100, 104])
def test_a_header_that_no_build_writes_is_refused_before_sqlite_reads_it(
    sound: Path, tmp_path: Path, place: int
) -> None:
    content = bytearray(sound.read_bytes())
    content[place] ^= 4
    path = tmp_path / "i.r3dindex"
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match="its header is damaged"):
        IndexFile(path)


@pytest.mark.parametrize("name", ["short", "other"])
def test_a_file_without_a_whole_first_page_or_the_mark_of_sqlite_is_no_database(
    sound: Path, tmp_path: Path, name: str
) -> None:
    content = sound.read_bytes()
    path = tmp_path / "i.r3dindex"
    path.write_bytes(content[:50] if name == "short" else bytes(1) + content[1:])
    with pytest.raises(IndexFileError, match="it is no SQLite database"):
        IndexFile(path)


def test_a_connection_trusts_nothing_in_the_file(sound: Path) -> None:
    with closing(connect_guarded(sound, sound.stat().st_size, lambda: False)) as db:
        names = ("trusted_schema", "cell_size_check", "mmap_size", "query_only")
        assert [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names] == [0, 1, 0, 1]
        assert db.getlimit(sqlite3.SQLITE_LIMIT_ATTACHED) == db.getlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH) == 0


def test_a_query_that_takes_more_steps_than_any_of_a_sound_index_is_ended(sound: Path) -> None:
    endless = "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n LIMIT ?) SELECT count(*) FROM n"
    file = IndexFile(sound)
    assert list(file.rows(endless, 1000)) == [(1000,)]
    with pytest.raises(IndexFileError, match="it is damaged: its tables do not end"):
        list(file.rows(endless, 20_000_000))
    assert list(file.rows(endless, 1000)) == [(1000,)]  # each query has steps of its own


def test_an_index_that_is_deleted_while_one_waits_for_its_build_is_an_error(sound: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(sound, tmp_path / "i.r3dindex"))

    def openings() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{name}") == str(path) for name in os.listdir("/proc/self/fd"))

    with path.open("rb") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)  # as a build does while it renames
        found = pool.submit(IndexFile, path)
        wait_until(lambda: openings() == 2 or found.done(), "to open the file")
        path.unlink()
        fcntl.flock(held, fcntl.LOCK_UN)
        with pytest.raises(IndexFileError, match=r"it can't be read \(No such file or directory\)"):
            found.result()


def test_what_sqlite_finds_damaged_is_called_damaged_and_what_it_can_not_open_is_not(
    sound: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(sound, tmp_path / "i.r3dindex"))
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'videos'").fetchone()
    file = IndexFile(path)
    with path.open("r+b") as changed:
        changed.seek((page - 1) * PAGE_BYTES)
        changed.write(b"\xff" * 8)  # no page of SQLite begins like this
    with pytest.raises(IndexFileError, match="it is damaged: database disk image is malformed"):
        list(file.rows("SELECT * FROM videos"))
    with pytest.raises(IndexFileError, match="it can't be read: no such table: none"):
        list(file.rows("SELECT * FROM none"))


def test_texts_of_the_schema_that_are_no_utf_8_are_noticed(sound: Path, whole: Whole) -> None:
    for place in range(PAGE_BYTES - 1500, PAGE_BYTES, 11):
        content = bytearray(whole.content)
        content[place] = 0x80
        check(sound, bytes(content), whole.says)


def test_the_schema_fits_into_the_first_page_and_has_nothing_but_tables(sound: Path) -> None:
    with closing(sqlite3.connect(sound)) as db:
        found = db.execute("SELECT type, name FROM sqlite_master").fetchall()
        assert found == [("table", name) for name in TABLES]
        (length,) = db.execute("SELECT SUM(LENGTH(sql)) FROM sqlite_master").fetchone()
        assert length < PAGE_BYTES - 1000


def test_an_index_that_shrinks_while_it_is_open_is_an_error(sound: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(sound, tmp_path / "i.r3dindex"))
    index = VideoIndex.open(path)
    with path.open("r+b") as file:
        file.truncate(PAGE_BYTES)
    with pytest.raises(IndexFileError, match=r"i\.r3dindex: .*; make it again with: r3d-fast data index "):
        index.names()


def test_an_open_index_holds_two_descriptors_and_gives_them_back(sound: Path) -> None:
    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # what earlier tests have left open
    before = held()
    index = VideoIndex.open(sound)
    index.names()
    assert held() - before == 2
    del index
    assert held() == before
