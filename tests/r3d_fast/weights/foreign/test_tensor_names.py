"""Weights of the authors' files in our models: recognised, renamed, and worth the same logits as in PyTorch."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from families import NAMES, clip, drawn, older, shapes, torch_gradients, torch_logits

from r3d_fast.errors import CheckpointError
from r3d_fast.models.architectures import MODELS, build_model
from r3d_fast.weights.foreign.tensor_names import RecognisedNetwork, recognise, renamed

GOLDEN = Path(__file__).parents[3] / "golden" / "logits.json"
# Model, shortcut, how it is built otherwise: each kind of block of each family, and each stem. Width 16, which a
# ResNeXt needs at least.
STRIDE, NO_POOL, SHORT, WIDE = {"conv1_t_stride": 2}, {"max_pool": False}, {"conv1_t_size": 3}, {"stem_factor": 2}
Case = tuple[str, str, dict[str, Any]]
CASES: tuple[Case, ...] = (
    *(("r3d18", "A", {}), ("r3d34", "B", {}), ("r3d50", "B", {}), ("r3d50", "A", {}), ("preact18", "B", {})),
    *(("preact34", "A", {}), ("preact50", "B", {}), ("wide50", "B", {}), ("resnext50", "B", {})),
    *(("densenet121", "B", {}), ("r2plus1d18", "B", {}), ("r2plus1d34", "B", {}), ("r2plus1d50", "B", {})),
    *(("r3d18", "A", STRIDE), ("r3d10", "B", NO_POOL), ("r3d34", "A", SHORT), ("preact18", "A", STRIDE | NO_POOL)),
    *(("wide50", "B", WIDE), ("resnext50", "B", WIDE), ("resnext50", "A", WIDE | STRIDE), ("wide50", "A", WIDE)),
    *(("densenet121", "B", STRIDE | NO_POOL), ("densenet121", "B", SHORT), ("r2plus1d18", "B", SHORT | STRIDE)),
    *(("r2plus1d50", "A", SHORT | NO_POOL),),
)
WIDTH, CLASSES = 16, 7
IN_NAMES_AND_SHAPES = {"conv1_t_size", "stem_factor"}  # what names and shapes tell; the rest has to be said


def named(name: str, shortcut: str, choices: dict[str, Any]) -> str:
    return " ".join([name, shortcut, *(f"{key}={value}" for key, value in choices.items())])


EACH = pytest.mark.parametrize(("name", "shortcut", "choices"), CASES, ids=[named(*case) for case in CASES])


def small(name: str, shortcut: str = "B", choices: dict[str, Any] | None = None) -> Any:
    seen = {key: value for key, value in (choices or {}).items() if key in IN_NAMES_AND_SHAPES}
    return drawn(shapes(name, shortcut=shortcut, classes=CLASSES, width=WIDTH, **seen))


def unseen(choices: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choices.items() if key not in IN_NAMES_AND_SHAPES}


def our_logits(state: Any, **choices: Any) -> Any:
    """The logits of the model that the tensors say they are of, as any user of them would get it."""
    found = recognise({key: value.shape for key, value in state.items()})
    model = build_model(
        found.model, num_classes=found.num_classes or 1, shortcut=found.shortcut, width=found.width,
        conv1_t_size=found.conv1_t_size, stem_factor=found.stem_factor, **choices,
    )  # fmt: skip
    ours = renamed(state, found)
    own = model.state_dict()
    assert {key: list(value.shape) for key, value in ours.items()} == {key: list(t.shape) for key, t in own.items()}
    model.set_state_dict(ours)
    model.eval()
    with paddle.no_grad():
        return model(paddle.to_tensor(clip())).numpy()


def assert_close(got: Any, expected: Any) -> None:
    """Within 1e-4, where logits are about 1, and within 2 % of what the two clips differ by."""
    spread = np.ptp(np.asarray(expected), axis=0).max()
    np.testing.assert_allclose(got, expected, atol=min(1e-4, 0.02 * spread), rtol=0)


@EACH
def test_logits_are_those_that_pytorch_gave(name: str, shortcut: str, choices: dict[str, Any]) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["logits"]
    logits = our_logits(small(name, shortcut, choices), **unseen(choices))
    assert_close(logits, golden[named(name, shortcut, choices)])


@EACH
def test_logits_are_those_that_pytorch_gives(name: str, shortcut: str, choices: dict[str, Any]) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed; its logits of tests/golden are compared instead")
    state = small(name, shortcut, choices)
    assert_close(our_logits(state, **unseen(choices)), torch_logits(name, state, clip(), **unseen(choices)))


def test_the_golden_logits_are_of_these_cases_and_of_these_weights() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert list(golden["logits"]) == [named(*case) for case in CASES]
    for name, digest in golden["sha256"].items():
        state = small(*next(case for case in CASES if named(*case) == name))
        assert hashlib.sha256(b"".join(state[key].tobytes() for key in sorted(state))).hexdigest() == digest


def test_a_stem_that_no_file_tells_of_gives_other_logits() -> None:
    """So it has to be said: taken for the usual stem, the same weights compute something else."""
    for name, shortcut, choices in CASES:
        if left_out := unseen(choices):
            state = small(name, shortcut, choices)
            right, wrong = our_logits(state, **left_out), our_logits(state)
            assert np.abs(right - wrong).max() > 100 * 1e-4, named(name, shortcut, choices)


@pytest.mark.parametrize("gradient", [True, False])
def test_gradients_are_those_of_pytorch_with_and_without_a_detached_shortcut(gradient: bool) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed; tests/r3d_fast/models computes a case by hand")
    state, clips, labels = small("r3d10", "A"), clip(16, 64, 4), [1, 4, 0, 6]
    expected = torch_gradients("r3d10", state, clips, labels, shortcut_gradient=gradient)
    found = recognise({key: value.shape for key, value in state.items()})
    model = build_model("r3d10", num_classes=CLASSES, shortcut="A", width=WIDTH, shortcut_gradient=gradient)
    model.set_state_dict(renamed(state, found))
    model.train()
    paddle.nn.functional.cross_entropy(model(paddle.to_tensor(clips)), paddle.to_tensor(labels)).backward()
    ours = {name: p.grad.numpy() for name, p in model.named_parameters() if not p.stop_gradient}
    theirs = renamed(expected, found)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert np.linalg.norm(ours[name] - value) < 1e-3 * np.linalg.norm(value), name
    other = renamed(torch_gradients("r3d10", state, clips, labels, shortcut_gradient=not gradient), found)
    stem = "backbone.stem.0.conv.weight"
    assert np.linalg.norm(other[stem] - theirs[stem]) > 0.1 * np.linalg.norm(theirs[stem])


TWO_STEMS = ("wide50", "resnext50", "resnext101", "resnext152")


@pytest.mark.parametrize("name", [name for name in MODELS if name != "r3d18_reference"])
def test_every_model_is_recognised_by_names_and_shapes(name: str) -> None:
    family, depth = NAMES[name]
    stems: tuple[dict[str, Any], ...] = ({}, SHORT, WIDE, WIDE | SHORT) if name in TWO_STEMS else ({}, SHORT)
    for shortcut, stem in product("AB" if family != "densenet" else "B", stems):
        wanted = shapes(name, shortcut=shortcut, **stem)
        expected = RecognisedNetwork(name, None if family == "densenet" else shortcut, 400, **stem)
        assert recognise(wanted) == expected
        assert recognise(older(wanted), f"{family}-{depth}") == expected
        counters = {key.replace("running_mean", "num_batches_tracked"): () for key in wanted if "_mean" in key}
        assert recognise({**wanted, **counters}) == expected


@pytest.mark.parametrize(
    ("name", "millions"),
    [("r3d18", 33.26), ("r3d50", 46.41), ("preact200", 126.81), ("wide50", 157.64), ("resnext101", 47.73),
     ("densenet121", 11.39), ("densenet201", 25.57)],
)  # fmt: skip
def test_the_authors_models_of_these_tests_have_the_published_sizes(name: str, millions: float) -> None:
    wanted = shapes(name, classes=101)
    counted = sum(int(np.prod(shape)) for key, shape in wanted.items() if "running" not in key)
    assert round(counted / 1e6, 2) == millions


@pytest.mark.parametrize("name", ["r3d18", "r3d50", "preact18", "densenet121", "r2plus1d18", "r2plus1d50"])
def test_names_of_the_first_files_mean_the_same(name: str) -> None:
    state = small(name)
    first = older({**state, "bn1.num_batches_tracked": np.zeros((), np.int64)})
    expected = renamed(state, recognise({key: value.shape for key, value in state.items()}))
    got = renamed(first, recognise({key: value.shape for key, value in first.items()}))
    assert list(got) == list(expected)
    assert all(got[key] is expected[key] or np.array_equal(got[key], expected[key]) for key in got)


def test_linear_layers_are_turned_and_contiguous() -> None:
    state = small("r3d10")
    fc = renamed(state, RecognisedNetwork("r3d10", "B", CLASSES, WIDTH))["head.fc.weight"]
    np.testing.assert_array_equal(fc, state["fc.weight"].T)
    assert fc.flags.c_contiguous


def test_the_references_names_are_ours() -> None:
    own = {key: value.numpy() for key, value in build_model("r3d18_reference", num_classes=5).state_dict().items()}
    found = recognise({key: value.shape for key, value in own.items()})
    assert found == RecognisedNetwork("r3d18_reference", "B", 5, 64, "ours")
    same = renamed(own, found)
    assert list(same) == list(own)
    assert all(np.array_equal(same[key], own[key]) for key in own)


def test_a_file_without_a_last_layer_is_recognised_without_classes() -> None:
    wanted = {key: shape for key, shape in shapes("r3d18").items() if not key.startswith("fc.")}
    assert recognise(wanted) == RecognisedNetwork("r3d18", "B", None)


def changed(name: str, *, shortcut: str = "B", **new: Any) -> Any:
    """The shapes of `name`, with some of them others, or gone (None); in names __ is a dot."""
    wanted: dict[str, Any] = dict(shapes(name, shortcut=shortcut))
    wanted.update({key.replace("__", "."): value for key, value in new.items()})
    return {key: value for key, value in wanted.items() if value is not None}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (changed("resnext101", conv1__weight=(96, 3, 7, 7, 7)), "resnext101 with a stem of 96 .*: expected 64 or 128$"),
        (changed("r3d50", conv1__weight=(128, 3, 7, 7, 7)), "r3d50 with a stem of 128 channels: expected 64$"),
        (changed("r3d18", conv1__weight=(64, 3, 4, 7, 7)), r"r3d18 with a stem of 4 x 7 x 7: expected an odd number"),
        (changed("r3d18", conv1__weight=(64, 3, 7, 5, 5)), r"r3d18 with a stem of 7 x 5 x 5: expected an odd number"),
        (changed("r3d18", conv1__weight=(64, 2, 7, 7, 7)), "r3d18 for clips of 2 channels: expected 3, RGB"),
        (changed("r3d18", conv1__weight=(64, 3, 7, 7)), r"r3d18 with a first .* \[64, 3, 7, 7\]: expected 3D conv"),
        (changed("r2plus1d18", conv1_t__weight=(64, 110, 2, 1, 1)), "r2plus1d18 with a stem of 2 x 7 x 7: expected an"),
        (changed("resnext50", layer1__0__conv2__weight=(128, 8, 3, 3, 3)), "ResNeXt of cardinality 16 whose .* 2 time"),
        (changed("r3d50", layer1__0__conv3__weight=(192, 64, 1, 1, 1)), "bottlenecks of 64 channels that put out 192"),
        (changed("r3d18", layer4__1__conv1__weight=None), r"r3d with 2, 2, 2, 1 blocks a stage: expected one of 1, 1"),
        (changed("r3d34", layer3__2__conv1__weight=None), r"blocks \[0, 1, 3, 4, 5\] of stage 3: some are missing"),
        (changed("r3d50", layer1__0__bn3__weight=None), r"layer1\.0\.bn3\.weight is missing"),
        ({"encoder.weight": (3, 3), "encoder.bias": (3,)}, r"2 tensors \(encoder.weight, encoder.bias\): not "),
        ({}, r"0 tensors \(\): not the names of a known model"),
        ({"backbone.stem.0.conv.weight": (64, 3, 7, 7, 7)}, "names such as .* look like this project's own"),
    ],
)  # fmt: skip
def test_what_is_not_here_is_refused_in_words(wanted: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        recognise(wanted)


def test_depths_that_are_not_here_are_refused() -> None:
    wanted = {f"layer{i}.0.conv1_s.weight": (1,) for i in (1, 2, 3, 4)}
    wanted |= {"conv1_s.weight": (110, 3, 1, 7, 7), "conv1_t.weight": (64, 110, 7, 1, 1)}
    with pytest.raises(CheckpointError, match="r2plus1d of 10 layers is not a known model; expected r2plus1d18, r2pl"):
        recognise(wanted)
    dense = changed("densenet121")
    dense = {key: (16, *shape[1:]) if ".conv2." in key else shape for key, shape in dense.items()}
    with pytest.raises(CheckpointError, match="DenseNet of growth 16 on a stem of 64 channels: expected 32"):
        recognise(dense)


def test_what_the_file_says_of_itself_has_to_agree() -> None:
    assert recognise(shapes("r3d18"), "my-net").model == "r3d18"
    with pytest.raises(CheckpointError, match="the file says resnet-34, but its tensors are those of r3d18"):
        recognise(shapes("r3d18"), "resnet-34")


def test_tensors_without_a_place_are_named() -> None:
    state = {**small("r3d10"), "lstm.weight": np.zeros(3), "bn1.gamma": np.zeros(3)}
    with pytest.raises(CheckpointError, match=r"r3d10 has no tensors called lstm\.weight, bn1\.gamma"):
        renamed(state, RecognisedNetwork("r3d10", "B", CLASSES, WIDTH))
    state = {**small("r2plus1d50"), "layer1.0.conv2.weight": np.zeros(3), "conv1.weight": np.zeros(3)}
    with pytest.raises(CheckpointError, match=r"has no tensors called layer1\.0\.conv2\.weight, conv1\.weight"):
        renamed(state, RecognisedNetwork("r2plus1d50", "B", CLASSES, WIDTH))


def test_the_map_needs_neither_paddle_nor_torch() -> None:
    code = "import sys; import r3d_fast.weights.foreign.tensor_names; assert not {'paddle', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])


if __name__ == "__main__":  # writes the golden logits, with PyTorch
    import torch

    states = {named(*case): small(*case) for case in CASES}
    values: dict[str, Any] = {
        "about": [
            "Logits of PyTorch, evaluation mode, for two clips, by case: model, shortcut, how it is built otherwise.",
            f"Versions: torch {torch.__version__}, numpy {np.__version__}.",
            "Weights, by the names in the authors' files: tests/support/networks/families.py, shapes(width=16, classes="
            "7), then drawn(): numpy.random.Generator(PCG64(zlib.crc32(name))); convolutions and linear layers N(0, 1) "
            "* sqrt(2 / inputs), running_var U(0.5, 1.5), all else 0.1 * N(0, 1), plus 0.5 for weights of norms.",
            "Clips: clip(), N(0, 1) float32 [2, 3, 16, 56, 56] of PCG64(7).",
            "sha256 is of the weights' bytes, tensors in the order of their names.",
            "Written by: PYTHONPATH=.:tests/support/networks python "
            "tests/r3d_fast/weights/foreign/test_tensor_names.py",
        ],
        "sha256": {
            name: hashlib.sha256(b"".join(state[key].tobytes() for key in sorted(state))).hexdigest()
            for name, state in states.items()
        },
        "logits": {
            named(*case): [
                [round(float(value), 6) for value in row]
                for row in torch_logits(case[0], states[named(*case)], clip(), **unseen(case[2]))
            ]
            for case in CASES
        },
    }
    GOLDEN.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
