"""The sections of a config with their keys, defaults and limits, except clip, augment and loader.

Those three are in `pipelines/specs.py`. No other place repeats a default.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from pipelines.containers.file_checks import MOST_CORRUPT
from pipelines.specs import LONGEST_WAIT, BatchSize, Fraction, Positive, Spec, Views
from r3d_fast.errors import ConfigError


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()  # because no shell expands the ~ in `-o data.root=~/videos`
    except RuntimeError:  # ~name, and there is no such user
        return path


UserPath = Annotated[Path, AfterValidator(_expand_home)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class DataSpec(Spec):
    """Which videos are used."""

    root: UserPath | None = Field(
        None, description="folder of the videos; a relative path starts at the folder in which the command runs"
    )
    index: UserPath | None = Field(
        None, description="index file; not set: the one that `r3d-fast data index` wrote for data.root"
    )
    train_split: str = Field("train", description="split of the index to train on")
    eval_split: str = Field("test", description="split of the index to evaluate on")
    balance: Literal["none", "sampling", "loss"] = Field(
        "none",
        description="what evens out classes of different sizes in training. none: nothing; sampling: an epoch is as "
        "long, and shows each class equally often; loss: the loss of a clip is multiplied by a number in inverse "
        "proportion to the videos of its class, 1 in the mean",
    )
    max_bad_fraction: Fraction = Field(
        0.01, description="largest share of the training videos that may be unreadable; with more, the run stops"
    )
    max_corrupt_fraction: Fraction = Field(
        MOST_CORRUPT, description="largest share of a video's frames that may be damaged, by the index; with more, the "
        "video counts as unreadable, in training and evaluation; below a half all videos must have been decoded once"
    )  # fmt: skip

    def require_source(self) -> None:
        """Raise ConfigError if neither root nor index is set."""
        if self.root is None and self.index is None:
            raise ConfigError(
                "data.root and data.index are both unset: expected the folder of the videos; add -o data.root=FOLDER"
            )


class ModelSpec(Spec):
    """Which network is trained; the number of classes comes from the index."""

    name: str = Field("r3d18_reference", description="name of the model; `r3d-fast models` lists all names")
    shortcut: Literal["A", "B"] | None = Field(
        None, description="shortcut of the residual blocks that change the shape. A: subsampling and zero-padded "
        "channels; B: 1x1x1 convolution and batch norm; not set: the model's own"
    )  # fmt: skip
    shortcut_gradient: bool = Field(
        True, description="whether gradients flow back through shortcut A; false: they do not, as in the code of the "
        "paper's authors. Without a meaning for other shortcuts"
    )  # fmt: skip
    conv1_t_size: Annotated[int, Field(ge=1, le=99)] = Field(
        7, description="frames that the kernel of the first convolution spans, an odd number"
    )
    conv1_t_stride: Literal[1, 2] = Field(1, description="stride of the first convolution in time, in frames")
    max_pool: bool = Field(True, description="whether a max pool follows the first convolution")
    stem_factor: Literal[1, 2] = Field(
        1, description="channels of the stem as a multiple of model.width; 2: as in the wide ResNet and the ResNeXts "
        "of the authors' later code (master branch)"
    )  # fmt: skip
    data_format: Literal["auto", "NCDHW", "NDHWC"] = Field(
        "auto", description="order of a tensor's axes. NCDHW: channels first; NDHWC: channels last, as tensor cores "
        "take it; auto: for half precision on a GPU the one that trains faster, by a trial of ten steps that a run "
        "makes once; else NCDHW. augment.layout is set to match"
    )  # fmt: skip
    width: Annotated[int, Field(ge=1, le=512)] = Field(
        64, description="channels of the stem (see stem_factor); those of all other layers are in proportion"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="share of the features that are dropped before the last linear layer, in training"
    )

    @model_validator(mode="after")
    def _check(self) -> ModelSpec:
        if self.conv1_t_size % 2 == 0:
            raise ValueError(f"conv1_t_size {self.conv1_t_size}: expected an odd number of frames")
        return self


class InitSpec(Spec):
    """The weights that a new run starts with, and which of them are trained."""

    weights: UserPath | None = Field(
        None, description="weights that a new run starts with: a .safetensors file, a run or a checkpoint. A resumed "
        "run does not read them. Not set: random weights, from train.seed"
    )  # fmt: skip
    num_classes_changed: Literal["error", "reinit_head"] = Field(
        "error", description="what happens if init.weights have other classes than the data. error: the run does not "
        "start; reinit_head: the head gets new random weights"
    )  # fmt: skip
    freeze_until: str | None = Field(
        None, description="the first part of the network that is trained, such as layer4 (of a DenseNet: block4) or "
        "head. The parts before it keep their weights. Not set: all parts are trained"
    )  # fmt: skip
    frozen_statistics: Literal["eval", "train"] = Field(
        "eval", description="only with freeze_until: the batch norms of the parts that are not trained. eval: they "
        "normalise by their statistics and keep them; train: they normalise by each batch and go on averaging its "
        "statistics, as in the code of the paper's authors"
    )  # fmt: skip


class EvalSpec(Spec):
    """How a model is evaluated."""

    views: Views | None = Field(
        None, description="clips per video; all and paper: every non-overlapping window, as in clip.views; not set: "
        "clip.views"
    )  # fmt: skip
    crops: Literal[1, 3, 10] | None = Field(None, description="crops per clip; not set: augment.eval_crops")
    batch_size: BatchSize | Literal["auto"] | None = Field(
        None, description="clips per batch, counting all processes together; auto: as many as help the speed and fit "
        "into the memory; not set: loader.batch_size"
    )  # fmt: skip


class OptimizerSpec(Spec):
    """How gradients change the weights."""

    name: Literal["momentum", "adamw"] = Field(
        "momentum", description="momentum: SGD with momentum, without dampening; adamw: Adam with decoupled decay"
    )
    lr: Annotated[float, Field(gt=0.0)] = Field(0.01, description="base learning rate, which the schedule scales")
    lr_for_batch: Positive | None = Field(
        None, description="clips of a step for which lr is meant. With other numbers of clips (those of the largest "
        "batch of an epoch x train.accumulate) the rate is scaled in proportion (Goyal et al. 2017, arXiv:1706.02677). "
        "The largest batch is loader.batch_size, or less with loader.last_batch spread. Not set: lr holds for any"
    )  # fmt: skip
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.9, description="only for momentum: share of the last step that is kept"
    )
    nesterov: bool = Field(False, description="only for momentum: use Nesterov's form of it")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="only for adamw: share that is kept of the running mean of the gradient, and of its "
        "square"
    )  # fmt: skip
    epsilon: Annotated[float, Field(gt=0.0)] = Field(
        1e-8, description="only for adamw: added to the root of the mean square, against a division by 0"
    )
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        1e-3, description="momentum: L2, each gradient is increased by this times its weight; adamw: each step makes a "
        "weight smaller by lr times this share"
    )  # fmt: skip
    decay: Literal["all", "weights"] = Field(
        "all", description="which parameters weight_decay applies to; weights: all except biases and batch norm"
    )
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="limit for the norm of all gradients together; larger ones are scaled down to it; not set: "
        "no limit"
    )  # fmt: skip

    def rate_for(self, clips: int) -> float:
        """The base learning rate of steps of `clips` clips: `lr`, scaled in proportion to `lr_for_batch` if set."""
        return self.lr if self.lr_for_batch is None else self.lr * clips / self.lr_for_batch

    @model_validator(mode="after")
    def _check(self) -> OptimizerSpec:
        foreign = ("momentum", "nesterov") if self.name == "adamw" else ("betas", "epsilon")
        for key in foreign:
            value, default = getattr(self, key), OptimizerSpec.model_fields[key].default
            if value != default:
                raise ValueError(f"{key} {value} has no meaning for name {self.name!r}; expected {default}")
        return self


class TrainSpec(Spec):
    """How long a run takes, where it runs, and what it writes."""

    epochs: Positive = Field(25, description="passes over the training split")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="seed of the initial weights, of dropout, and of mixup and cutmix"
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="auto: the GPU if there is one that works, else the CPU"
    )
    gpu_wait: Literal["sleep", "spin"] = Field(
        "sleep", description="how threads wait for the GPU. sleep: asleep, so that the core decodes meanwhile; spin: "
        "as CUDA does by itself, which takes a core and wakes up some microseconds sooner. The environment variable "
        "R3D_FAST_GPU_WAIT goes before this, and says it for the other commands"
    )  # fmt: skip
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="number format of the convolutions; auto: bf16 on GPUs from Ampere on, fp16 on Volta and "
        "Turing, fp32 on older GPUs and on the CPU"
    )  # fmt: skip
    amp_level: Literal["O1", "O2"] = Field(
        "O1", description="only for half precision. O1: weights stay float32 and are cast for each convolution; O2: "
        "weights are in half precision too, with float32 copies for the optimiser"
    )  # fmt: skip
    accumulate: Positive = Field(
        1, description="batches per optimiser step. Their gradients are averaged, as if they were one large batch; "
        "batch norm still sees each batch alone. The last step of an epoch takes the batches that are left"
    )  # fmt: skip
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="share of a label's probability that is spread over all classes"
    )
    mixup_alpha: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="mixup: blends pairs of clips of a batch, with a share drawn from Beta(alpha, alpha); 0: off"
    )
    cutmix_alpha: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="cutmix: replaces a box of each clip, the same in all its frames, by that of another clip of "
        "the batch; its size is drawn from Beta(alpha, alpha); 0: off. If mixup is on too, each batch gets one of them"
    )  # fmt: skip
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None, description="evaluate and store a running average of the weights, instead of the weights: the share of "
        "the average that a step keeps (less in the first steps); not set: no average"
    )  # fmt: skip
    early_stop_evals: Positive | None = Field(
        None, description="end the run after this many evaluations in a row without a better top1; not set: never"
    )
    max_minutes: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="evaluate and end the run after this many minutes, counting all times it was resumed; not "
        "set: never"
    )  # fmt: skip
    log_to: Literal["auto"] | tuple[Backend, ...] = Field(
        "auto", description="programs to write curves for, beside metrics.jsonl and metrics.csv: a list of visualdl, "
        "tensorboard (in the run folder), wandb and mlflow (where these keep theirs); auto: those of the first two "
        "that are installed"
    )  # fmt: skip
    log_every_steps: Positive = Field(
        10, description="steps between two lines of progress, and between two points of a curve"
    )
    log_every_seconds: Annotated[float, Field(ge=1.0)] = Field(
        10.0, description="seconds after which a line of progress comes even if fewer steps were taken"
    )
    checkpoint_every_steps: Positive | None = Field(
        None, description="steps between two checkpoints; not set: checkpoint_every_minutes decides"
    )
    checkpoint_every_minutes: Annotated[float, Field(gt=0.0)] | None = Field(
        10.0, description="minutes between two checkpoints; not set: only checkpoint_every_steps and the end of an "
        "epoch decide"
    )  # fmt: skip
    report: bool = Field(
        True, description="write report.html in the run folder when the run ends or stops: curves, classes, mistakes"
    )
    keep_checkpoints: Positive = Field(2, description="how many of the latest checkpoints to keep, besides the best")
    eval_every_epochs: Positive = Field(1, description="epochs from one evaluation to the next")
    rank_timeout_seconds: Annotated[float, Field(ge=1.0, le=LONGEST_WAIT)] = Field(
        30.0, description="when several processes train together: the run ends if one of them gives no sign of life "
        "for this long; one that is alive may be late by 20 times as much"
    )  # fmt: skip


class ScheduleSpec(Spec):
    """How the learning rate falls.

    `piecewise`: it is multiplied by `gamma` at each milestone. `cosine`: it follows half a cosine from the base rate at
    the end of the warmup to `final` at the end of training (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, one
    cycle). `plateau`: it is multiplied by `gamma`, down to `final`, whenever more than `patience_evals` evaluations in
    a row were no better than the best one before them (Hara et al. 2018, arXiv:1711.09577, section 3.2). `constant`: it
    stays. With each of them, the rate rises in a straight line during the warmup.
    """

    kind: Literal["piecewise", "cosine", "plateau", "constant"] = Field(
        "constant", description="how the learning rate falls. piecewise: at milestones; cosine: along half a cosine; "
        "plateau: when the evaluations stop getting better; constant: not at all"
    )  # fmt: skip
    milestones_epochs: tuple[float, ...] = Field(
        (), description="only for piecewise: the rate falls after these epochs; with (15, 20), epochs 16 and 21 are "
        "the first at a lower rate"
    )  # fmt: skip
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.1, description="factor by which the rate falls at each milestone or plateau"
    )
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="length of the warmup in epochs, during which the rate rises in a straight line"
    )
    warmup_start: Fraction = Field(0.0, description="rate at which the warmup begins, as a fraction of the base rate")
    final: Fraction = Field(
        0.0, description="rate at which the cosine ends, or below which a plateau does not go, as a fraction of the "
        "base rate"
    )  # fmt: skip
    patience_evals: Annotated[int, Field(ge=0)] = Field(
        10, description="only for plateau: how many evaluations in a row may be no better; after one more, the rate "
        "falls"
    )  # fmt: skip
    threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        1e-4, description="only for plateau: an evaluation is better if it improves on the best by more than this share"
    )
    watch: Literal["loss", "top1", "clip_loss"] = Field(
        "loss", description="only for plateau: which figure to compare. loss and top1: of the evaluated videos; "
        "clip_loss: the mean loss of the evaluated clips, as in the code of Hara et al. 2018"
    )  # fmt: skip

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


Backend = Literal["visualdl", "tensorboard", "wandb", "mlflow"]


BACKENDS: tuple[Backend, ...] = get_args(Backend)
