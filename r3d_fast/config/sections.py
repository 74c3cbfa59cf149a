"""The sections of a config as specs, but for those that `pipelines` has. Defaults are said here and nowhere else."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from pipelines.specs import Fraction, Positive, Spec
from r3d_fast.errors import ConfigError


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()  # no shell expands the ~ of `-o data.root=~/videos`
    except RuntimeError:  # ~name of nobody
        return path


UserPath = Annotated[Path, AfterValidator(_expand_home)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class DataSpec(Spec):
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


class ModelSpec(Spec):
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


class InitSpec(Spec):
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


class EvalSpec(Spec):
    """How a model is evaluated."""

    views: Positive | Literal["all"] | None = Field(
        None, description="clips a video; all: every non-overlapping window; not set: clip.views"
    )
    crops: Literal[1, 3, 10] | None = Field(None, description="crops a clip; not set: augment.eval_crops")
    batch_size: Positive | None = Field(
        None, description="clips a batch, of all processes together; not set: loader.batch_size"
    )


class OptimizerSpec(Spec):
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
    def _check(self) -> OptimizerSpec:
        foreign = ("momentum", "nesterov") if self.name == "adamw" else ("betas", "epsilon")
        for key in foreign:
            value, default = getattr(self, key), OptimizerSpec.model_fields[key].default
            if value != default:
                raise ValueError(f"{key} {value} has no meaning for name {self.name!r}; expected {default}")
        return self


class TrainSpec(Spec):
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


class ScheduleSpec(Spec):
    """How the learning rate falls.

    `piecewise`: times `gamma` at each milestone. `cosine`: half a cosine from the base rate at the end of the warmup to
    `final` at the end of training (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, one cycle). `plateau`: times
    `gamma`, down to `final`, whenever more than `patience_evals` evaluations in a row were no better than the best
    before them (Hara et al. 2018, arXiv:1711.09577, section 3.2). `constant`: stays.
    The warmup is a straight line on top of any of them.
    """

    kind: Literal["piecewise", "cosine", "plateau", "constant"] = Field("constant", description="how the rate falls")
    milestones_epochs: tuple[float, ...] = Field(
        (), description="epochs done when the rate falls; (15, 20): epochs 16 and 21 are the first at a lower rate"
    )
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.1, description="factor at each milestone, or each time a plateau ends"
    )
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(0.0, description="length of the warmup, in epochs")
    warmup_start: Fraction = Field(0.0, description="where the warmup begins, as a fraction of the base rate")
    final: Fraction = Field(
        0.0, description="where the cosine ends, or what a plateau never falls below, as a fraction of the base rate"
    )
    patience_evals: Annotated[int, Field(ge=0)] = Field(
        10, description="of plateau: evaluations in a row that may be no better; one more, and the rate falls"
    )
    threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        1e-4, description="of plateau: a figure counts as better if it is by more than this share of the best one"
    )
    watch: Literal["loss", "top1"] = Field("loss", description="of plateau: the figure of the evaluated videos")

    @model_validator(mode="after")
    def _check(self) -> ScheduleSpec:
        milestones = self.milestones_epochs
        if self.kind == "piecewise" and not milestones:
            raise ValueError("milestones_epochs is empty: kind 'piecewise' needs at least one; expected e.g. [15, 20]")
        if self.kind != "piecewise" and milestones:
            raise ValueError(
                f"milestones_epochs {list(milestones)} have no meaning for kind {self.kind!r}; expected []"
            )
        if any(m <= 0.0 for m in milestones) or any(a >= b for a, b in pairwise(milestones)):
            raise ValueError(f"milestones_epochs {list(milestones)}: expected numbers > 0, each above the one before")
        if self.kind not in ("cosine", "plateau") and self.final != 0.0:
            raise ValueError(f"final {self.final} has no meaning for kind {self.kind!r}; expected 0")
        if self.warmup_epochs == 0.0 and self.warmup_start != 0.0:
            raise ValueError(f"warmup_start {self.warmup_start} has no meaning without warmup_epochs; expected 0")
        for name in ("patience_evals", "threshold", "watch"):
            value, default = getattr(self, name), ScheduleSpec.model_fields[name].default
            if self.kind != "plateau" and value != default:
                raise ValueError(f"{name} {value} has no meaning for kind {self.kind!r}; expected {default}")
        return self


Backend = Literal["visualdl", "tensorboard"]


BACKENDS: tuple[Backend, ...] = get_args(Backend)
