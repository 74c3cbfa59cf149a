"""The file that `bench gpu` leaves to be sent: what is in it, and what must not be."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from bench.gpu.archive import archive_path, hidden_words, write_archive
from bench.gpu.plan import GpuSettings
from bench.gpu.redaction import redacted


def read(path: Path) -> dict[str, str]:
    """The texts in an archive, by their names below its one folder."""
    texts = {}
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            folder, _, name = member.name.partition("/")
            assert folder == path.stem
            assert (member.uid, member.uname) == (0, "")
            texts[name] = file.read().decode()
    return texts


def test_it_has_the_texts_without_folders_and_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    monkeypatch.setenv("HOME", str(home))
    data = home / "videos of Zoë"
    for folder in (data, out / "logs", out / "results", out / "run" / "checkpoints"):
        folder.mkdir(parents=True)
    said = f"read {data}/a/b.avi of {home}/x and {out}/logs\n/home/someone/file\nhttps://me:secret@example.org/x\n"
    (out / "logs" / "train.log").write_text(said)
    (out / "results" / "train.json").write_text(json.dumps({"data": f"{data}/a"}))
    (out / "report.txt").write_text("good\n")
    (out / "run" / "metrics.jsonl").write_text("{}\n")
    (out / "run" / "checkpoints" / "best.json").write_text("{}\n")
    (out / "data.r3dindex").write_bytes(bytes(100))
    (out / "results" / ".half.json.tmp").write_text("{}")
    (out / "passwords.txt").symlink_to("/etc/passwd")
    texts = read(write_archive(GpuSettings(data, out)))
    assert sorted(texts) == ["logs/train.log", "report.txt", "results/train.json", "run/metrics.jsonl"]
    assert texts["logs/train.log"] == (
        "read DATA/a/b.avi of ~/x and OUT/logs\n/home/USER/file\nhttps://example.org/x\n"
    )
    assert json.loads(texts["results/train.json"]) == {"data": "DATA/a"}


def test_of_a_very_long_log_it_has_the_end(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "tests.log").write_bytes(b"x" * 5_000_000 + b"the end")
    text = read(write_archive(GpuSettings(tmp_path / "data", tmp_path)))["logs/tests.log"]
    assert text.endswith("xthe end")
    assert len(text) == 4_000_000


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("gpu-7.example.org", "gpu-7"),
        ("../../etc", "host"),
        ("Mein Rechner", "mein-rechner"),
        ("", "host"),
        ("é", "host"),
    ],
)
def test_its_name_has_nothing_but_letters_digits_and_dashes(host: str, name: str) -> None:
    assert archive_path(Path("out"), host, "20300101") == Path(f"out/r3d-fast-gpu-{name}-20300101.tgz")


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4242)
    with pytest.raises(RuntimeError):
        Path.home()
    assert redacted(f"{tmp_path}/x /", hidden_words(GpuSettings(tmp_path, tmp_path / "out"))) == "DATA/x /"


def test_usual_words_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "data")
    assert redacted('{"data": "gpu"}', hidden_words(GpuSettings(tmp_path, tmp_path))) == '{"data": "gpu"}'
    monkeypatch.setattr("socket.gethostname", lambda: "node-17.cluster")
    assert redacted('<testsuite hostname="vm" tests="3">', {}) == '<testsuite hostname="" tests="3">'
    assert redacted("on node-17.cluster, node-17", hidden_words(GpuSettings(tmp_path, tmp_path))) == "on HOST, HOST"
