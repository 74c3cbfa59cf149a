from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from clips import write_classes
from damage.forged_index import forge, read_all
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import IndexFileError
from pipelines.index.index_file import APPLICATION_ID, PAGE_BYTES, TABLES
from pipelines.index.video_index import VideoIndex
from pipelines.index.video_rows import is_below_root
from pipelines.video.packets import PacketTable

REPO = Path(__file__).resolve().parents[3]
_ENDLESS = "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n)"
_MEMORY = 1 << 31  # bytes of address space that reading a hostile index may take, libraries included
_READ = """
import resource, sys
from pipelines.errors import IndexFileError
from pipelines.index.video_index import VideoIndex
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
try:
    index = VideoIndex.open(sys.argv[1])
    index.names(), index.groups(), index.quarantined, index.missing, index.kinds(), index.noted()
    for number in range(len(index)):
        index[number]
except IndexFileError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_classes(tmp_path_factory.mktemp("videos") / "data", 4, num_frames=4)
    return VideoIndex.build(root, workers=0).path


@pytest.fixture
def path(built: Path, tmp_path: Path) -> Path:
    """An index of four videos, which a test may change."""
    return Path(shutil.copy(built, tmp_path / "i.r3dindex"))


def read_apart(path: Path) -> str:
    """The message of the IndexFileError that reading all of the index gives, in a process with little memory."""
    command = [sys.executable, "-c", _READ, str(path), str(_MEMORY)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: ")
    assert done.stdout.count("\n") == 1
    return done.stdout


def error_of(path: Path) -> str:
    """The message of the IndexFileError that reading all of the index gives."""
    with pytest.raises(IndexFileError) as error:
        read_all(VideoIndex.open(path))
    assert "; make it again with: r3d-fast data index " in str(error.value)
    return str(error.value)


def test_a_forged_index_is_read_where_all_is_as_it_should_be(path: Path) -> None:
    forge(path, "UPDATE videos SET note = 'odd'")
    index = VideoIndex.open(path)
    read_all(index)
    assert index.noted() == {"odd": list(index.names())}


_SCHEMAS = {
    "view": ("DROP TABLE missing", f"CREATE VIEW missing AS {_ENDLESS} SELECT k AS name, k AS split FROM n"),
    "view of videos": ("ALTER TABLE videos RENAME TO v", f"CREATE VIEW videos AS {_ENDLESS} SELECT v.* FROM v, n"),
    "trigger": ("CREATE TRIGGER meta2 AFTER INSERT ON meta BEGIN DELETE FROM videos; END",),
    "table": ("CREATE TABLE more (x)",),
    "index": ("CREATE INDEX by_path ON videos (path)",),
    "column": ("ALTER TABLE missing ADD COLUMN x",),
    "generated": ("ALTER TABLE missing ADD COLUMN x AS (zeroblob(1000000000))",),
    "no table": ("DROP TABLE packets",),
}


@pytest.mark.parametrize("name", _SCHEMAS)
def test_other_tables_views_and_triggers_are_refused(path: Path, name: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in _SCHEMAS[name]:
            db.execute(statement)
        db.execute("VACUUM")
    assert "header is damaged" in error_of(path) or "other tables" in error_of(path)
    assert read_apart(path)


@pytest.mark.parametrize(
    "change",
    [
        "path = '../../etc/passwd'", "path = '/etc/passwd'", "path = 'a/../../x'", "path = 'a' || char(0)", "path = ''",
        "path = x'00'", "size = 0", "size = -1", "size = 'x'", "mtime_ns = NULL", "num_frames = 0", "num_frames = 5",
        "num_frames = 1000000000000", "height = 0", "height = -4, width = -4", "height = 1000000, width = 1000000",
        "fps = -1.0", "fps = 1e999", "fps = 'x'", "orientation = 8", "orientation = -1", "corrupt = -2",
        "begin_seconds = 2.0, end_seconds = 1.0", "end_seconds = 1e999", "label = 2", "label = -1", "split = 'other'",
        "parameters = '{}'", "parameters = '['", "parameters = replace(hex(zeroblob(399)), '0', '[')",
        "parameters = hex(zeroblob(100000))", "parameters = json_set(parameters, '$.width', 'x')",
        "parameters = json_set(parameters, '$.width', 99999999999)", "parameters = json_set(parameters, '$.more', 1)",
        "parameters = json_set(parameters, '$.aspect', 1)", "checksum = x'00'", "id = id + 1", "id = -id",
    ],
)  # fmt: skip
def test_values_that_no_video_has_are_refused(path: Path, change: str) -> None:
    forge(path, f"UPDATE videos SET {change} WHERE id = 4")
    assert error_of(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM videos WHERE id = 4", "DELETE FROM videos", "DELETE FROM packets WHERE id = 2", "DELETE FROM meta",
        "INSERT INTO videos SELECT id + 4, path, size, mtime_ns, num_frames, height, width, codec, decoder, pix_fmt, "
        "fps, container, parameters, orientation, checksum, note, begin_seconds, end_seconds, corrupt, label, split, "
        "digest FROM videos",
        "UPDATE packets SET packets = x''", "UPDATE packets SET packets = zeroblob(20000000)",
        "UPDATE packets SET packets = 'text'", "UPDATE packets SET extradata = NULL",
        "UPDATE columns SET data = x''", "UPDATE columns SET data = x'00'", "UPDATE columns SET data = x'ffffff7f'",
        "UPDATE columns SET data = x'ffffffffffffffffffffffffffffffff' WHERE name = 'label'",
        "UPDATE columns SET data = x'ffffff7fffffff7fffffff7fffffff7f' WHERE name = 'split'",
        "UPDATE columns SET data = x'00000000000000000000000000000000' WHERE name = 'num_frames'",
        "UPDATE columns SET data = x'ffffff7fffffff7fffffff7fffffff7f' WHERE name IN ('width', 'height')",
        "UPDATE columns SET data = x'01000000010000000100000001000000' WHERE name = 'group'",
        "UPDATE columns SET data = '{}' WHERE name = 'group_names'", "UPDATE columns SET name = 'label'",
        "DELETE FROM columns WHERE name = 'width'",
        "UPDATE meta SET value = '[1]' WHERE key = 'classes'", "UPDATE meta SET value = '[]' WHERE key = 'classes'",
        "UPDATE meta SET value = '[\"train\", \"train\"]' WHERE key = 'splits'",
        "UPDATE meta SET value = replace(hex(zeroblob(50000)), '0', '[') WHERE key = 'warnings'",
        "UPDATE meta SET value = '[]' WHERE key = 'options'", "UPDATE meta SET value = 'x' WHERE key = 'lists_split'",
        "UPDATE meta SET value = x'00' WHERE key = 'root'", "UPDATE meta SET value = 'a' || char(0) WHERE key = 'root'",
        "UPDATE meta SET key = 1 WHERE key = 'root'", "UPDATE meta SET value = '{\"x\": []}' WHERE key = 'ignored'",
        "INSERT INTO quarantine VALUES ('a', NULL, '', 4, 5)", "INSERT INTO missing VALUES (x'00', NULL)",
    ],
)  # fmt: skip
def test_rows_that_no_build_writes_are_refused(path: Path, statement: str) -> None:
    forge(path, statement)
    assert error_of(path)


@pytest.mark.parametrize("rowid", [0, 7])
def test_rows_with_other_numbers_are_refused(path: Path, rowid: int) -> None:
    forge(path, "INSERT INTO missing VALUES ('a', 'train')")
    read_all(VideoIndex.open(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF").close()
        db.execute("UPDATE missing SET rowid = ?", (rowid,))  # the digest is not of it
    assert "the table missing is damaged" in error_of(path)


@pytest.mark.parametrize("change", ["offset", "size", "frame", "more", "pts", "no key", "part", "none"])
def test_packet_tables_that_are_not_of_the_file_are_refused(path: Path, change: str) -> None:
    index = VideoIndex.open(path)
    table, size = index[0].packets, index[0].size
    start = b"PKT1"
    blob = bytearray(index[0].table)
    assert blob[:4] == start
    at = 24
    if change == "offset":
        blob[at : at + 4] = size.to_bytes(4, "little")
    elif change == "size":
        place = at + 4 * len(table.offset)
        blob[place : place + 4] = b"\xff\xff\xff\xff"
    elif change == "frame":
        blob[-2:] = len(table.offset).to_bytes(2, "little")
    elif change == "more":
        blob += bytes(1)
    elif change == "pts":
        blob[4] |= 4
    elif change == "no key":
        place = at + 8 * len(table.offset)
        blob[place : place + len(table.offset)] = bytes(len(table.offset))
    elif change == "part":
        blob = bytearray(table.part(0, 4).to_bytes())
        blob[-8:] = (2**63).to_bytes(8, "little")
    else:
        blob[8:24] = bytes(16)
        del blob[24:]
    forge(path, "UPDATE packets SET packets = ? WHERE id = 1", values=(bytes(blob),))
    assert "video 0 is damaged" in error_of(path)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 31))
@settings(max_examples=300, deadline=None)
def test_a_packet_table_never_takes_more_than_its_bytes(rest: bytes, packets: int, frames: int, bits: int) -> None:
    blob = b"PKT1" + bytes([bits, 0, 0, 0]) + packets.to_bytes(8, "little") + frames.to_bytes(8, "little") + rest
    try:
        table = PacketTable.from_bytes(blob)
    except ValueError:
        return
    assert len(table.offset) <= len(rest)
    assert table.num_frames <= len(table.frame_packet) <= len(rest)


@given(st.text(alphabet="ab./\0", max_size=12))
@settings(max_examples=300, deadline=None)
def test_a_path_below_the_root_stays_there(path: str) -> None:
    if not is_below_root(path):
        return
    depth = 0
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        assert depth >= 0
    assert not path.startswith("/")
    assert "\0" not in path


def test_pages_that_lead_to_the_same_rows_again_and_again_are_noticed(path: Path) -> None:
    forge(path, "INSERT INTO missing VALUES ('a', 'b')")
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'missing'").fetchone()
    content = bytearray(path.read_bytes())
    leaf = content[(root - 1) * PAGE_BYTES : root * PAGE_BYTES]
    child = len(content) // PAGE_BYTES + 1
    content += leaf
    for _ in range(6):  # 300 to the power of six rows
        page = bytearray(PAGE_BYTES)
        cells, start = 300, PAGE_BYTES - 300 * 5
        page[:12] = bytes([5]) + bytes(2) + cells.to_bytes(2) + start.to_bytes(2) + bytes(1) + child.to_bytes(4)
        for cell in range(cells):
            page[12 + 2 * cell : 14 + 2 * cell] = (start + 5 * cell).to_bytes(2)
            page[start + 5 * cell : start + 5 * cell + 5] = child.to_bytes(4) + bytes([1])
        content += page
        child = len(content) // PAGE_BYTES
    content[(root - 1) * PAGE_BYTES : root * PAGE_BYTES] = content[(child - 1) * PAGE_BYTES :]
    content[28:32] = (len(content) // PAGE_BYTES).to_bytes(4)
    path.write_bytes(content)
    assert "the table missing is damaged" in read_apart(path)


def test_an_earlier_index_with_tables_without_an_end_is_refused_in_time(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        for name in ("videos", "quarantine", "columns"):
            db.execute(f"CREATE TABLE {name} (x)")
        db.execute(f"CREATE VIEW meta AS {_ENDLESS} SELECT zeroblob(1000000) AS key, 'x' AS value FROM n")
    assert "another program); delete it and run: r3d-fast data index ROOT" in read_apart(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP VIEW meta")
        db.execute("CREATE TABLE meta (key, value)")
        db.execute("INSERT INTO meta VALUES ('root', zeroblob(100000000)), ('options', '[[[')")
    assert "an index of an earlier version; make it again with: r3d-fast data index ROOT" in read_apart(path)


def test_an_index_of_a_later_version_says_what_it_is(path: Path) -> None:
    root = VideoIndex.open(path).root
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 99")
    expected = f"{path}: index schema 99, expected 4; make it again with: r3d-fast data index {root} --index {path}"
    assert error_of(path) == expected


def test_the_remedy_has_the_options_and_quotes_them(path: Path) -> None:
    options = '{"val_fraction": 0.5, "group": "x; rm -rf ~", "lists": ["no text"], "other": 1, "follow_links": true}'
    forge(path, "UPDATE meta SET value = ? WHERE key = 'options'", "DELETE FROM videos", values=(options,))
    words = f"--index {path} --val-fraction 0.5 --follow-links --group 'x; rm -rf ~'"
    assert error_of(path).endswith(words)


def test_the_mark_of_an_index_is_in_its_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert {name for (name,) in db.execute("SELECT name FROM sqlite_master")} == TABLES.keys()
