"""Paddle's random numbers as a function of a batch's place in the run: nothing to save, nothing to restore."""

from __future__ import annotations

from pipelines.sampler import below, random_words
from r3d_fast.backend.paddle import import_paddle

_STREAM = 102  # of Philox words; those of the sampler have lower numbers, that of mixing is 101


def seed_batch(seed: int, epoch: int, position: int, rank: int = 0) -> None:
    """Make what the batch at `position` of `epoch` draws (dropout) follow from these and `seed`, whatever came before.

    So a resumed run draws as the uninterrupted one, and each rank drops other features. The generator's own state can't
    go into a checkpoint: on the CPU 2.6 gives only its seed out, and what `paddle.get_rng_state` returns there can't be
    written down (paddle/fluid/pybind/generator_py.cc).
    """
    # 31 bits: CPU generators use 32 of a seed (seed_seq in paddle/phi/core/generator.cc).
    import_paddle().seed(int(below(random_words(1, seed, epoch, position, rank, _STREAM), 2**31)[0]))
