"""All config keys with their defaults and meanings, made from the fields of the specs."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple, get_args, get_origin

from r3d_fast.config.config import Config


class ConfigKey(NamedTuple):
    """A key of a config: `section.key`, its default (a JSON value), what it means, and its values, if it has few."""

    name: str
    default: Any
    meaning: str
    choices: tuple[str, ...]


def config_keys() -> list[ConfigKey]:
    """Every key of a config, in the order of the sections."""
    config = Config.model_validate({})
    keys = []
    for section, values in config.model_dump(mode="json").items():
        fields = type(getattr(config, section)).model_fields
        for key, value in values.items():
            meaning = " ".join((fields[key].description or "see its class").split())
            keys.append(ConfigKey(f"{section}.{key}", value, meaning, _choices(fields[key].annotation)))
    return keys


def _choices(annotation: Any) -> tuple[str, ...]:
    """The values that a field of this type takes, as they are written in YAML; empty where there are too many."""
    if annotation is bool:
        return ("true", "false")
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if get_origin(annotation) is tuple:  # several of them in a list
        return ()
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))


def config_reference() -> str:
    """A Markdown table with the name, default and meaning of every config key."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, default, meaning, _ in config_keys():
        shown = "" if default is None else f"`{json.dumps(default)}`"
        rows.append(f"| `{name}` | {shown} | {meaning.replace('|', '/')} |")
    return "\n".join(rows)
