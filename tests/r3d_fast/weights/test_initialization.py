"""A new run that starts from the weights of another: what is taken over, what is drawn anew, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import tiny
import yaml
from from_config import a_model
from runs import each_checkpoint, last_checkpoint
from untrained import write_changed

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast import train as run_training
from r3d_fast.config.config import Config, config_from_json, load_config
from r3d_fast.errors import CheckpointError, ConfigError
from r3d_fast.models.architectures import MODELS
from r3d_fast.weights.checkpoint import Checkpoint as Point
from r3d_fast.weights.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from r3d_fast.weights.initialization import initialise
from r3d_fast.weights.stored_model import restore
from r3d_fast.weights.tensor_reader import read_tensors

QUICK = ("train.epochs=1", "schedule.warmup_epochs=0", "train.checkpoint_every_steps=1", "train.keep_checkpoints=9")
STEM, HEAD, LAST = "backbone.stem.0.conv.weight", "head.fc.weight", "backbone.layer4.0.block.1.weight"


@pytest.fixture(scope="module")
def fewer(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """The videos of three of the eight classes."""
    folder = tmp_path_factory.mktemp("fewer")
    for split in ("train", "test"):
        for name in sorted(index.classes)[:3]:
            shutil.copytree(index.root / split / name, folder / "data" / split / name)
    return VideoIndex.build(folder / "data", index=folder / "data.r3dindex", workers=0)


@pytest.fixture(scope="module")
def pretrained(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "pretrained"
    run_training(tiny.tiny_config(index, *QUICK), run=run)
    return run


def first_model(config: Config, classes: tuple[str, ...]) -> Any:
    """A new model, with the weights that `init.weights` names."""
    model = a_model(config, len(classes))
    initialise(model, config.model, config.init, config.augment, classes)
    return model


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return read_tensors(path / "model.safetensors")[0]


def changed(file: Path, source: Path, **arrays: np.ndarray) -> Path:
    """`file` with the weights of `source`, some of them others."""
    weights, about = read_tensors(source / "best" / "model.safetensors")
    return write_changed(file, {**weights, **arrays}, about)


@pytest.mark.parametrize("form", ["run", "checkpoint", "file"])
def test_a_new_run_starts_from_the_weights_of_another(
    index: VideoIndex, pretrained: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    best = pretrained / "best"
    shutil.copy(best / "model.safetensors", tmp_path / "w.safetensors")
    source = {"run": pretrained, "checkpoint": best, "file": tmp_path / "w.safetensors"}[form]
    config = tiny.tiny_config(index, f"init.weights={source}").in_data_format("NCDHW")
    model = first_model(config, index.classes)
    for name, array in weights_of(best).items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), array, err_msg=name)
    assert "starting from " in (said := capsys.readouterr().err)
    assert said.rstrip().endswith("(r3d10, 8 classes)")


def test_a_run_on_other_classes_trains_a_new_head_on_frozen_stages(
    index: VideoIndex, fewer: VideoIndex, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batch norms of what is frozen keep their statistics too, dropout and averages are at work, and it resumes."""
    options = (
        *QUICK, f"init.weights={pretrained}", "init.num_classes_changed=reinit_head", "init.freeze_until=layer4",
        "train.ema_decay=0.5", "model.dropout=0.2", "train.epochs=2",
    )  # fmt: skip
    run = tmp_path / "run"
    with each_checkpoint():
        run_training(tiny.tiny_config(fewer, *options), run=run)
    said = capsys.readouterr().err
    assert f"starting from {pretrained / 'best' / 'model.safetensors'} (r3d10, 8 classes); with a new head (" in said
    assert "8 classes in the weights, 3 in the data set" in said
    before, after = weights_of(pretrained / "best"), last_checkpoint(run)
    frozen = [name for name in before if name.startswith("backbone.") and ".layer4." not in name]
    assert any(name.endswith("._variance") for name in frozen)
    for name in frozen:
        np.testing.assert_array_equal(after.weights[name], before[name], err_msg=name)
    assert (after.weights[LAST] != before[LAST]).any()
    assert after.weights[HEAD].shape == (32, 3)
    assert after.state["classes"] == list(fewer.classes)

    # A resumed run reads no initial weights: theirs may be gone.
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    for folder in list_checkpoints(cut)[1:]:
        shutil.rmtree(folder)
    gone = pretrained.rename(tmp_path / "gone")
    try:
        run_training(tiny.tiny_config(fewer, *options), run=cut, resume=True)
    finally:
        gone.rename(pretrained)
    for name, array in last_checkpoint(cut).weights.items():
        np.testing.assert_array_equal(array, after.weights[name], err_msg=name)


def test_the_new_head_is_drawn_under_the_seed(index: VideoIndex, fewer: VideoIndex, pretrained: Path) -> None:
    heads = []
    for seed in (1, 1, 2):
        config = tiny.tiny_config(
            fewer, f"init.weights={pretrained}", "init.num_classes_changed=reinit_head", f"train.seed={seed}"
        )
        model = first_model(config, fewer.classes)
        heads.append(model.state_dict()[HEAD].numpy())
    np.testing.assert_array_equal(heads[0], heads[1])
    assert (heads[0] != heads[2]).any()


def begun(index: VideoIndex, *options: str, classes: tuple[str, ...] | None = None) -> None:
    config = tiny.tiny_config(index, *options)
    classes = classes or index.classes
    first_model(config, classes)


def test_other_classes_are_refused_with_both_shapes_and_the_way_out(fewer: VideoIndex, pretrained: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        begun(fewer, f"init.weights={pretrained}")
    assert str(caught.value) == (
        f"init.weights {pretrained / 'best' / 'model.safetensors'}: trained for other classes than those of the data "
        "set: 8 classes in the weights, 3 in the data set (head.fc.weight is [32, 8], the model has [32, 3]; "
        "head.fc.bias is [8], the model has [3]); to start with a new head, add -o "
        "init.num_classes_changed=reinit_head"
    )
    assert caught.value.exit_code == 5


def test_as_many_classes_of_other_names_are_other_classes(
    index: VideoIndex, pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (*index.classes[:-1], "somersault")
    with pytest.raises(CheckpointError, match=r"class 7 is 'zoom_out' in the weights, 'somersault' in the data"):
        begun(index, f"init.weights={pretrained}", classes=names)
    begun(index, f"init.weights={pretrained}", "init.num_classes_changed=reinit_head", classes=names)
    assert "with a new head (class 7 is 'zoom_out'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["model.name=r3d18"],
            "weights of model r3d10, but this config asks for r3d18; expected the same: add -o ",
        ),
        (
            ["model.width=8"],
            "does not fit the model: backbone.stem.0.conv.weight is [4, 3, 7, 7, 7], the model",
        ),
        (
            ["model.shortcut=A"],
            "weights of a r3d10 with shortcut B (this config: A); expected the same: add -o model.shortcut=B",
        ),
        (
            ["model.max_pool=false", "model.conv1_t_stride=2"],
            "weights of a r3d10 with conv1_t_stride 1 (this config: 2), max_pool True (this config: False); expected "
            "the same: add -o model.conv1_t_stride=1 -o model.max_pool=true",
        ),
    ],
)
def test_weights_of_another_network_are_refused(
    index: VideoIndex, pretrained: Path, options: list[str], said: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        begun(index, f"init.weights={pretrained}", "init.num_classes_changed=reinit_head", *options)
    assert said in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(index: VideoIndex, pretrained: Path, tmp_path: Path) -> None:
    broken = weights_of(pretrained / "best")[STEM].copy()
    broken[0, 0, 0, 0, 0] = np.nan
    file = changed(tmp_path / "w.safetensors", pretrained, **{STEM: broken, HEAD: np.full((32, 8), np.inf, np.float32)})
    with pytest.raises(CheckpointError, match=f"NaN or infinite numbers in .*{STEM}") as caught:
        begun(index, f"init.weights={file}")
    assert HEAD in str(caught.value)


def test_a_config_for_fine_tuning_wants_weights(index: VideoIndex, tmp_path: Path) -> None:
    """Else it would train a head on frozen random stages."""
    with pytest.raises(ConfigError, match=r"init\.weights is unset: .*; add -o init\.weights=FILE"):
        run_training(tiny.tiny_config(index, "init.num_classes_changed=reinit_head"), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["ucf101_r3d18_finetune", "hmdb51_r3d18_finetune"])
def test_the_configs_for_fine_tuning_have_the_authors_settings(name: str) -> None:
    config, paper = load_config(name), load_config("ucf101_r3d18_paper")
    assert (config.init.num_classes_changed, config.init.freeze_until) == ("reinit_head", "layer4")
    assert config.init.frozen_statistics == "train"  # a rate of 0 does not stop the batch norms of their frozen layers
    # Their lr is 1e-3, with a dampening of 0.9.
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.loader.batch_size) == (1e-4, 1e-5, 128)
    assert (config.clip, config.augment, config.schedule) == (paper.clip, paper.augment, paper.schedule)
    assert (config.model.name, config.model.shortcut or MODELS[config.model.name].shortcut) == ("r3d18", "A")
    assert not config.model.shortcut_gradient


def test_damaged_weights_are_refused(index: VideoIndex, pretrained: Path, tmp_path: Path) -> None:
    shutil.copytree(pretrained / "best", tmp_path / "best")
    file = tmp_path / "best" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        begun(index, f"init.weights={tmp_path / 'best'}")
    (tmp_path / "cut.safetensors").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        begun(index, f"init.weights={tmp_path / 'cut.safetensors'}")
    with pytest.raises(UsageError, match="no such file or folder"):
        begun(index, f"init.weights={tmp_path / 'absent'}")


def test_weights_that_are_used_to_other_pixels_are_refused_with_the_options_that_fit(
    index: VideoIndex, pretrained: Path
) -> None:
    paper = ("augment.value_max=255", "augment.mean=[114.7748, 107.7354, 99.4750]", "augment.std=[1, 1, 1]")
    with pytest.raises(UsageError) as caught:
        begun(index, f"init.weights={pretrained}", *paper)
    assert str(caught.value).endswith(
        "expected the same: add -o 'augment.value_max=1' -o 'augment.mean=[0.485, 0.456, 0.406]' "
        "-o 'augment.std=[0.229, 0.224, 0.225]'"
    )
    same = ("augment.value_max=255", "augment.mean=[123.7, 116.3, 103.5]", "augment.std=[58.4, 57.1, 57.4]")
    begun(index, f"init.weights={pretrained}", *same)  # the same scale in other units


@pytest.mark.slow
def test_ranks_start_from_one_file_and_hear_of_a_bad_one(index: VideoIndex, pretrained: Path, tmp_path: Path) -> None:
    still = ("optimizer.lr=1.0e-12", "optimizer.weight_decay=0", "init.freeze_until=head", *QUICK)
    done = ranks.train(index, tmp_path / "run", 2, f"init.weights={pretrained}", *still)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting from ") == 1
    for name, array in weights_of(pretrained / "best").items():
        np.testing.assert_allclose(last_checkpoint(tmp_path / "run").weights[name], array, rtol=1e-6, err_msg=name)
    failed = ranks.train(index, tmp_path / "other", 2, f"init.weights={pretrained}", "model.name=r3d18", *QUICK)
    assert failed.returncode == 5, failed.stderr
    assert failed.stderr.count("weights of model r3d10") == 1


def test_runs_made_before_there_was_init_are_read_and_go_on(
    index: VideoIndex, pretrained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "old"
    shutil.copytree(pretrained, run)

    def older(values: dict[str, dict[str, object]], frozen: str | None) -> dict[str, dict[str, object]]:
        return {**{key: value for key, value in values.items() if key != "init"},
                "train": {**values["train"], "freeze_until": frozen}}  # fmt: skip

    for folder in list_checkpoints(run):
        point = load_checkpoint(folder)
        save_checkpoint(folder, Point(point.weights, point.optimizer, {
            **point.state, "config": older(point.state["config"], None)
        }))  # fmt: skip
    written = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    (run / "config.yaml").write_text(yaml.safe_dump(older(written, None)), encoding="utf-8")
    config = load_config(run / "config.yaml", ["train.epochs=2"])
    assert run_training(config, run=run, resume=True).steps == 8
    kept = Config.model_validate(tiny.tiny_config(index, "init.freeze_until=layer4").model_dump(mode="json"))
    assert config_from_json(older(kept.model_dump(mode="json"), "layer4")).init.freeze_until == "layer4"


def test_a_run_from_before_r3d18_had_shortcut_a_is_read_with_its_own_and_goes_on(
    index: VideoIndex, tmp_path: Path
) -> None:
    """Such a run says null, which meant B, and has none of the keys that came with A."""
    options = (*QUICK, "model.name=r3d18", "train.epochs=2")
    run = tmp_path / "old"
    with each_checkpoint():
        run_training(tiny.tiny_config(index, *options, "model.shortcut=B"), run=run)
    finished = last_checkpoint(run).weights

    def older(values: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        kept = ("name", "data_format", "width", "dropout")
        return {**values, "model": {**{key: values["model"][key] for key in kept}, "shortcut": None}}

    for folder in [run / "best", *list_checkpoints(run)]:
        point = load_checkpoint(folder)
        state = {**point.state, "config": older(point.state["config"])}
        save_checkpoint(folder, Point(point.weights, point.optimizer, state))
    written = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    (run / "config.yaml").write_text(yaml.safe_dump(older(written)), encoding="utf-8")

    assert restore(run).config.model.shortcut == "B"
    with pytest.raises(CheckpointError, match=r"r3d18 with shortcut B \(this config: A\).*add -o model\.shortcut=B$"):
        begun(index, f"init.weights={run}", "model.name=r3d18")
    begun(index, f"init.weights={run}", "model.name=r3d18", "model.shortcut=B")
    for folder in list_checkpoints(run)[2:]:
        shutil.rmtree(folder)
    with pytest.raises(UsageError, match=f'model.shortcut: "B" -> null; undo these changes .{run}/config.yaml has'):
        run_training(tiny.tiny_config(index, *options), run=run, resume=True)
    run_training(load_config(run / "config.yaml"), run=run, resume=True)
    for name, array in last_checkpoint(run).weights.items():
        np.testing.assert_array_equal(array, finished[name], err_msg=name)


@pytest.mark.parametrize("name", ["r3d10", "densenet121"])
def test_frozen_parts_in_training_mode_move_their_statistics_alone_and_resume_to_the_same_bits(
    index: VideoIndex, fewer: VideoIndex, tmp_path: Path, name: str
) -> None:
    model = (f"model.name={name}", "model.width=4")
    run_training(tiny.tiny_config(index, *QUICK, *model), run=tmp_path / "before")
    options = (
        *QUICK, *model, f"init.weights={tmp_path / 'before'}", "init.num_classes_changed=reinit_head", "train.epochs=2",
        "init.freeze_until=layer4", "init.frozen_statistics=train", "train.ema_decay=0.5", "model.dropout=0.2",
    )  # fmt: skip
    run = tmp_path / "run"
    with each_checkpoint():
        run_training(tiny.tiny_config(fewer, *options), run=run)
    before, after = weights_of(tmp_path / "before" / "best"), last_checkpoint(run)
    learning = {"layer4", "block4", "norm", "head"}
    for key, array in before.items():
        if key.startswith("head."):
            continue
        is_frozen = key.split(".")[1] not in learning
        assert (after.weights[key] == array).all() == (is_frozen and not key.endswith(("._mean", "._variance"))), key
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    for folder in list_checkpoints(cut)[1:]:
        shutil.rmtree(folder)
    run_training(tiny.tiny_config(fewer, *options), run=cut, resume=True)
    for key, array in last_checkpoint(cut).weights.items():
        np.testing.assert_array_equal(array, after.weights[key], err_msg=key)
    again = tiny.tiny_config(fewer, *options, "init.frozen_statistics=eval")
    with pytest.raises(UsageError, match=r'init.frozen_statistics: "train" -> "eval"'):
        run_training(again, run=cut, resume=True)


@pytest.mark.slow
def test_ranks_share_the_statistics_of_frozen_parts_in_training_mode(
    index: VideoIndex, pretrained: Path, tmp_path: Path
) -> None:
    frozen = (f"init.weights={pretrained}", "init.freeze_until=layer4", "init.frozen_statistics=train", *QUICK)
    done = ranks.train(index, tmp_path / "run", 2, *frozen)
    assert done.returncode == 0, done.stderr
    before, after = weights_of(pretrained / "best"), last_checkpoint(tmp_path / "run").weights
    for key, array in before.items():
        if ".layer4." not in key and not key.startswith("head."):
            assert (after[key] != array).any() == key.endswith(("._mean", "._variance")), key


def test_the_former_key_of_a_config_is_told_where_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train:\n  freeze_until: layer4\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"train\.freeze_until \(line 2\): .* did you mean init\.freeze_until\?"):
        load_config(tmp_path / "c.yaml")
