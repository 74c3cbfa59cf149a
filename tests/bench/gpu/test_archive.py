"""The file that `bench gpu` leaves to be sent: what is in it, and what must not be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import unicodedata
from pathlib import Path

import pytest
from bench_process import REPO
from clips import write_classes

from bench.gpu.archive import archive_path, hidden_words, write_archive
from bench.gpu.plan import GpuSettings
from bench.gpu.redaction import redacted
from pipelines.machine.nvidia import probe_driver


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
    (out / "logs" / "passwords.txt").symlink_to("/etc/passwd")
    (out / "diary.txt").write_text("dear diary\n")
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


@pytest.mark.skipif(bool(probe_driver().gpus), reason="this machine has a GPU")
def test_no_byte_of_it_names_the_user_or_a_folder(tmp_path: Path) -> None:
    """Real parts, on folders whose names have to be quoted and escaped, and on another one before."""
    home = tmp_path / "homes" / "zaphod"
    out, temporary = home / "Trillian's out", tmp_path / "scratch of beeblebrox & co"
    first, second = home / "Marvin's bücher" / "old", home / "Bob's café & co" / "Vogon <poems>" / ("long" * 40)
    temporary.mkdir(parents=True)
    for data in (first, second):
        write_classes(data, 2, classes=("a", "b"), codec="mjpeg", num_frames=20)
        (data / "a" / "empty.avi").touch()
    environment = {
        **os.environ, "PYTHONPATH": str(REPO), "HOME": str(home), "TMPDIR": str(temporary), "LOGNAME": "zaphod",
        "USER": "zaphod",
    }  # fmt: skip
    script = [sys.executable, str(REPO / "tests" / "support" / "jobs" / "gpu_real_steps.py"), "gpu"]
    for data, steps in ((first, "parity,tests"), (second, "machine,tests")):
        command = [*script, str(data), "--out", str(out), "--steps", steps]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 1, done.stderr  # tests fail
        texts = read(archive_path(out))
        assert {"report.txt", "steps.json", "logs/parity.log", "results/parity.json"} <= set(texts)
        for name, text in texts.items():
            plain = unicodedata.normalize("NFD", text).casefold()
            for part in ("zaphod", "trillian", "beeblebrox", "marvin", "bob", "cafe", "vogon", "longlong", "homes"):
                assert part not in plain, (name, text)
            assert "is left out" not in text, name
            assert str(tmp_path) not in text
    assert json.loads(texts["results/parity.json"])["real"]
    assert "DATA" in texts["results/tests.xml"]
