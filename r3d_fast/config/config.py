"""YAML and overrides -> one frozen `Config`, checked once, with every problem of a file reported at once.

A config file has one mapping a section; each section is a spec, of sections.py or of `pipelines`.
`base: other.yaml` starts from another file, one level deep; `-o section.key=value` has the last word.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

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
from r3d_fast.config.yaml_files import Key, Source, dotted, merge, parse_override, read_sources, shown
from r3d_fast.errors import ConfigError

__all__ = ["Config", "ConfigError", "config_diff", "config_from_json", "dump_config", "load_config"]

DataFormat = Literal["NCDHW", "NDHWC"]
LAYOUT_OF: dict[DataFormat, Literal["NCTHW", "NTHWC"]] = {"NCDHW": "NCTHW", "NDHWC": "NTHWC"}
REFERENCE_SCHEDULE = ScheduleSpec(kind="piecewise", milestones_epochs=(15, 20))


class Config(Spec):
    """Everything a run depends on; two equal configs describe the same run."""

    data: DataSpec = Field(DataSpec(), description="which videos")
    clip: ClipSpec = Field(ClipSpec(), description="which frames make a clip")
    augment: AugmentSpec = Field(AugmentSpec(), description="how frames become the model's input")
    loader: LoaderSpec = Field(LoaderSpec(), description="how clips are loaded")
    model: ModelSpec = Field(ModelSpec(), description="which network")
    init: InitSpec = Field(InitSpec(), description="what a new run starts from")
    optimizer: OptimizerSpec = Field(OptimizerSpec(), description="how gradients become steps")
    schedule: ScheduleSpec = Field(REFERENCE_SCHEDULE, description="how the learning rate falls")
    train: TrainSpec = Field(TrainSpec(), description="how long, where, and what is kept")
    eval: EvalSpec = Field(EvalSpec(), description="how the model is evaluated")

    @field_validator("schedule", mode="before")
    @classmethod
    def _keep_kind(cls, value: Any) -> Any:
        # `-o schedule.gamma=0.2` changes the default schedule, it doesn't replace it by ScheduleSpec's constant one.
        if isinstance(value, dict) and "kind" not in value:
            return {"kind": "piecewise", "milestones_epochs": REFERENCE_SCHEDULE.milestones_epochs, **value}
        return value

    @model_validator(mode="before")
    @classmethod
    def _drop_former_key(cls, values: Any) -> Any:
        # Runs made before there was `init` name train.freeze_until in their config.yaml, nearly always unset.
        train = values.get("train") if isinstance(values, dict) else None
        if isinstance(train, dict) and train.get("freeze_until", 0) is None:
            return {**values, "train": {key: value for key, value in train.items() if key != "freeze_until"}}
        return values

    @model_validator(mode="after")
    def _check(self) -> Config:
        chosen, layout = self.model.data_format, self.augment.layout
        given = "layout" in self.augment.model_fields_set
        if chosen == "auto":
            if given:  # one of the two is said: the other is what goes with it
                formats = {layout: data_format for data_format, layout in LAYOUT_OF.items()}
                self._replace(model=self.model.model_copy(update={"data_format": formats[layout]}))
        elif layout != (wanted := LAYOUT_OF[chosen]):
            if given:
                raise ValueError(f"model.data_format {chosen} goes with augment.layout {wanted}, got {layout}")
            self._replace(augment=self.augment.model_copy(update={"layout": wanted}))
        views = self.clip.views if self.eval.views is None else self.eval.views
        if views == "all" and self.clip.sampling == "segments":
            raise ValueError(
                "eval.views 'all' needs clip.sampling consecutive, got segments, whose clips span the whole video; "
                "expected a number of views"
            )
        return self

    def _replace(self, **sections: Spec) -> None:
        for name, section in sections.items():
            object.__setattr__(self, name, section)  # frozen for everyone else

    def eval_specs(self) -> tuple[ClipSpec, AugmentSpec, LoaderSpec]:
        """The specs of evaluation and prediction: those of training, but for what `eval` sets."""
        views, crops, batch_size = self.eval.views, self.eval.crops, self.eval.batch_size
        return (
            self.clip if views is None else self.clip.model_copy(update={"views": views}),
            self.augment if crops is None else self.augment.model_copy(update={"eval_crops": crops}),
            self.loader if batch_size is None else self.loader.model_copy(update={"batch_size": batch_size}),
        )

    def in_data_format(self, data_format: DataFormat) -> Config:
        """The same config with `model.data_format` and `augment.layout` settled."""
        return self.model_copy(
            update={
                "model": self.model.model_copy(update={"data_format": data_format}),
                "augment": self.augment.model_copy(update={"layout": LAYOUT_OF[data_format]}),
            }
        )


class _Flag:
    """A YAML true or false where no bool belongs: pydantic would take it for the number 1 or 0."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __repr__(self) -> str:
        return str(self.value).lower()


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config of `source` with `overrides` applied.

    `source` is a file if it ends in .yaml or .yml or holds a path separator, otherwise the name of a shipped config.
    Each override is `section.key=value`, the value in YAML; mappings are merged, everything else is replaced.
    Raises ConfigError with a line for each problem: `file: section.key (line N): message`.
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
        data = merge(data, {key: {} if value is None else value for key, value in item.data.items()})
    try:
        config = Config.model_validate({section: _flagged(section, values) for section, values in data.items()})
    except ValidationError as error:
        problems += _explain(error, sources)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def dump_config(config: Config) -> str:
    """YAML text of `config`, defaults included; `load_config` reads it back to an equal Config.

    `augment.layout` is left out: it follows from model.data_format, and would contradict an override of that.
    """
    values = _without_layout(config.model_dump(mode="json"))
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which but for this reads line breaks outside ASCII back as spaces."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Such text in double quotes, where they are escaped."""
        broken = any(mark in data for mark in "\x85\u2028\u2029")
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if broken else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def config_from_json(values: dict[str, Any]) -> Config:
    """The Config that `model_dump(mode="json")` gave, now or before. Raises pydantic's ValidationError."""
    train, init = dict(values["train"]), dict(values.get("init", {}))
    if "freeze_until" in train:  # where it was before there was `init`
        init["freeze_until"] = train.pop("freeze_until")
    return Config.model_validate({**_without_layout(values), "train": train, "init": init})


def _without_layout(values: dict[str, Any]) -> dict[str, Any]:
    """`values` as if nobody had set augment.layout: a dump names it even where it only follows."""
    augment = {key: value for key, value in values["augment"].items() if key != "layout"}
    return {**values, "augment": augment}


def config_diff(a: Config, b: Config) -> list[str]:
    """Lines `section.key: a -> b`, one for each value in which the two differ; empty where they are equal."""
    left, right = a.model_dump(mode="json"), b.model_dump(mode="json")
    return [
        f"{section}.{key}: {json.dumps(value)} -> {json.dumps(right[section][key])}"
        for section, values in left.items()
        for key, value in values.items()
        if value != right[section][key]
    ]


def _flagged(section: str, values: Any) -> Any:
    """`values` with each bool that no bool field takes as a _Flag, which every field refuses at its own place."""
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
    model = Config.model_fields[section].annotation if section in Config.model_fields else None
    return dict(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else {}


def _explain(errors: ValidationError, sources: list[Source]) -> list[str]:
    """One line for each key that pydantic objects to, under the name of the source that set it."""
    wrong: dict[Key, list[str]] = {}
    expected: dict[Key, list[str]] = {}
    for error in errors.errors(include_url=False):
        loc, text = error["loc"], error["msg"]
        # What follows section and key are positions in a list and pydantic's names of alternatives.
        path = loc[:3] if len(loc) > 2 and isinstance(loc[2], int) else loc[:2]
        if error["type"] == "extra_forbidden":
            text = f"unknown key{_suggest(path)}"
        elif error["type"] == "model_type":
            text = f"expected keys below it, got {shown(error['input'])}"
        elif text.startswith("Input should be "):
            text = re.sub(r", (unable to|got a) .*", "", text).removeprefix("Input should be ")
            expected.setdefault(path, []).append(text)
            text = f"expected {' or '.join(dict.fromkeys(expected[path]))}, got {shown(error['input'])}"
        wrong.setdefault(path, []).append(text.removeprefix("Value error, "))
    parents = {path[:2] for path in wrong if len(path) > 2}  # a list whose items are wrong is also "too short"
    return [f"{_place(path, sources)}: {texts[-1]}" for path, texts in wrong.items() if path not in parents]


def _place(path: Key, sources: list[Source]) -> str:
    """`file: section.key (line N)` or `-o section.key=value`: the last source that sets `path`."""
    for source in reversed(sources):
        if path[:2] in source.lines:
            line = source.lines[path[:2]]
            return f"{source.label}: {dotted(path)} (line {line})" if line else source.label
    # A rule between sections: it belongs to the whole of the file.
    files = [source.label for source in sources if not source.label.startswith("-o ")]
    return files[-1]


def _suggest(path: Key) -> str:
    word = str(path[-1])
    fields = _fields(str(path[0])) if len(path) > 1 else dict(Config.model_fields)
    homes = [f"{section}.{word}" for section in Config.model_fields if word in _fields(section)]
    close = homes or difflib.get_close_matches(word, fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(fields)}"
