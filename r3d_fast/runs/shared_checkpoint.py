"""Gives the checkpoint from which a run goes on to all ranks; only the first rank reads it."""

from __future__ import annotations

from collections.abc import Callable

from r3d_fast.ranks.group import Group, pack, unpack
from r3d_fast.weights.checkpoint import Checkpoint

FoundCheckpoint = tuple[Checkpoint, list[str]]  # with complaints: a line for each newer checkpoint, which is damaged
_WEIGHTS, _OPTIMIZER = "weights/", "optimizer/"


def checkpoint_of_first(find: Callable[[], FoundCheckpoint | None], group: Group) -> FoundCheckpoint | None:
    """The result of `find` on every rank of `group`; `find` is called on the first rank only."""
    if group.count == 1:
        return find()

    def packed() -> bytes:
        found = find()
        if found is None:
            return pack(None, {})
        checkpoint, complaints = found
        arrays = {_WEIGHTS + name: array for name, array in checkpoint.weights.items()}
        arrays |= {_OPTIMIZER + name: array for name, array in checkpoint.optimizer.items()}
        return pack([checkpoint.state, complaints], arrays)

    values, arrays = unpack(group.from_first(packed))
    if values is None:
        return None
    weights, optimizer = (
        {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}
        for part in (_WEIGHTS, _OPTIMIZER)
    )
    return Checkpoint(weights, optimizer, values[0]), values[1]
