"""Makes one frozen `Config` of a YAML file and overrides, and reports all problems in them at once.

A config file has sections with keys. Each section is a spec, defined in sections.py or in `pipelines/specs.py`.
`base: other.yaml` takes all values of another file first, which may have a base itself. An override
`-o section.key=value` replaces the value of the files.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec, Spec
from r3d_fast.config.sections import (
    DataSpec,
    EvalSpec,
    InitSpec,
    ModelSpec,
    OptimizerSpec,
    ScheduleSpec,
    TrainSpec,
)
from r3d_fast.config.yaml_files import ConfigSource, Key, dotted, merge, parse_override, read_sources, shown
from r3d_fast.console import counted
from r3d_fast.errors import ConfigError

__all__ = ["Config", "ConfigError", "config_diff", "config_from_json", "dump_config", "load_config"]

DataFormat = Literal["NCDHW", "NDHWC"]
LAYOUT_OF: dict[DataFormat, Literal["NCTHW", "NTHWC"]] = {"NCDHW": "NCTHW", "NDHWC": "NTHWC"}
# The keys of a dump of `model` as long as these models had other shortcuts of their own than now.
_FORMER_KEYS = {"name", "shortcut", "data_format", "width", "dropout"}
_FORMER_SHORTCUTS = {"r3d18": "B", "preact18": "B", "preact34": "B"}
MOST_PIXELS = 2**27  # of a clip, all frames together: 1.6 GB as float32; 128 frames of 1024 px are as many
REFERENCE_SCHEDULE = ScheduleSpec(kind="piecewise", milestones_epochs=(15, 20))


class Config(Spec):
    """All settings of a run; two equal configs describe the same run."""

    data: DataSpec = Field(DataSpec(), description="which videos")
    clip: ClipSpec = Field(ClipSpec(), description="which frames make a clip")
    augment: AugmentSpec = Field(AugmentSpec(), description="how frames become the model's input")
    loader: LoaderSpec = Field(LoaderSpec(), description="how clips are loaded")
    model: ModelSpec = Field(ModelSpec(), description="which network")
    init: InitSpec = Field(InitSpec(), description="the weights that a new run starts with")
    optimizer: OptimizerSpec = Field(OptimizerSpec(), description="how gradients change the weights")
    schedule: ScheduleSpec = Field(REFERENCE_SCHEDULE, description="how the learning rate falls")
    train: TrainSpec = Field(TrainSpec(), description="how long and where to train, and what to keep")
    eval: EvalSpec = Field(EvalSpec(), description="how the model is evaluated")

    @field_validator("schedule", mode="before")
    @classmethod
    def _keep_kind(cls, value: Any) -> Any:
        # `-o schedule.gamma=0.2` has to change the default schedule. Without this, the section would get its other
        # values from ScheduleSpec, whose default is a constant rate.
        if isinstance(value, dict) and "kind" not in value:
            return {"kind": "piecewise", "milestones_epochs": REFERENCE_SCHEDULE.milestones_epochs, **value}
        return value

    @model_validator(mode="before")
    @classmethod
    def _drop_former_key(cls, values: Any) -> Any:
        # The config.yaml of runs from before the section `init` has train.freeze_until, nearly always unset.
        train = values.get("train") if isinstance(values, dict) else None
        if isinstance(train, dict) and train.get("freeze_until", 0) is None:
            return {**values, "train": {key: value for key, value in train.items() if key != "freeze_until"}}
        return values

    @model_validator(mode="after")
    def _check(self) -> Config:
        chosen, layout = self.model.data_format, self.augment.layout
        given = "layout" in self.augment.model_fields_set
        if chosen == "auto":
            if given:  # only the layout was given, so the data format follows from it
                formats = {layout: data_format for data_format, layout in LAYOUT_OF.items()}
                self._replace(model=self.model.model_copy(update={"data_format": formats[layout]}))
        elif layout != (wanted := LAYOUT_OF[chosen]):
            if given:
                raise ValueError(f"model.data_format {chosen} needs augment.layout {wanted}, got {layout}")
            self._replace(augment=self.augment.model_copy(update={"layout": wanted}))
        warmup, epochs = self.schedule.warmup_epochs, self.train.epochs
        if warmup >= epochs:
            raise ValueError(
                f"schedule.warmup_epochs {warmup:g}, train.epochs {epochs}: expected a warmup shorter than training"
            )
        frames, side = self.clip.num_frames, self.augment.size_px
        if frames * side**2 > MOST_PIXELS:
            raise ValueError(
                f"clip.num_frames {frames}, augment.size_px {side}: {frames * side**2} pixels a clip; expected at most "
                f"{MOST_PIXELS}"
            )
        views = self.clip.views if self.eval.views is None else self.eval.views
        if isinstance(views, str) and self.clip.sampling == "segments":
            raise ValueError(
                f"eval.views {views!r} needs clip.sampling consecutive, got segments, whose clips span the whole "
                "video; expected a number of views"
            )
        return self

    def _replace(self, **sections: Spec) -> None:
        for name, section in sections.items():
            object.__setattr__(self, name, section)  # a plain assignment is forbidden: the config is frozen

    def eval_specs(self) -> tuple[ClipSpec, AugmentSpec, LoaderSpec]:
        """The specs for evaluation and prediction: those for training, with the values that `eval` sets."""
        views, crops, batch_size = self.eval.views, self.eval.crops, self.eval.batch_size
        return (
            self.clip if views is None else self.clip.model_copy(update={"views": views}),
            self.augment if crops is None else self.augment.model_copy(update={"eval_crops": crops}),
            self.loader if batch_size is None else self.loader.model_copy(update={"batch_size": batch_size}),
        )

    def base_rate(self, clips: int) -> float:
        """The base learning rate where the largest batch of an epoch has `clips` clips, of all processes together."""
        return self.optimizer.rate_for(clips * self.train.accumulate)

    def in_data_format(self, data_format: DataFormat) -> Config:
        """The same config with `model.data_format` set to `data_format`, and `augment.layout` to match."""
        return self.model_copy(
            update={
                "model": self.model.model_copy(update={"data_format": data_format}),
                "augment": self.augment.model_copy(update={"layout": LAYOUT_OF[data_format]}),
            }
        )


class _Flag:
    """Wraps a YAML true or false in a field that takes no bool, because pydantic would read it as 1 or 0."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __repr__(self) -> str:
        return str(self.value).lower()


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config of `source` with `overrides` applied.

    `source` is a file if it ends in .yaml or .yml or contains a path separator, otherwise the name of a shipped config.
    Each override is `section.key=value`, with the value in YAML: a mapping is merged into its section, anything else
    replaces the value. Raises ConfigError with a line for each problem: `file: section.key (line N): message`.
    """
    problems: list[str] = []
    sources = read_sources(str(source), problems)
    for override in overrides:
        try:
            sources.append(parse_override(override))
        except ConfigError as error:
            problems.append(str(error))
    data: dict[str, Any] = {}
    for item in sources:
        values = _with_former_shortcut(item.data)
        data = merge(data, {key: {} if value is None else value for key, value in values.items()})
    try:
        config = Config.model_validate({section: _flagged(section, values) for section, values in data.items()})
    except ValidationError as error:
        problems += _explain(error, sources)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def dump_config(config: Config, notes: Mapping[str, str] | None = None) -> str:
    """The YAML text of `config`, with all defaults; `load_config` makes an equal Config of it.

    `augment.layout` is left out: it follows from `model.data_format`, and would contradict an override of that key.
    `notes` are comments of one line, by the names of their keys, such as "loader.batch_size".
    """
    values = _without_layout(config.model_dump(mode="json"))
    lines = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120).splitlines(keepends=True)
    section = ""
    for number, line in enumerate(lines):
        name = line.partition(":")[0]
        if not line.startswith(" "):
            section = name
        elif note := (notes or {}).get(f"{section}.{name.strip()}"):
            lines[number] = f"{line.rstrip()}  # {note}\n"
    return "".join(lines)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, changed so that line breaks outside ASCII are not read back as spaces."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """The node for a string; one with such line breaks gets double quotes, inside which YAML escapes them."""
        broken = any(mark in data for mark in "\x85\u2028\u2029")
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if broken else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def config_from_json(values: dict[str, Any]) -> Config:
    """The Config whose `model_dump(mode="json")` gave `values`, in this or an earlier version.

    Raises pydantic's ValidationError.
    """
    train, init = dict(values["train"]), dict(values.get("init", {}))
    if "freeze_until" in train:  # versions without the section `init` kept it here
        init["freeze_until"] = train.pop("freeze_until")
    return Config.model_validate({**_without_layout(_with_former_shortcut(values)), "train": train, "init": init})


def _with_former_shortcut(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with the shortcut written out if they are a dump of a version whose models had other ones of their own.

    Such a dump has all keys that `model` had then, and a shortcut of null.
    """
    model = values.get("model")
    if not isinstance(model, dict) or model.keys() != _FORMER_KEYS or model["shortcut"] is not None:
        return values
    return {**values, "model": {**model, "shortcut": _FORMER_SHORTCUTS.get(str(model["name"]))}}


def _without_layout(values: dict[str, Any]) -> dict[str, Any]:
    """`values` without augment.layout. A dump contains the key even if it was not set but follows from the model."""
    augment = {key: value for key, value in values["augment"].items() if key != "layout"}
    return {**values, "augment": augment}


def config_diff(a: Config, b: Config) -> list[str]:
    """A line `section.key: a -> b` for each value in which the two configs differ; no lines if they are equal."""
    left, right = a.model_dump(mode="json"), b.model_dump(mode="json")
    return [
        f"{section}.{key}: {json.dumps(value)} -> {json.dumps(right[section][key])}"
        for section, values in left.items()
        for key, value in values.items()
        if value != right[section][key]
    ]


def _flagged(section: str, values: Any) -> Any:
    """`values` with a _Flag for each bool in a field that takes none, so that pydantic refuses it under its name."""
    if not isinstance(values, dict):
        return values
    fields = _fields(section)
    flagged: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, bool) and not (key in fields and fields[key].annotation is bool):
            flagged[key] = _Flag(value)
        elif isinstance(value, list):
            flagged[key] = [_Flag(item) if isinstance(item, bool) else item for item in value]
        else:
            flagged[key] = value
    return flagged


def _fields(section: str) -> dict[str, FieldInfo]:
    """The fields of a section by name; empty if there is no such section."""
    model = Config.model_fields[section].annotation if section in Config.model_fields else None
    return dict(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else {}


def _explain(errors: ValidationError, sources: list[ConfigSource]) -> list[str]:
    """One line for each key that pydantic refuses; it begins with the file or override that set the key."""
    wrong: dict[Key, list[str]] = {}
    expected: dict[Key, list[str]] = {}
    for error in errors.errors(include_url=False):
        loc, text = error["loc"], error["msg"]
        # After section and key, `loc` has a position in a list, or pydantic's name for one of several allowed types.
        path = loc[:3] if len(loc) > 2 and isinstance(loc[2], int) else loc[:2]
        if error["type"] == "value_error" and len(path) < 2:
            path = _blamed(path, text, sources)
        if error["type"] == "extra_forbidden":
            text = f"unknown key{_suggest(path)}"
        elif error["type"] == "model_type":
            text = f"expected keys below it, got {shown(error['input'])}"
        elif error["type"] in ("missing", "too_short", "too_long") and isinstance(error["input"], list | tuple):
            path, text = loc[:2], _expected_length(error)
        elif text.startswith("Input should be "):
            text = re.sub(r", (unable to|got a) .*", "", text).removeprefix("Input should be ")
            expected.setdefault(path, []).append(text)
            got = "but the value is empty" if error["input"] is None else f"got {shown(error['input'])}"
            text = f"expected {' or '.join(dict.fromkeys(expected[path]))}, {got}"
        wrong.setdefault(path, []).append(text.removeprefix("Value error, "))
    parents = {path[:2] for path in wrong if len(path) > 2}  # pydantic also calls a list with wrong items too short
    return [f"{_place(path, sources)}: {texts[-1]}" for path, texts in wrong.items() if path not in parents]


def _blamed(section: Key, text: str, sources: list[ConfigSource]) -> Key:
    """The key to blame for the message `text` of a check across the keys of a section, or of several sections: ().

    Of the keys that the message names it is the one that was set last; `section` where no source sets any.
    """
    unquoted = re.sub("'[^']*'", "", text)
    if section:
        named = [(str(section[0]), word) for word in re.findall(r"\w+", unquoted)]
    else:
        named = [(above, word) for above, word in re.findall(r"\b(\w+)\.(\w+)", unquoted)]
    keys = [key for key in named if key[1] in _fields(key[0])]
    set_last = (key for source in reversed(sources) for key in keys if key in source.lines)
    return next(set_last, section)


def _expected_length(error: ErrorDetails) -> str:
    """The message about a list that is too short or too long; pydantic reports each item that is missing in it.

    All keys whose lists have a certain length take numbers.
    """
    got, bounds = len(error["input"]), error.get("ctx", {})
    if error["type"] == "missing":
        expected = f"{int(error['loc'][-1]) + 1} numbers"
    elif error["type"] == "too_long":
        expected = f"{bounds['max_length']} numbers"
    else:
        expected = f"at least {counted(bounds['min_length'], 'number')}"
    return f"expected {expected}, got {got}"


def _place(path: Key, sources: list[ConfigSource]) -> str:
    """`file: section.key (line N)` or `-o section.key=value`, of the last source that sets the key `path`."""
    for source in reversed(sources):
        if path[:2] in source.lines:
            line = source.lines[path[:2]]
            return f"{source.label}: {dotted(path)} (line {line})" if line else source.label
    # No source sets it: the problem is between sections, so name the file.
    files = [source.label for source in sources if not source.label.startswith("-o ")]
    return files[-1]


def _suggest(path: Key) -> str:
    """The end of the message about an unknown key: the key that was probably meant, or all that there are."""
    word = str(path[-1])
    fields = _fields(str(path[0])) if len(path) > 1 else dict(Config.model_fields)
    homes = [f"{section}.{word}" for section in Config.model_fields if word in _fields(section)]
    close = homes or difflib.get_close_matches(word, fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(fields)}"
