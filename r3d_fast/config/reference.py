"""The table of all config keys in docs/config.md, made from the fields of the specs."""

from __future__ import annotations

import json

from r3d_fast.config.config import Config


def config_reference() -> str:
    """A Markdown table with the name, default and meaning of every config key."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    config = Config.model_validate({})
    for section, values in config.model_dump(mode="json").items():
        model = type(getattr(config, section))
        for key, value in values.items():
            meaning = " ".join((model.model_fields[key].description or "see its class").split()).replace("|", "/")
            shown = "" if value is None else f"`{json.dumps(value)}`"
            rows.append(f"| `{section}.{key}` | {shown} | {meaning} |")
    return "\n".join(rows)
