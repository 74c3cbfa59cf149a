"""Writes config files for tests, and gives the problems that `load_config` reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from r3d_fast.config.config import load_config
from r3d_fast.errors import ConfigError


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(source: str | Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    assert caught.value.exit_code == 2
    return [line.replace(str(source), "FILE") for line in str(caught.value).splitlines()]
