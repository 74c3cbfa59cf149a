from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.errors import UsageError
from r3d_fast.backend.paddle import choose_device, import_paddle
from r3d_fast.models.architectures import build_model

torch = pytest.importorskip("torch")

from bench.studies.torch_model import Design, ResNet, copy_weights, design_of, paddle_variances  # noqa: E402


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    """Our model of 5 classes and its twin, with the same weights."""
    choose_device("cpu")
    import_paddle().seed(0)
    ours = build_model(name, num_classes=5, **options)
    twin = ResNet(design_of(ours))
    copy_weights(twin, arrays(ours))
    return ours, twin


def arrays(ours: Any) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in ours.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("r3d18_reference", {"width": 8}),
        ("r3d18", {"width": 8, "shortcut": "A"}),
        ("r3d18", {"width": 4, "shortcut": "B"}),
        ("r3d10", {"width": 16}),
    ],
)
@pytest.mark.parametrize("size", [(8, 56), (7, 40)])  # even and odd sizes are padded in different ways
def test_the_twin_gives_our_logits(name: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    ours, twin = pair(name, **options)
    clips = np.random.default_rng(0).standard_normal((3, 3, size[0], size[1], size[1]), dtype=np.float32)
    for is_training in (True, False):  # evaluation takes the statistics that training left
        ours.train() if is_training else ours.eval()
        twin.train(is_training)
        copy_weights(twin, arrays(ours))
        expected = ours(import_paddle().to_tensor(clips)).numpy()
        with torch.no_grad():
            given = twin(torch.from_numpy(clips)).numpy()
        np.testing.assert_allclose(given, expected, atol=1e-4 * np.abs(expected).max())


def test_paddle_variances_are_those_of_the_values_themselves() -> None:
    _, twin = pair("r3d10", width=4)
    norm = twin.backbone.stem[0].bn
    norm.momentum = 1.0  # the running variance is that of the last batch
    clips = torch.randn(2, 3, 8, 16, 16)
    with torch.no_grad():
        twin.train()
        twin(clips)
        values = twin.backbone.stem[0].conv(clips)
    before = norm.running_var.clone()
    with paddle_variances(twin):
        torch.testing.assert_close(norm.running_var, values.var((0, 2, 3, 4), unbiased=False))
    assert torch.equal(norm.running_var, before)
    assert not torch.equal(before, values.var((0, 2, 3, 4), unbiased=False))


def test_weights_of_another_network_are_refused() -> None:
    ours, _ = pair("r3d10", width=4)
    weights = arrays(ours)
    with pytest.raises(UsageError, match="in one of the two models only, or of another shape"):
        copy_weights(ResNet(Design(5, (1, 1, 1, 1), width=8)), weights)
    with pytest.raises(UsageError, match=r"backbone\.layer1\.1"):
        copy_weights(ResNet(Design(5, (2, 2, 2, 2), width=4)), weights)


def test_a_network_without_a_twin_is_refused() -> None:
    for name in ("r3d50", "preact18", "densenet121"):
        with pytest.raises(UsageError, match=r"no PyTorch model of .* expected model\.name r3d18_reference, r3d10"):
            design_of(build_model(name, num_classes=5, width=8))
