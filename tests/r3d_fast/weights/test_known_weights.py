"""Known weights have true names, are looked for in the user's cache, and are asked for by the command that fetches."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import UsageError
from r3d_fast.models.architectures import MODELS
from r3d_fast.weights.known_weights import (
    FINETUNED,
    KNOWN_WEIGHTS,
    cache_folder,
    fetch_command,
    fetched_file,
    weights_at_hand,
    weights_path,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_each_row_of_the_table_is_a_file_of_the_authors_for_a_model_of_this_project() -> None:
    for name, known in KNOWN_WEIGHTS.items():
        assert known.name == name
        assert known.model in MODELS
        assert known.url.startswith("https://")
        assert len(known.sha256) == 64
        # The file's own name has the first digits, as torch.hub checks them.
        assert known.url.endswith(f"-{known.sha256[:8]}.pth")
    assert FINETUNED in KNOWN_WEIGHTS


def test_weights_are_at_hand_once_they_lie_in_the_cache(cache: Path) -> None:
    assert weights_at_hand() is None
    file = fetched_file(FINETUNED)
    assert file == cache / "r3d-fast" / "weights" / f"{FINETUNED}.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert weights_at_hand() == file
    assert weights_path(Path(FINETUNED)) == file


def test_without_a_usable_cache_variable_it_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / ".cache" / "r3d-fast" / "weights"


def test_a_name_that_was_not_fetched_says_the_command_and_a_file_goes_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=f"not fetched yet; fetch it with: {fetch_command(FINETUNED)}$"):
        weights_path(Path(FINETUNED))
    monkeypatch.chdir(tmp_path)
    Path(FINETUNED).mkdir()
    assert weights_path(Path(FINETUNED)) == Path(FINETUNED)


def test_what_is_neither_a_path_nor_a_known_name_says_what_is_expected() -> None:
    with pytest.raises(
        UsageError, match=r"init\.weights missing\.pth: no such file or folder; .* known weights: r3d18-kin"
    ):
        weights_path(Path("missing.pth"))
