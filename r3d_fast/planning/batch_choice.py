"""Puts numbers where a config says `auto` for a batch size, and refuses a batch that does not fit into the memory.

`auto` is the largest power of two that is no more than the recipe's learning rate is meant for, leaves an epoch enough
steps, and whose training takes at most 60 % of the memory that is free, by a trial (`trial.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipelines.errors import EnvironmentProblem
from pipelines.index.video_index import VideoIndex
from pipelines.machine.memory import FreeMemory, address_limit, free_gpu_memory, free_memory
from pipelines.prefetch import num_workers
from pipelines.specs import DEFAULT_BATCH
from r3d_fast.backend.paddle import gpu_number
from r3d_fast.config.config import Config
from r3d_fast.console import counted, tell
from r3d_fast.loaders import usual_eval_batch
from r3d_fast.planning.trial import Measured, NoTrial, measure

_SHARE = 0.6  # of the free memory that a batch chosen here may take
_STEPS = 8  # of an epoch at least, where batches of 8 clips leave that many: fewer updates learn little from few videos
_SMALLEST = 8  # clips that no epoch is too short for
_MIB = 2**20
_LITTLE = 2048 * _MIB  # networks that take less for a batch need no trial: their steps take a fraction of a second
# What a run takes besides Paddle, measured on two machines: DALI and the loader, a decoding process, address space.
_LOADER_BYTES, _WORKER_BYTES, _LOADER_ADDRESSES = 400 * _MIB, 130 * _MIB, 2400 * _MIB
# malloc keeps what a step has freed, in pieces that do not always fit the next one.
_KEPT = 1.15
# No network of this project takes more for a clip than so many times the output of its stem (densenet201: 80).
_MOST_STEMS = 100


@dataclass(frozen=True)
class ChosenBatches:
    """The batches of a run, and what they were chosen by.

    `config` has numbers for `loader.batch_size` and `eval.batch_size`. `measured` is None where no trial was made.
    `free_bytes` of memory were free before the run, by `limit`, such as "free RAM", or are those of the address space
    where less of that is left over. `reason` says in words why the batch of training has its size, "" where the config
    says it. `need_bytes` is what the run will take of these, with its loader, None where nothing was measured.
    `notes` are comments for config.yaml, by the names of the keys.
    """

    config: Config
    measured: Measured | None
    free_bytes: int
    limit: str
    reason: str
    need_bytes: int | None = None
    notes: dict[str, str] = field(default_factory=dict)


def choose_batches(config: Config, index: VideoIndex, device: str, ranks: int = 1, local: int = 1) -> ChosenBatches:
    """The batches for a run of `config` on the videos of `index`, of `ranks` processes, `local` of them here.

    Makes a trial, and says so on stderr, where a batch is "auto" or may be too large for the memory. Raises
    EnvironmentProblem where a batch that the config gives as a number does not fit, with one that does.
    """
    free = _free(device, local)
    usual = usual_eval_batch(device)
    wanted = config.loader.batch_size
    if wanted != "auto" and _is_small(config, wanted // ranks, free):
        return ChosenBatches(with_batches(config, wanted, usual * ranks), None, free.bytes, free.limit, "")
    tell("measuring how many clips fit into the memory ...")
    try:
        measured = measure(config, len(index.classes), device)
    except NoTrial as error:
        tell(f"warning: {error}; so the memory that batches need is not known")
        measured = None
    needs, reason = _Needs(config, index, measured, device), ""
    if wanted == "auto":
        most, why = _most(config, index, ranks)
        size, reason = _fitting(most // ranks, why, needs, free)
    else:
        size = -(-wanted // ranks)
        _require_fit(config, size, ranks, needs, free)
    while usual > 1 and needs.eval_memory(usual) > _SHARE * free.bytes:
        usual //= 2
    chosen = with_batches(config, size * ranks, usual * ranks)
    need, limit = _scarcest(size, needs, free)
    taken = None if measured is None else need
    return ChosenBatches(chosen, measured, limit.bytes, limit.limit, reason, taken, _notes(config, reason))


def with_batches(config: Config, train: int, evaluation: int) -> Config:
    """`config` with these numbers where it says "auto" for the batches of training and of evaluation."""
    sections: dict[str, Any] = {}
    if config.loader.batch_size == "auto":
        sections["loader"] = config.loader.model_copy(update={"batch_size": train})
    if config.eval.batch_size == "auto":
        sections["eval"] = config.eval.model_copy(update={"batch_size": evaluation})
    return config.model_copy(update=sections)


def kept_batches(config: Config, before: Config) -> ChosenBatches | None:
    """The batches of a run that goes on: those of its config `before`; None if that has no numbers either."""
    train, evaluation = before.loader.batch_size, before.eval.batch_size
    if train == "auto" or evaluation == "auto":
        return None
    chosen = with_batches(config, train, train if evaluation is None else evaluation)
    return ChosenBatches(chosen, None, 0, "", "as before")


def _notes(config: Config, reason: str) -> dict[str, str]:
    """Comments for the numbers that are put where `config` says "auto", by the names of the keys."""
    notes = {}
    if config.loader.batch_size == "auto":
        notes["loader.batch_size"] = reason
    if config.eval.batch_size == "auto":
        notes["eval.batch_size"] = "auto"
    return notes


def rate_note(config: Config, largest: int) -> dict[str, str]:
    """A comment for the learning rate where it is scaled; `largest` is the number of clips in the largest batch."""
    rate, clips = config.base_rate(largest), largest * config.train.accumulate
    if rate == config.optimizer.lr:
        return {}
    return {"optimizer.lr": f"{rate:.6g} in steps of {counted(clips, 'clip')}, by lr_for_batch"}


@dataclass(frozen=True)
class _Needs:
    """What a run takes in memory and address space, by the clips in the batch of one rank; 0 where nothing is known."""

    config: Config
    index: VideoIndex
    measured: Measured | None
    device: str

    def memory(self, clips: int) -> int:
        """The bytes that training takes; on a CPU with the loader and its processes."""
        if self.measured is None:
            return 0
        return int(self._held(self.measured.train_bytes.at(clips), clips, self.config.data.train_split, scaled=True))

    def eval_memory(self, clips: int) -> int:
        """The bytes that an evaluation takes in batches of `clips` clips."""
        if self.measured is None:
            return 0
        at_once = min(clips, usual_eval_batch(self.device))
        need = self.measured.eval_bytes.at(at_once)
        return int(self._held(need, clips, self.config.data.eval_split, scaled=False))

    def addresses(self, clips: int) -> int:
        """The bytes of address space that training takes."""
        return 0 if self.measured is None else int(self.measured.address_bytes.at(clips) + _LOADER_ADDRESSES)

    def _held(self, network: float, clips: int, split: str, *, scaled: bool) -> float:
        """`network` bytes with what a loader of `split` holds: `scaled` clips, or whole frames."""
        if self.device != "cpu":
            return network
        spec, frames, side = self.config.loader, self.config.clip.num_frames, self.config.augment.size_px
        sizes = self.index.columns(self.index.own_split(split))
        pixels = side**2 if scaled else int((sizes.height * sizes.width).max())
        slots = (spec.prefetch + spec.repeats) * clips * frames * pixels * 3
        batches = 3 * clips * frames * side**2 * 3 * 4  # float32, those of DALI's queue and the one in use
        return _KEPT * network + slots + batches + _LOADER_BYTES + num_workers(spec) * _WORKER_BYTES


def _free(device: str, local: int) -> FreeMemory:
    """The memory that is free for one of `local` processes on this machine."""
    if device == "gpu":
        bytes_free = free_gpu_memory(gpu_number())
        return FreeMemory(bytes_free, "the GPU's free memory") if bytes_free is not None else free_memory()
    free = free_memory()
    return FreeMemory(free.bytes // local, free.limit)


def _is_small(config: Config, size: int, free: FreeMemory) -> bool:
    """Whether a batch of `size` clips certainly fits and is quick, by the shape of its clips alone."""
    stem = config.clip.num_frames * (config.augment.size_px / 2) ** 2 * config.model.width * config.model.stem_factor
    need = size * _MOST_STEMS * stem * 4  # float32
    return need < min(free.bytes / 2, _LITTLE) and (address_limit() is None or need < 256 * _MIB)


def _most(config: Config, index: VideoIndex, ranks: int) -> tuple[int, str]:
    """(the largest batch that the recipe and the data allow, why)."""
    recipe = (config.optimizer.lr_for_batch or DEFAULT_BATCH) // config.train.accumulate
    clips = len(index.columns(index.own_split(config.data.train_split)).height)
    enough = max(_SMALLEST, clips * config.loader.repeats // (_STEPS * config.train.accumulate))
    most = max(ranks, min(recipe, enough, clips))
    if most == recipe:
        return most, "as many as the learning rate is meant for"
    return (
        most,
        f"small, for enough steps with {counted(clips, 'video')}"
        if most == enough
        else f"there {'is' if clips == 1 else 'are'} {counted(clips, 'video')}",
    )


def _fitting(most: int, why: str, needs: _Needs, free: FreeMemory) -> tuple[int, str]:
    """(the largest power of two up to `most` that fits, why it is not larger). Raises EnvironmentProblem if none is."""
    size = first = 2 ** max(0, most.bit_length() - 1)
    while size and not _fits(size, needs, free, _SHARE):
        size //= 2
    if not size:
        raise EnvironmentProblem(_too_large(1, 0, needs, free, ""))
    if size == first:
        return size, f"auto: {why}"
    if needs.memory(2 * size) <= _SHARE * free.bytes:
        return size, "auto: more would take the address space that ulimit -v leaves"
    return size, f"auto: more would take over {_SHARE:.0%} of {free.limit}, {free.bytes / 2**30:.1f} GiB"


def _fits(size: int, needs: _Needs, free: FreeMemory, share: float) -> bool:
    limit = address_limit()
    return needs.memory(size) <= share * free.bytes and (limit is None or needs.addresses(size) <= 0.95 * limit)


def _scarcest(size: int, needs: _Needs, free: FreeMemory) -> tuple[int, FreeMemory]:
    """(the bytes that batches of `size` clips take, what these are of): memory or addresses, of which less is left."""
    memory, limit = needs.memory(size), address_limit()
    if limit is not None and needs.addresses(size) * free.bytes > memory * limit:
        return needs.addresses(size), FreeMemory(limit, "addresses, by ulimit -v")
    return memory, free


def _require_fit(config: Config, size: int, ranks: int, needs: _Needs, free: FreeMemory) -> None:
    """Raise EnvironmentProblem where batches of `size` clips a rank do not fit, with the largest that do."""
    if _fits(size, needs, free, 1.0):
        return
    smaller = 2 ** (size.bit_length() - 1)
    while smaller and not _fits(smaller, needs, free, _SHARE):
        smaller //= 2
    advice = ""
    if smaller:
        advice = f"-o loader.batch_size={smaller * ranks}"
        if config.optimizer.lr_for_batch is None:
            advice += f" -o optimizer.lr={config.optimizer.lr * smaller / size:.4g} (the rate in proportion)"
    raise EnvironmentProblem(_too_large(size * ranks, smaller * ranks, needs, free, advice))


def _too_large(size: int, fits: int, needs: _Needs, free: FreeMemory, advice: str) -> str:
    need, limit = needs.memory(max(1, size)) / 2**30, address_limit()
    text = f"a batch of {size} would take {need:.1f} GiB, and {free.bytes / 2**30:.1f} GiB are free ({free.limit})"
    if limit is not None and needs.memory(size) <= free.bytes:
        addresses = needs.addresses(size) / 2**30
        text = f"a batch of {size} would take {addresses:.1f} GiB of addresses; ulimit -v is {limit / 2**30:.1f} GiB"
    if fits:
        return f"{text}; a batch of {fits} fits: {advice}"
    return f"{text}: choose a smaller model.width, clip.num_frames or augment.size_px, or free memory"
