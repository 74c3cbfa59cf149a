"""Downloads from a server that cuts, lies and is slow: what arrives is whole and right, or is not there."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Fault, FaultyServer, serving
from waiting import wait_until
from written import names

from pipelines.errors import DataError, EnvironmentProblem, UsageError
from r3d_fast.download.transfer import Wanted, _Redirects, fetch

DATA = random.Random(0).randbytes(300_000)
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving(FaultyServer({"/f.rar": DATA})) as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


def wanted(server: FaultyServer, **values: object) -> Wanted:
    return Wanted(f"{server.url}/f.rar", **{"size": len(DATA), "checksum": SHA256, **values})  # type: ignore[arg-type]


def test_a_file_arrives_whole(server: FaultyServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fetch(wanted(server), tmp_path / "d" / "f.rar", on_bytes=lambda had, total: seen.append((had, total)))
    assert (tmp_path / "d" / "f.rar").read_bytes() == DATA
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["f.rar"]
    assert seen[-1] == (len(DATA), len(DATA))
    fetch(wanted(server), tmp_path / "d" / "f.rar")
    assert len(server.requests) == 1, "a whole file is not asked for again"


def test_cut_connections_go_on_where_they_were(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.faults["/f.rar"] = [
        Fault(after=100_000),
        Fault(after=0),
        Fault(after=0),
        Fault(status=503),
        Fault(after=50_000),
    ]
    fetch(wanted(server), tmp_path / "f.rar", pause=waits.append)
    assert (tmp_path / "f.rar").read_bytes() == DATA
    assert [asked for _, asked in server.requests] == ["", *["bytes=100000-"] * 4, "bytes=150000-"]
    assert server.sent == len(DATA)
    assert waits == [1.0, 2.0, 4.0, 8.0, 1.0], "pauses grow while nothing comes, and begin anew when something did"


def test_the_next_command_goes_on_too(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.faults["/f.rar"] = [Fault(after=120_000), *[Fault(after=0)] * 9]
    with pytest.raises(EnvironmentProblem, match=r"cut after 120000 of 300000 .* \(it continues after 120000 bytes\)"):
        fetch(wanted(server), tmp_path / "f.rar", tries=3, pause=waits.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.rar.part", "f.rar.part.json"]
    server.faults["/f.rar"] = []
    fetch(wanted(server), tmp_path / "f.rar")
    assert (tmp_path / "f.rar").read_bytes() == DATA
    assert server.sent == len(DATA)


def test_kill_9_leaves_a_part_that_goes_on(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/f.rar"] = [Fault(chunk_seconds=0.01)]
    code = (
        "import sys\nfrom pathlib import Path\nfrom r3d_fast.download.transfer import Wanted, fetch\n"
        "fetch(Wanted(sys.argv[1], int(sys.argv[2])), Path(sys.argv[3]))\n"
    )
    target = tmp_path / "f.rar"
    command = [sys.executable, "-c", code, f"{server.url}/f.rar", str(len(DATA)), str(target)]
    part = tmp_path / "f.rar.part"
    with subprocess.Popen(command, cwd=REPO) as child:
        while not (part.exists() and part.stat().st_size > 20_000):
            assert child.poll() is None
            time.sleep(0.01)
        with pytest.raises(UsageError, match="another process is downloading it; wait until that has finished"):
            fetch(wanted(server), target)
        child.send_signal(signal.SIGKILL)
    assert not target.exists()
    had = part.stat().st_size
    fetch(wanted(server), target)
    assert target.read_bytes() == DATA
    assert server.requests[-1][1] == f"bytes={had}-"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("after", "has_tags", "left"), [
    (20_000, True, ["f.rar.part", "f.rar.part.json"]),  # what the next call goes on with
    (20_000, False, []),  # nothing vouches for it, so the next call can't go on with it
    (0, True, []),
])  # fmt: skip
def test_a_signal_leaves_what_a_resumed_download_needs_and_nothing_else(
    server: FaultyServer, tmp_path: Path, number: int, after: int, has_tags: bool, left: list[str]
) -> None:
    server.has_tags = has_tags
    server.faults["/f.rar"] = [Fault(chunk_seconds=0.01 if after else 60)]
    code = (
        "import sys\nfrom pathlib import Path\nfrom r3d_fast.interrupt import take_interrupts\n"
        "from r3d_fast.download.transfer import Wanted, fetch\ntake_interrupts('x')\n"
        "fetch(Wanted(sys.argv[1], int(sys.argv[2])), Path(sys.argv[3]))\n"
    )
    command = [sys.executable, "-c", code, f"{server.url}/f.rar", str(len(DATA)), str(tmp_path / "f.rar")]
    part = tmp_path / "f.rar.part"
    with subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: server.requests and part.stat().st_size >= after, "the first bytes")
        child.send_signal(number)
    assert names(tmp_path) == left
    fetch(wanted(server), tmp_path / "f.rar")
    assert (tmp_path / "f.rar").read_bytes() == DATA
    assert names(tmp_path) == ["f.rar"]
    assert server.requests[-1][1].startswith("bytes=") is bool(left)


def test_a_server_without_ranges_begins_anew(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.faults["/f.rar"] = [Fault(after=100_000), Fault(no_range=True)]
    fetch(wanted(server), tmp_path / "f.rar", pause=waits.append)
    assert (tmp_path / "f.rar").read_bytes() == DATA
    assert server.sent == len(DATA) + 100_000


def test_a_file_that_changed_meanwhile_begins_anew(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.files["/f.rar"] = bytes(len(DATA))
    server.faults["/f.rar"] = [Fault(after=100_000)]

    def change(_: float) -> None:
        server.files["/f.rar"] = DATA

    fetch(wanted(server), tmp_path / "f.rar", pause=change)
    assert (tmp_path / "f.rar").read_bytes() == DATA
    assert server.requests[1][1] == "bytes=100000-"


def test_a_server_that_sends_another_part_begins_anew(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.faults["/f.rar"] = [Fault(after=100_000), Fault(range_shift=50), Fault()]
    fetch(wanted(server, checksum=""), tmp_path / "f.rar", pause=waits.append)
    assert (tmp_path / "f.rar").read_bytes() == DATA


def test_a_part_that_nothing_vouches_for_is_not_taken(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.has_tags = False
    server.faults["/f.rar"] = [Fault(after=100_000)]
    fetch(wanted(server, checksum=""), tmp_path / "f.rar", pause=waits.append)
    assert [asked for _, asked in server.requests] == ["", ""]
    (tmp_path / "g.rar.part").write_bytes(b"something else")
    fetch(wanted(server), tmp_path / "g.rar")
    assert (tmp_path / "g.rar").read_bytes() == (tmp_path / "f.rar").read_bytes() == DATA


def test_a_part_longer_than_the_file_begins_anew(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.faults["/f.rar"] = [Fault(after=100_000), *[Fault(after=0)] * 2]
    with pytest.raises(EnvironmentProblem):
        fetch(wanted(server, checksum=""), tmp_path / "f.rar", tries=2, pause=waits.append)
    with (tmp_path / "f.rar.part").open("ab") as file:
        file.write(bytes(len(DATA)))
    fetch(wanted(server), tmp_path / "f.rar", pause=waits.append)
    assert (tmp_path / "f.rar").read_bytes() == DATA


@pytest.mark.parametrize("checksum", ["sha256:" + "0" * 64, "md5:" + "0" * 32])
def test_a_wrong_checksum_is_thrown_away(server: FaultyServer, tmp_path: Path, checksum: str) -> None:
    with pytest.raises(DataError, match=r"with (sha256|md5) [0-9a-f]+, expected .* 0+; it was deleted") as caught:
        fetch(wanted(server, checksum=checksum), tmp_path / "f.rar")
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_md5_is_checked(server: FaultyServer, tmp_path: Path) -> None:
    fetch(wanted(server, checksum=f"md5:{hashlib.md5(DATA).hexdigest()}"), tmp_path / "f.rar")
    assert (tmp_path / "f.rar").read_bytes() == DATA


def test_another_size_is_refused_before_it_is_downloaded(server: FaultyServer, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has a file of 300000 bytes, expected 299999; find the address of the right file"
    ):
        fetch(wanted(server, size=len(DATA) - 1), tmp_path / "f.rar")
    assert not (tmp_path / "f.rar").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_is_too_long_is_never_whole(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.faults["/f.rar"] = [Fault(length_off_by=10)] * 3
    with pytest.raises(EnvironmentProblem, match="2 times in a row"):
        fetch(Wanted(f"{server.url}/f.rar"), tmp_path / "f.rar", tries=2, pause=waits.append)
    assert not (tmp_path / "f.rar").exists()


def test_a_file_that_is_there_is_checked(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "f.rar").write_bytes(DATA[:-1])
    with pytest.raises(DataError, match=r"exists with 299999 bytes, expected 300000 bytes; move or delete it"):
        fetch(wanted(server), tmp_path / "f.rar")
    assert (tmp_path / "f.rar").stat().st_size == len(DATA) - 1


@pytest.mark.parametrize(
    ("status", "text"),
    [(404, "answers 404 Not Found; if the file was moved, find its new address"), (403, "answers 403")],
)
def test_what_will_not_change_is_not_tried_again(server: FaultyServer, tmp_path: Path, status: int, text: str) -> None:
    server.faults["/f.rar"] = [Fault(status=status)]
    with pytest.raises(DataError, match=text):
        fetch(wanted(server), tmp_path / "f.rar")
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_stays_busy(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.faults["/f.rar"] = [Fault(status=503)] * 20
    with pytest.raises(EnvironmentProblem, match="the server answers 503 Service Unavailable, 8 times in a row"):
        fetch(wanted(server), tmp_path / "f.rar", pause=waits.append)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_no_server_at_all(tmp_path: Path, waits: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/f.rar"
        with pytest.raises(EnvironmentProblem, match=r"no connection \(.*refused\), 2 times in a row") as caught:
            fetch(Wanted(url), tmp_path / "f.rar", tries=2, pause=waits.append)
    assert caught.value.exit_code == 4


def test_a_web_page_is_no_file(server: FaultyServer, tmp_path: Path) -> None:
    server.faults["/f.rar"] = [Fault(content_type="text/html; charset=utf-8")]
    with pytest.raises(DataError, match="the server sent a web page, not the file"):
        fetch(Wanted(f"{server.url}/f.rar"), tmp_path / "f.rar")


def test_redirects(server: FaultyServer, tmp_path: Path, waits: list[float]) -> None:
    server.files["/moved.rar"] = DATA
    server.faults["/f.rar"] = [Fault(status=302, location="/moved.rar")] * 2
    server.faults["/moved.rar"] = [Fault(after=70_000)]
    fetch(wanted(server), tmp_path / "f.rar", pause=waits.append)
    assert (tmp_path / "f.rar").read_bytes() == DATA
    assert server.requests[-1] == ("/moved.rar", "bytes=70000-")
    server.faults["/f.rar"] = [Fault(status=302, location="file:///etc/passwd")]
    with pytest.raises(DataError, match="Redirection to url 'file:///etc/passwd' is not allowed"):
        fetch(wanted(server), tmp_path / "g.rar")
    import urllib.request
    from email.message import Message
    from io import BytesIO

    request = urllib.request.Request("https://example.org/f.rar")
    with pytest.raises(
        DataError, match=r"redirects to http://example\.org/f\.rar, which is not encrypted, so it is refused"
    ):
        _Redirects().redirect_request(request, BytesIO(), 302, "Found", Message(), "http://example.org/f.rar")  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["ftp://x/f", "file:///etc/passwd", "x/f.rar", "http:///f"])
def test_addresses_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="expected an address that begins with http"):
        fetch(Wanted(url), tmp_path / "f.rar")


def test_a_full_disk_keeps_the_part(server: FaultyServer, tmp_path: Path, limit: Any) -> None:
    limit(100_000)
    with pytest.raises(EnvironmentProblem, match=r"disk is full: downloading f\.rar needs 200\.00 kB, ") as caught:
        fetch(wanted(server), tmp_path / "f.rar")
    limit()
    assert caught.value.exit_code == 4
    assert (tmp_path / "f.rar.part").stat().st_size == 100_000
    fetch(wanted(server), tmp_path / "f.rar")
    assert (tmp_path / "f.rar").read_bytes() == DATA


def test_a_disk_without_the_room_is_said_before_a_byte_comes(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type(__import__("shutil").disk_usage(tmp_path))(10**6, 10**6 - 1000, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    with pytest.raises(EnvironmentProblem, match=r"needs 300\.00 kB, 1\.00 kB are free; make room there"):
        fetch(wanted(server), tmp_path / "f.rar")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_written(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem, match="can't be written: "):
        fetch(wanted(server), tmp_path / "file" / "f.rar")
