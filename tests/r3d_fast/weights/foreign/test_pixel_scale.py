"""Which scale of pixels the weights in a file get, by the signs of the program that wrote it. Needs no PyTorch."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import State, clip, drawn, older, shapes

from pipelines.errors import UsageError
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.cli import cli, run_cli
from r3d_fast.weights.foreign.importer import ImportedWeights, import_summary, import_weights
from r3d_fast.weights.normalisation import NORMALISATIONS
from r3d_fast.weights.stored_model import restore

paddle = import_paddle()
SCHEDULER = {"scheduler": {"last_epoch": 3}}
OPTIMIZER = {"optimizer": {"param_groups": []}}
COUNTERS = {"bn1.num_batches_tracked": np.zeros((), np.int64)}


def weights(name: str = "r3d10", **stem: Any) -> State:
    return drawn(shapes(name, classes=5, width=16, **stem))


def prefixed(state: dict[str, Any]) -> dict[str, Any]:
    return {f"module.{name}": value for name, value in state.items()}


def imported(
    folder: Path, state: dict[str, Any], beside: dict[str, Any] | None = None, **options: Any
) -> ImportedWeights:
    """What is imported from a file with the weights `state` and, in a checkpoint, what lies beside them."""
    content = state if beside is None else {"epoch": 3, "arch": "any", "state_dict": state, **beside}
    (folder / "m.pdparams").write_bytes(pickle.dumps(content, 4))
    return import_weights(folder / "m.pdparams", folder / "w.safetensors", **options)


@pytest.mark.parametrize(
    ("state", "beside", "scale", "sign"),
    [
        (prefixed(weights()), {}, "hara", "branch CVPR2018, by the prefix module."),
        (prefixed(weights()), None, "hara", "by the prefix module."),
        (prefixed(weights() | COUNTERS), {}, "hara", "by the prefix module."),  # from a newer PyTorch
        (prefixed(weights()), OPTIMIZER, "hara", "the prefix module. and a key optimizer without scheduler"),
        (weights(), OPTIMIZER, "hara", "by a key optimizer without scheduler"),
        (weights() | COUNTERS, OPTIMIZER | SCHEDULER, "kinetics", "branch master, by the key scheduler"),
        (weights(), SCHEDULER, "kinetics", "by the key scheduler"),
        (weights("wide50"), None, "hara", "by a stem of 16 channels"),
        (weights("wide50", stem_factor=2), None, "kinetics", "by a stem of 32 channels"),
        (weights("resnext50", stem_factor=2), SCHEDULER, "kinetics", "the key scheduler and a stem of 32 channels"),
        (weights("r2plus1d18"), None, "kinetics", "by an R(2+1)D"),
        (weights(conv1_t_size=3), None, "kinetics", "by a stem of 3 frames"),
        (older(weights("densenet121")), None, "hara", "the prefix module. and the name features.conv0"),
        (weights("densenet121"), None, "kinetics", "by the name features.conv1"),
    ],
)  # fmt: skip
def test_signs_that_agree_decide(
    tmp_path: Path, state: State, beside: dict[str, Any] | None, scale: str, sign: str
) -> None:
    got = imported(tmp_path, state, beside)
    assert got.scale.name == scale
    assert f"{sign}; --normalize takes another" in got.scale.reason
    stored = restore(tmp_path / "w.safetensors").config
    assert {key: getattr(stored.augment, key) for key in NORMALISATIONS[scale]} == NORMALISATIONS[scale]
    assert stored.eval.views == {"hara": "paper", "kinetics": "all"}[scale]


@pytest.mark.parametrize(
    ("state", "beside", "signs"),
    [
        (prefixed(weights()), SCHEDULER, ("prefix module. of branch CVPR2018", "key scheduler of branch master")),
        (weights("wide50", stem_factor=2), OPTIMIZER, ("optimizer without scheduler of", "32 channels of branch mas")),
        (prefixed(weights("r2plus1d18")), None, ("prefix module. of branch CVPR2018", "an R(2+1)D of branch master")),
        (weights("wide50"), SCHEDULER, ("a stem of 16 channels of branch CVPR2018", "key scheduler of branch master")),
        (weights(), None, ("nothing in it tells",)),
        (weights() | COUNTERS, {}, ("nothing in it tells",)),
    ],
)
def test_signs_that_disagree_or_are_none_are_refused_in_a_line_with_the_options(
    tmp_path: Path, state: State, beside: dict[str, Any] | None, signs: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(UsageError) as caught:
        imported(tmp_path, state, beside)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'm.pdparams'}: ")
    for part in (*signs, "--normalize hara", "--normalize kinetics"):
        assert part in said
    assert not (tmp_path / "w.safetensors").exists()
    args = ["import-weights", str(tmp_path / "m.pdparams"), "-o", str(tmp_path / "w.safetensors")]
    assert run_cli(cli, args, "r3d-fast") == 2
    assert capsys.readouterr().err.splitlines() == [f"r3d-fast: {said}"]
    for scale in ("hara", "kinetics"):
        got = imported(tmp_path, state, beside, normalize=scale)
        assert (got.scale.name, got.scale.reason) == (scale, "as asked for")


def test_values_of_ones_own_need_a_scale_that_they_change_unless_they_are_all_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing in it tells"):
        imported(tmp_path, weights(), mean=(1.0, 2.0, 3.0))
    got = imported(tmp_path, weights(), SCHEDULER, mean=(0.5, 0.5, 0.5))
    assert got.scale.name == "kinetics"
    assert got.scale.reason.endswith("; mean as asked for")
    augment = got.config.augment
    assert (augment.mean, augment.std) == ((0.5, 0.5, 0.5), NORMALISATIONS["kinetics"]["std"])
    assert imported(tmp_path, weights(), mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0), value_max=255).scale.name == "given"


def test_a_mean_that_no_picture_can_have_is_refused(tmp_path: Path) -> None:
    said = (
        r"mean \[114.7748, 107.7354, 99.475\] of pixels from 0 to 1; expected no value above 1: give --mean, --std and"
    )
    with pytest.raises(UsageError, match=said):
        imported(tmp_path, weights(), normalize="hara", value_max=1)


@pytest.mark.parametrize(
    ("scale", "windows"), [("hara", "every window but a last one of one frame"), ("kinetics", "every window")]
)
def test_the_summary_says_which_windows_are_taken(tmp_path: Path, scale: str, windows: str) -> None:
    got = imported(tmp_path, weights(), normalize=scale)
    assert f"clips    16 consecutive frames, {windows}" in import_summary(got, tmp_path / "m.pdparams")


def test_what_no_file_tells_goes_into_the_config_and_from_there_into_every_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = weights("r3d18")
    (tmp_path / "m.pdparams").write_bytes(pickle.dumps({"state_dict": state, **SCHEDULER}, 4))
    logits = []
    for options, stem in (
        ([], "stride 1 in time (--conv1-t-stride), a max pool (--no-max-pool)"),
        (["--conv1-t-stride", "2"], "stride 2 in time (--conv1-t-stride), a max pool (--no-max-pool)"),
        (["--no-max-pool"], "stride 1 in time (--conv1-t-stride), no max pool (--no-max-pool)"),
    ):
        out = tmp_path / "w.safetensors"
        args = ["import-weights", str(tmp_path / "m.pdparams"), "-o", str(out), *options]
        assert run_cli(cli, args, "r3d-fast") == 0
        said = capsys.readouterr().out
        assert f"stem     16 channels, a kernel of 7 frames; as no file tells: {stem}\n" in said
        restored = restore(out)
        with paddle.no_grad():
            logits.append(restored.model(paddle.to_tensor(clip())).numpy())
    plain, strided, unpooled = logits
    assert min(np.abs(plain - strided).max(), np.abs(plain - unpooled).max()) > 0.01
    assert run_cli(cli, [*args[:4], "--conv1-t-stride", "3"], "r3d-fast") == 2
    assert "3 is not in the range 1<=x<=2" in capsys.readouterr().err
