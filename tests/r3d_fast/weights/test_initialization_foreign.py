"""`init.weights` takes a .pth as it is, and the name of weights that were fetched; what does not fit is one line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from families import drawn, of_torchvision, older, shapes
from from_config import a_model
from runs import last_checkpoint
from torch_files import write_torch

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast import train as run_training
from r3d_fast.cli import cli, run_cli
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.importer import import_weights
from r3d_fast.weights.initialization import initialise
from r3d_fast.weights.known_weights import FINETUNED, fetched_file

WIDTH = 4
NETWORK = (f"model.width={WIDTH}", "model.name=r3d18")
OF_TORCHVISION = (
    *NETWORK, "model.shortcut=B", "model.conv1_t_size=3", "model.max_pool=false",
    "augment.mean=[0.43216, 0.394666, 0.37645]", "augment.std=[0.22803, 0.22145, 0.216989]",
)  # fmt: skip
NEW_HEAD = ("init.num_classes_changed=reinit_head", "init.freeze_until=layer4")
STEM, LAST = "backbone.stem.0.conv.weight", "backbone.layer4.1.block.1.weight"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def weights(**stem: Any) -> dict[str, Any]:
    return drawn(shapes("r3d18", classes=400, width=WIDTH, **stem))


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    return write_torch(tmp_path / "my r3d_18.pth", of_torchvision(weights(conv1_t_size=3)), legacy=True)


def begun(index: VideoIndex, file: Path, *options: str) -> Any:
    config = tiny.tiny_config(index, f"init.weights={file}", *NEW_HEAD, *options)
    model = a_model(config, len(index.classes))
    initialise(model, config.model, config.init, config.augment, index.classes)
    return model


def test_a_run_starts_from_a_pth_as_it_is(
    index: VideoIndex, pth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (f"init.weights={pth}", *NEW_HEAD, *OF_TORCHVISION, "train.epochs=1", "schedule.warmup_epochs=0")
    run_training(tiny.tiny_config(index, *options), run=tmp_path / "run")
    said = capsys.readouterr().err
    assert f"pixels of {pth}: torchvision (that of torchvision, by the names of the tensors)\n" in said
    assert f"starting from {pth} (r3d18, 400 classes); with a new head (400 classes in the weights, 8 in the" in said
    after, before = last_checkpoint(tmp_path / "run").weights, weights(conv1_t_size=3)
    np.testing.assert_array_equal(after[STEM], before["conv1.weight"])
    assert (after[LAST] != before["layer4.1.conv2.weight"]).any()


def test_the_name_of_fetched_weights_is_enough(index: VideoIndex, pth: Path) -> None:
    with pytest.raises(UsageError, match=f"init.weights {FINETUNED}: not fetched yet; fetch it with: r3d-fast data we"):
        begun(index, Path(FINETUNED), *OF_TORCHVISION)
    fetched_file(FINETUNED).parent.mkdir(parents=True)
    import_weights(pth, fetched_file(FINETUNED))
    model = begun(index, Path(FINETUNED), *OF_TORCHVISION)
    np.testing.assert_array_equal(model.state_dict()[STEM].numpy(), weights(conv1_t_size=3)["conv1.weight"])


def test_weights_that_are_not_there_end_a_run_before_its_folder_is_made(index: VideoIndex, tmp_path: Path) -> None:
    for name, said in ((FINETUNED, "not fetched yet"), ("absent.pth", "no such file or folder; expected a weights")):
        with pytest.raises(UsageError, match=said):
            run_training(tiny.tiny_config(index, f"init.weights={name}"), run=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_config_for_another_network_and_other_pixels_is_told_all_options_at_once(
    index: VideoIndex, pth: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        begun(index, pth, f"model.width={WIDTH}")
    said = str(caught.value)
    assert said.startswith(
        f"init.weights {pth}: weights of model r3d18, but this config asks for r3d10; expected the s"
    )
    options = shlex.split(said.partition(": add ")[2])
    begun(index, pth, f"model.width={WIDTH}", *options[1::2])
    assert set(options[::2]) == {"-o"}
    with pytest.raises(CheckpointError, match=r"weights of a r3d18 with conv1_t_size 3 \(this config: 7\); ") as caught:
        begun(index, pth, *NETWORK, "model.shortcut=B", "model.max_pool=false")
    begun(index, pth, *NETWORK, "model.shortcut=B", "model.max_pool=false",
          *shlex.split(str(caught.value).partition(": add ")[2])[1::2])  # fmt: skip


def test_what_no_file_tells_is_taken_as_the_config_has_it(index: VideoIndex, tmp_path: Path) -> None:
    file = write_torch(tmp_path / "m.pth", {"state_dict": older(weights(shortcut="A")), "optimizer": {}})
    scale = ("augment.value_max=255", "augment.mean=[114.7748, 107.7354, 99.4750]", "augment.std=[1, 1, 1]")
    begun(index, file, *NETWORK, *scale, "model.max_pool=false", "model.conv1_t_stride=2")


def test_pixels_that_the_file_does_not_tell_are_asked_for_by_the_command_that_imports(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_torch(tmp_path / "bare one.pth", weights())
    with pytest.raises(UsageError) as caught:
        begun(index, file, *NETWORK)
    said = str(caught.value)
    assert said.startswith(f"init.weights {file}: nothing in it tells how pixels were scaled for these weights; expec")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(said.rpartition(": ")[2])
    assert (program, arguments[0]) == ("r3d-fast", "import-weights")
    assert run_cli(cli, [*arguments, "--normalize", "kinetics"], "r3d-fast") == 0, capsys.readouterr().err
    kinetics = ("augment.mean=[0.4345, 0.4051, 0.3775]", "augment.std=[0.2768, 0.2713, 0.2737]")
    begun(index, tmp_path / "bare one.safetensors", *NETWORK, "model.shortcut=B", *kinetics)


def test_a_hostile_or_cut_pth_is_one_line_before_anything_is_trained(
    index: VideoIndex, pth: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.pth").write_bytes(pth.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut\.pth: not a whole \.pth"):
        begun(index, tmp_path / "cut.pth", *OF_TORCHVISION)
