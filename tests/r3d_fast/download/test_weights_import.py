"""Known weights are fetched from a server that cuts and lies, checked, imported, and used by their name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import drawn, of_torchvision, shapes
from faulty_server import Fault, FaultyServer, serving
from torch_files import write_torch

from r3d_fast.cli import cli, run_cli
from r3d_fast.download import weights_import
from r3d_fast.weights.known_weights import FINETUNED, KNOWN_WEIGHTS, KnownWeights, weights_at_hand
from r3d_fast.weights.stored_model import read_weights

NAME = "r3d_18-small.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "r3d-fast" / "weights"


@pytest.fixture
def state() -> dict[str, Any]:
    return drawn(shapes("r3d18", classes=400, width=4, conv1_t_size=3))


@pytest.fixture
def server(state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """The server of the authors: the address in the table is its own, the file a small network."""
    content = write_torch(tmp_path / NAME, of_torchvision(state), legacy=True).read_bytes()
    with serving(FaultyServer({f"/{NAME}": content})) as running:
        digest = hashlib.sha256(content).hexdigest()
        known = KnownWeights(
            FINETUNED, f"{running.url}/{NAME}", len(content), digest, "r3d18", "Kinetics-400", "a test"
        )
        monkeypatch.setitem(KNOWN_WEIGHTS, FINETUNED, known)  # type: ignore[arg-type]
        yield running


def run(*arguments: str) -> int:
    return run_cli(cli, ["data", "weights", *arguments], "r3d-fast")


def test_weights_are_fetched_once_and_are_then_at_hand(
    server: FaultyServer, cache: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert f"fetch: r3d-fast data weights {FINETUNED}\n" in capsys.readouterr().out
    server.faults[f"/{NAME}"] = [Fault(after=50_000)]
    assert run(FINETUNED) == 0
    said = capsys.readouterr()
    file = cache / f"{FINETUNED}.safetensors"
    assert said.out.splitlines() == [
        f"{file}: r3d18, trained on Kinetics-400 by a test",
        "fine-tune on a folder of videos: r3d-fast train FOLDER",
    ]
    assert f"downloading {server.url}/{NAME} (" in said.err
    assert [asked for _, asked in server.requests] == ["", "bytes=50000-"]
    assert [path.name for path in cache.iterdir()] == [file.name]
    assert weights_at_hand() == file
    stored = read_weights(file)
    assert (stored.config.model.name, len(stored.classes)) == ("r3d18", 400)
    np.testing.assert_array_equal(stored.weights["head.fc.weight"], state["fc.weight"].T)

    assert run(FINETUNED) == 0
    assert "is there already" in capsys.readouterr().err
    assert len(server.requests) == 2
    assert run() == 0
    assert f"fetched: {file}\n" in capsys.readouterr().out


def test_a_folder_of_ones_own_and_a_mirror_are_named_in_the_command_that_trains(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files[f"/mirror/{NAME}"] = server.files.pop(f"/{NAME}")
    root = tmp_path / "my weights"
    assert run(FINETUNED, "--root", str(root), "--mirror", f"{server.url}/mirror/") == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "fine-tune on a folder of videos: r3d-fast train FOLDER -c folder_finetune -o "
        f"'init.weights={root}/{FINETUNED}.safetensors'"
    )
    assert weights_at_hand() is None


def test_another_file_than_the_authors_is_never_taken(
    server: FaultyServer, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = server.files[f"/{NAME}"]
    server.files[f"/{NAME}"] = content[:-1] + b"x"
    assert run(FINETUNED) == 3
    assert "downloaded with sha256 " in capsys.readouterr().err
    server.faults[f"/{NAME}"] = [Fault(content_type="text/html")]
    assert run(FINETUNED) == 3
    assert "the server sent a web page, not the file" in capsys.readouterr().err
    assert not list(cache.glob("*.safetensors"))
    server.files[f"/{NAME}"] = content
    assert run(FINETUNED) == 0


def test_a_stopped_command_goes_on_where_it_was(
    server: FaultyServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights_import, "import_weights", stopped)
        assert run(FINETUNED) == 130
    assert run(FINETUNED) == 0
    assert len(server.requests) == 1
    assert [path.name for path in cache.iterdir()] == [f"{FINETUNED}.safetensors"]


def test_what_can_not_be_used_is_one_line(
    server: FaultyServer, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache.mkdir(parents=True)
    (cache / f"{FINETUNED}.safetensors").write_bytes(b"cut")
    for arguments, code, said in (
        (["r3d18-kinetics4000"], 2, f"is not '{FINETUNED}'"),
        ([FINETUNED, "--root", str(tmp_path / "file")], 2, str(tmp_path / "file")),
        ([FINETUNED], 5, "; delete the file and run the command again"),
        (["--mirror", "http://localhost"], 2, "without a NAME"),
    ):
        assert run(*arguments) == code, arguments
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) == 1, err
