"""Configs of anything: what is taken comes back from its own dump, all else is a ConfigError with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from r3d_fast.config.config import Config, config_from_json, dump_config, load_config
from r3d_fast.errors import ConfigError

RANDOM = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SECTIONS = {
    name: list(Config().model_dump()[name]) for name in Config.model_fields
}  # the keys of each section, by its name
WORDS = (
    "auto",
    "all",
    "paper",
    "none",
    "piecewise",
    "cosine",
    "plateau",
    "adamw",
    "A",
    "NDHWC",
    "gpu",
    "dali",
    "r3d18",
)
NUMBERS = st.one_of(
    st.integers(-2, 20),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, 5e-324, 4096, 65536, 0.5, 1e-3]),
)
SCALARS = st.one_of(
    NUMBERS, st.none(), st.booleans(), st.sampled_from(WORDS), st.text(max_size=12), st.binary(max_size=4)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)


@st.composite
def trees(draw: st.DrawFn) -> Any:
    """Sections with keys, most of which there are, with values of any kind."""
    if draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    found: dict[Any, Any] = {}
    for name in draw(st.lists(st.sampled_from(list(SECTIONS)), max_size=3, unique=True)):
        keys = st.one_of(st.sampled_from(SECTIONS[name]), st.sampled_from(SECTIONS[name]), st.text(max_size=6))
        found[name] = draw(st.dictionaries(keys, VALUES, max_size=4)) if draw(st.integers(0, 5)) else draw(VALUES)
    return found


def loaded(source: str, overrides: list[str]) -> Config | ConfigError:
    try:
        return load_config(source, overrides)
    except ConfigError as error:
        return error


def assert_comes_back(config: Config, folder: Path) -> None:
    """`config` is read back from its own dump as YAML and as JSON."""
    (folder / "dumped.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(folder / "dumped.yaml") == config
    assert config_from_json(config.model_dump(mode="json")) == config


@RANDOM
@given(tree=trees())
@example(tree={"train": {"epochs": 10**400}, "optimizer": {"lr": 10**400}})
@example(tree={"clip": {"num_frames": 4096}, "augment": {"size_px": 1024}})
def test_any_tree_is_a_config_or_an_error_that_names_the_file(tmp_path: Path, tree: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    found = loaded(str(path), [])
    if isinstance(found, ConfigError):
        assert all(line.startswith(f"{path}: ") for line in str(found).splitlines())
    else:
        assert_comes_back(found, tmp_path)


@RANDOM
@given(content=st.one_of(st.binary(max_size=60), st.text("{}[]&*!|>-:,#'\"\\ \n\ttrainepochs0123.e", max_size=60)))
def test_any_bytes_are_a_config_or_an_error_that_names_the_file(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = loaded(str(path), [])
    assert isinstance(found, Config) or str(found).startswith(f"{path}: ")


@RANDOM
@given(
    section=st.sampled_from(list(SECTIONS)), number=st.integers(0, 99),
    value=st.one_of(st.text(max_size=20), SCALARS.map(lambda value: yaml.safe_dump(value).partition("\n")[0])),
)  # fmt: skip
def test_any_override_is_a_config_or_an_error_that_names_it(
    tmp_path: Path, section: str, number: int, value: str
) -> None:
    keys = SECTIONS[section]
    override = f"{section}.{keys[number % len(keys)]}={value}"
    found = loaded("ucf101_r3d18", [override])
    if isinstance(found, ConfigError):
        assert str(found).startswith("-o ")
    else:
        assert_comes_back(found, tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("schedule.warmup_epochs=25", "schedule.warmup_epochs 25, train.epochs 25: expected a warmup shorter than tr"),
        ("clip.num_frames=5000", "expected less than or equal to 4096, got 5000"),
        ("loader.batch_size=100000", "expected less than or equal to 65536 or 'auto', got 100000"),
        ("loader.timeout_seconds=1e300", "expected less than or equal to 1000000, got '1e300'"),
        ("eval.views=100000", "expected less than or equal to 10000"),
        ("model.conv1_t_size=101", "expected less than or equal to 99, got 101"),
    ],
)
def test_what_no_machine_can_do_is_said_at_once(override: str, said: str) -> None:
    found = loaded("ucf101_r3d18", [override])
    assert f"-o {override}: " in str(found)
    assert said in str(found)


def test_a_clip_has_a_largest_size() -> None:
    found = loaded("ucf101_r3d18", ["clip.num_frames=256", "augment.size_px=1024"])
    assert str(found) == (
        "-o augment.size_px=1024: clip.num_frames 256, augment.size_px 1024: 268435456 pixels a clip; expected at most "
        "134217728"
    )
    assert isinstance(loaded("ucf101_r3d18", ["clip.num_frames=128", "augment.size_px=1024"]), Config)
