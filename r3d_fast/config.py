"""YAML and overrides -> one frozen `Config`, checked once, with every problem of a file reported at once.

A config file has one mapping a section; each section is a model below or a spec of `pipelines`, and defaults live only
there. `base: other.yaml` starts from another file, one level deep; `-o section.key=value` has the last word.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from pipelines.specs import AugmentSpec, ClipSpec, Fraction, LoaderSpec, Positive, Spec
from r3d_fast.config_source import ConfigError, Key, Source, dotted, merge, parse_override, read_sources, shown
from r3d_fast.scalars import Backend
from r3d_fast.schedule import ScheduleSpec

__all__ = ["Config", "ConfigError", "config_diff", "config_from_json", "dump_config", "load_config"]

DataFormat = Literal["NCDHW", "NDHWC"]
LAYOUT_OF: dict[DataFormat, Literal["NCTHW", "NTHWC"]] = {"NCDHW": "NCTHW", "NDHWC": "NTHWC"}
REFERENCE_SCHEDULE = ScheduleSpec(kind="piecewise", milestones_epochs=(15, 20))


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()  # no shell expands the ~ of `-o data.root=~/videos`
    except RuntimeError:  # ~name of nobody
        return path


UserPath = Annotated[Path, AfterValidator(_expand_home)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class DataConfig(Spec):
    """Which videos are used."""

    root: UserPath | None = Field(None, description="folder of the videos; relative to where the command runs")
    index: UserPath | None = Field(None, description="index file; not set: the one that belongs to root")
    train_split: str = Field("train", description="split of the index to train on")
    eval_split: str = Field("test", description="split of the index to evaluate on")
    max_bad_fraction: Fraction = Field(0.01, description="share of unreadable videos at which a run stops")

    def require_source(self) -> None:
        """Nothing; raises ConfigError where neither root nor index says which videos to use."""
        if self.root is None and self.index is None:
            raise ConfigError(
                "data.root and data.index are both unset: expected the folder of the videos; add -o data.root=FOLDER"
            )


class ModelConfig(Spec):
    """Which network is trained; the number of classes comes from the index."""

    name: str = Field("r3d18_reference", description="a name that `r3d-fast models` lists")
    shortcut: Literal["A", "B"] | None = Field(
        None, description="where the shape changes, A: stride and zero-padded channels, B: 1x1x1 convolution and BN; "
        "not set: the model's own"
    )  # fmt: skip
    data_format: Literal["auto", "NCDHW", "NDHWC"] = Field(
        "auto", description="NDHWC: channels last, as tensor cores want it; auto: NDHWC for half precision on a GPU, "
        "else NCDHW. augment.layout follows, and need not be set"
    )  # fmt: skip
    width: Annotated[int, Field(ge=1, le=512)] = Field(
        64, description="channels of the stem, from which all others follow"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="before the last linear layer")


class InitConfig(Spec):
    """What a new run starts from, and how much of it is trained."""

    weights: UserPath | None = Field(
        None, description="weights that a new run starts from: a .safetensors file, a run or a checkpoint; a run that "
        "goes on does not read them. Not set: drawn under train.seed"
    )  # fmt: skip
    num_classes_changed: Literal["error", "reinit_head"] = Field(
        "error", description="where the weights are of other classes than the data. error: the run does not start; "
        "reinit_head: the head is drawn anew"
    )  # fmt: skip
    freeze_until: str | None = Field(
        None, description="the first part that is trained, such as layer4 or head; those before it keep their weights "
        "and their batch norm statistics; not set: all are trained"
    )  # fmt: skip


class EvalConfig(Spec):
    """How a model is evaluated."""

    views: Positive | Literal["all"] | None = Field(None, description="clips a video; not set: clip.views")
    batch_size: Positive | None = Field(
        None, description="clips a batch, of all processes together; not set: loader.batch_size"
    )


class OptimizerConfig(Spec):
    """How gradients become steps."""

    name: Literal["momentum", "adamw"] = Field(
        "momentum", description="momentum: SGD with momentum, undamped; adamw: Adam with decoupled decay"
    )
    lr: Annotated[float, Field(gt=0.0)] = Field(0.01, description="learning rate that the schedule scales")
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.9, description="of momentum: share of the last step that is kept"
    )
    nesterov: bool = Field(False, description="of momentum: look ahead along the momentum")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="of adamw: shares of the mean gradient and of its mean square that are kept"
    )
    epsilon: Annotated[float, Field(gt=0.0)] = Field(1e-8, description="of adamw: added to the root of the mean square")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        1e-3, description="momentum: L2, added to the gradient; adamw: share of a weight that a step takes, times lr"
    )
    decay: Literal["all", "weights"] = Field(
        "all", description="what weight_decay takes hold of; weights: not biases and not batch norm"
    )
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="gradients longer than this, all taken together, are shortened to it; not set: none are"
    )

    @model_validator(mode="after")
    def _check(self) -> OptimizerConfig:
        foreign = ("momentum", "nesterov") if self.name == "adamw" else ("betas", "epsilon")
        for key in foreign:
            value, default = getattr(self, key), OptimizerConfig.model_fields[key].default
            if value != default:
                raise ValueError(f"{key} {value} has no meaning for name {self.name!r}; expected {default}")
        return self


class TrainConfig(Spec):
    """How long a run takes and what it leaves behind."""

    epochs: Positive = Field(25, description="passes over the training split")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="of the initial weights, dropout and mixing")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: a GPU if there is one that works")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="what convolutions run in; auto: bf16 on GPUs from Ampere on, fp16 on Volta and Turing, "
        "fp32 on older ones and on the CPU"
    )  # fmt: skip
    amp_level: Literal["O1", "O2"] = Field(
        "O1", description="of half precision. O1: float32 weights, cast for convolutions; O2: half weights too, with "
        "float32 copies for the optimiser"
    )  # fmt: skip
    accumulate: Positive = Field(
        1, description="batches a step: their gradients are those of one batch so many times as large; batch norm "
        "sees each batch alone. An epoch's last step takes what is left"
    )  # fmt: skip
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="share of a label's probability that is spread over all classes"
    )
    mixup_alpha: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="clips of a batch are blended in pairs, by a share drawn from Beta(alpha, alpha); 0: not"
    )
    cutmix_alpha: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="a box of each clip, the same in all its frames, comes from another one of the batch, its "
        "size drawn from Beta(alpha, alpha); 0: not. Where both are set, each batch gets one of the two"
    )  # fmt: skip
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None, description="weights are averaged over steps, and the averages evaluated and stored: share of an average "
        "that a step keeps, less in the first ones; not set: no average"
    )  # fmt: skip
    early_stop_evals: Positive | None = Field(
        None, description="a run ends after so many evaluations in a row without a better top1; not set: it doesn't"
    )
    max_minutes: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="a run ends, evaluated, after so many minutes over all its parts; not set: it doesn't"
    )
    log_to: Literal["auto"] | tuple[Backend, ...] = Field(
        "auto", description="curves in the run folder, beside metrics.jsonl and metrics.csv: a list of visualdl and "
        "tensorboard; auto: those that are installed"
    )  # fmt: skip
    log_every_steps: Positive = Field(
        10, description="steps between two lines of progress, and between two points of a curve"
    )
    checkpoint_every_steps: Positive | None = Field(None, description="steps between checkpoints; not set: by time")
    checkpoint_every_minutes: Annotated[float, Field(gt=0.0)] | None = Field(
        10.0, description="minutes between checkpoints; not set: by steps and at the end of an epoch"
    )
    keep_checkpoints: Positive = Field(2, description="the latest ones that are kept, beside the best")
    eval_every_epochs: Positive = Field(1, description="epochs between evaluations")
    rank_timeout_seconds: Annotated[float, Field(ge=1.0)] = Field(
        30.0, description="of several processes: one that gives no sign of life for so long ends the run; one that is "
        "alive may be late by 20 times that"
    )  # fmt: skip


class Config(Spec):
    """Everything a run depends on; two equal configs describe the same run."""

    data: DataConfig = Field(DataConfig(), description="which videos")
    clip: ClipSpec = Field(ClipSpec(), description="which frames make a clip")
    augment: AugmentSpec = Field(AugmentSpec(), description="how frames become the model's input")
    loader: LoaderSpec = Field(LoaderSpec(), description="how clips are loaded")
    model: ModelConfig = Field(ModelConfig(), description="which network")
    init: InitConfig = Field(InitConfig(), description="what a new run starts from")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="how gradients become steps")
    schedule: ScheduleSpec = Field(REFERENCE_SCHEDULE, description="how the learning rate falls")
    train: TrainConfig = Field(TrainConfig(), description="how long, where, and what is kept")
    eval: EvalConfig = Field(EvalConfig(), description="how the model is evaluated")

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
            raise ValueError("eval.views 'all' needs clip.sampling consecutive, got segments")
        return self

    def _replace(self, **sections: Spec) -> None:
        for name, section in sections.items():
            object.__setattr__(self, name, section)  # frozen for everyone else

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
