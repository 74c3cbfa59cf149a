"""Passwords, tokens and keys in texts that are kept or shown: commands, addresses, settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
# Words of a name, such as authToken or DB_PASSWORD.
_SECRET_WORD = (
    "token|tokens|secret|secrets|password|passwords|passwd|passphrase|auth|authorization|bearer|credential|credentials|"
    "cookie|signature|apikey"
)
# A key by itself may be that of a table; it is secret as the end of a longer name: WANDB_API_KEY.
_SECRET_NAME = re.compile(rf"(?:^|[^a-z])(?:{_SECRET_WORD})(?:[^a-z]|$)|[a-z0-9][_.-]keys?$")
_ADDRESS = re.compile(r"(://)([^/@\s:\"']*)(:?)([^/\s\"']*)@")
# A name begins where no other does and has an end, or a long line of letters would be tried from each of them on.
_SETTING = re.compile(r"(?<![\w.-])([\w.-]{1,200})(?:=|: |\"\s*:\s*\"|'\s*:\s*')")
_VALUE = re.compile(r"[^\s\"'&,}]+")
_LONGEST_USER = 16  # characters of what stands alone before the @ of an address and is no token
_SHORTEST = 6  # characters of a secret: shorter ones would be found everywhere


def is_secret_name(name: str) -> bool:
    """Whether a variable or setting of this name, such as WANDB_API_KEY or authToken, holds a secret."""
    return _SECRET_NAME.search(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()) is not None


def without_credentials(text: str) -> str:
    """`text` with *** for the passwords of addresses, and for the values of settings whose names are those of secrets.

    An address is any SCHEME://USER:PASSWORD@HOST, a setting NAME=VALUE, NAME: VALUE or "NAME": "VALUE".
    """
    text, at, kept = _ADDRESS.sub(_hidden_user, text), 0, []
    for name in _SETTING.finditer(text):  # the value of one may hold another: `environment: TOKEN=...`
        value = _VALUE.match(text, name.end()) if name.start() >= at and is_secret_name(name[1]) else None
        if value is not None:
            kept += [text[at : name.end()], HIDDEN]
            at = value.end()
    return "".join([*kept, text[at:]])


def _hidden_user(found: re.Match[str]) -> str:
    if found[3]:
        return f"{found[1]}{found[2]}:{HIDDEN}@"
    return found[0] if len(found[2]) <= _LONGEST_USER else f"{found[1]}{HIDDEN}@"


def values_without_credentials(values: Any) -> Any:
    """`values`, of JSON, with *** for what `without_credentials` hides and for texts under the names of secrets."""
    if isinstance(values, str):
        return without_credentials(values)
    if isinstance(values, Mapping):
        return {
            key: HIDDEN if isinstance(value, str) and value and is_secret_name(str(key))
            else values_without_credentials(value)
            for key, value in values.items()
        }  # fmt: skip
    return [*map(values_without_credentials, values)] if isinstance(values, list | tuple) else values


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """The values in `environment` of variables whose names say that they are secret; not those of a few letters."""
    return [value for name, value in environment.items() if is_secret_name(name) and len(value) >= _SHORTEST]
