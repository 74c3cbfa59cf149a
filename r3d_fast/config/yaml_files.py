"""Reads config files and overrides: which values each of them sets, and on which line.

The values are not checked here; config.py does that. YAML is read with a safe loader, which makes nothing but plain
data. Duplicate keys, too many aliases and broken files are reported as ConfigErrors.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines.datasets.text_files import escaped
from pipelines.input.regular_files import read_regular
from r3d_fast.errors import ConfigError

MAX_BYTES = 1 << 20  # of a config file; the shipped ones have less than 6 kB
MAX_ALIASES = 100  # nested aliases can make a huge value of a short text
MAX_BASES = 8  # files that build on one another; the shipped ones are at most 5
# The shipped configs are inside the package when it is installed, and beside it in a checkout.
_PACKAGE = Path(__file__).parents[1]
CONFIG_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")

Key = tuple[int | str, ...]


class ConfigSource(NamedTuple):
    """A parsed config file or override: its name in messages, its values, and the line of each key (override: 0)."""

    label: str
    data: dict[str, Any]
    lines: dict[Key, int]


def shipped_configs() -> dict[str, Path]:
    """The file of each config that comes with r3d-fast, by the config's name: the file's own, without its folder."""
    return {path.stem: path for folder in reversed(CONFIG_FOLDERS) for path in sorted(folder.rglob("*.yaml"))}


def summary_of(path: Path) -> str:
    """The first sentence of the comment at the top of a config file; empty if there is none."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return re.split(r"(?<!et al)\.(?= |$)", " ".join(lines), maxsplit=1)[0]


def read_sources(name: str, problems: list[str]) -> list[ConfigSource]:
    """The sources of config `name`: those of its base and of the base's base and so on, the lowest first, then its own.

    Adds a message to `problems` for each key that is given twice. Raises ConfigError for a file that can't be read, and
    for a base that leads back to the config itself.
    """
    source, base = _read_one(_find(name, Path()), problems)
    sources, read = [source], [Path(source.label)]
    while base is not None:
        above = read[-1]
        try:
            path = _find(base, above.parent)
            if any(path.resolve() == other.resolve() for other in read):
                raise ConfigError(f"{path}: builds on itself; expected a base that does not name {above.name} again")
            if len(read) == MAX_BASES:
                raise ConfigError(f"{path}: the {MAX_BASES}th base in a row; expected fewer: copy the values of some")
            source, base = _read_one(path, problems)
        except ConfigError as error:
            raise ConfigError(f"{above}: base: {error}") from None
        sources.insert(0, source)
        read.append(path)
    return sources


def _read_one(path: Path, problems: list[str]) -> tuple[ConfigSource, str | None]:
    """(the source of one file, what it names as its base). Raises ConfigError."""
    source = _read(path, problems)
    base = source.data.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected a file or the name of a shipped config, got {shown(base)}")
    return source, base


def read_sections(path: Path) -> dict[str, Any]:
    """The sections of the config file at `path`, as it has them: without those of its base, and unchecked.

    Raises ConfigError for a file that can't be read.
    """
    return _read(path, []).data


def config_files(name: str) -> list[Path]:
    """The files that config `name` is read from: those of its bases, and its own. Raises ConfigError."""
    return [Path(source.label) for source in read_sources(name, [])]


def parse_override(override: str) -> ConfigSource:
    """The source of an override `section.key=value`, with the value in YAML. Raises ConfigError."""
    key, equals, value = override.partition("=")
    label = f"-o {escaped(override)}"
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ConfigError(f"{label}: expected section.key=value, such as -o train.epochs=3")
    data, _ = _parse(value, label)
    path = tuple(part.strip() for part in key.split("."))
    for part in reversed(path):
        data = {part: data}
    below = data[path[0]] if isinstance(data[path[0]], dict) else {}
    return ConfigSource(label, data, {path[:1]: 0, **{(path[0], name): 0 for name in below}})


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The values of `below`, replaced by those of `above` where it has the same key of the same section."""
    merged = {**below, **above}
    for section, values in above.items():
        if isinstance(values, dict) and isinstance(below.get(section), dict):
            merged[section] = {**below[section], **values}
    return merged


def dotted(path: Key) -> str:
    """`path` written as section.key, as in messages and overrides."""
    return ".".join(escaped(str(key)) for key in path)


def shown(value: Any) -> str:
    """`value` as text for a message, shortened if it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to write an integer of thousands of digits
        return "a number of thousands of digits"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with a limit on aliases. It reads all keys as text, so `on` and `1` stay names."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                text = f"more than {MAX_ALIASES} aliases (*name); write the values out"
                event = self.peek_event()  # type: ignore[no-untyped-call]
                raise yaml.constructor.ConstructorError(None, None, text, event.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:  # 2024-13-45 looks like a date, 0x_ like a number
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # Merge keys (<<) are not supported: nested ones can make a huge value of a short text. `base:` does their job.
        found: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "expected a name as key", key.start_mark)
            found[key.value] = self.construct_object(value, deep=deep)
        return found


def _find(source: str, folder: Path) -> Path:
    """The file of a config: `source` is a path relative to `folder`, or the name of a shipped config."""
    if source.endswith((".yaml", ".yml")) or "/" in source or os.sep in source:
        return folder / source
    shipped = shipped_configs()
    if source not in shipped:
        what = "it is a folder" if os.path.isdir(source) else "no such config"  # noqa: PTH112 - takes any text
        raise ConfigError(f"{source}: {what}; expected a file that ends in .yaml, or {_shipped_names(source)}")
    return shipped[source]


def _shipped_names(wanted: str) -> str:
    """The shipped configs in words: those whose names are most like `wanted`, or how to list all."""
    shipped = sorted(shipped_configs())
    near = difflib.get_close_matches(Path(wanted).stem, shipped, n=3, cutoff=0.75)
    if near:
        return f"a shipped config: did you mean {' or '.join(near)}?"
    return f"one of the {len(shipped)} shipped configs, which `r3d-fast config show` lists"


def _read(path: Path, problems: list[str]) -> ConfigSource:
    """The source of a config file; a message for each key that it gives twice is added to `problems`."""
    try:
        if not path.is_file():  # refuses pipes too, because reading one could wait for ever
            what = "it is a folder" if path.is_dir() else "not a file" if path.exists() else "no such file"
            raise ConfigError(f"{path}: {what}; expected a YAML file, or {_shipped_names(path.name)}")
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than 1 MiB; expected a config file of a few kB: check the path")
        raw = read_regular(path, MAX_BYTES)
        data, node = _parse(raw.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}; check its name and permissions") from error
    if not isinstance(data, dict):
        got = "nothing" if data is None else shown(data)
        raise ConfigError(f"{path}: expected sections such as `train:` with keys below them, got {got}")
    source = ConfigSource(str(path), data, {})
    problems += _number_lines(node, source)
    return source


def _number_lines(node: yaml.Node | None, source: ConfigSource, above: Key = ()) -> Iterator[str]:
    """Fill `source.lines` with the lines of sections and keys; yields a message for each key that is given twice."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        path = (*above, key.value)
        line = key.start_mark.line + 1
        if path in source.lines:
            yield f"{source.label}: {dotted(path)} (line {line}): given twice, first on line {source.lines[path]}"
        source.lines.setdefault(path, line)
        if not above:
            yield from _number_lines(value, source, path)


def _parse(text: str, label: str) -> tuple[Any, yaml.Node | None]:
    """(value, root node with line numbers) of a YAML text. Raises ConfigError, which begins with `label`."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{label}: {where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{label}: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ConfigError(f"{label}: nested too deeply; expected sections with keys below them") from None
