"""How an epoch is divided into batches: EpochBatches says where each of them begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LastBatch = Literal["drop", "spread", "pad"]


@dataclass(frozen=True)
class EpochBatches:
    """The batches of an epoch: number b has the positions `start(b)` up to `start(b + 1)`, counted over all shards.

    `clips`: clips of one pass over the videos. `most`: clips in a batch at most, of all shards together. `last`: what
    becomes of the clips that do not fill a batch. drop: they are left out. spread: there is one batch more, and all
    have equally many clips, except that the first ones may have one more. pad: the last batch goes on past the end.
    `repeats`: batches in a row that show the same videos; these are a round.
    """

    clips: int
    most: int
    last: LastBatch = "drop"
    repeats: int = 1

    @property
    def rounds(self) -> int:
        """Batches of one pass over the videos."""
        return self.clips // self.most if self.last == "drop" else -(-self.clips // self.most)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self.rounds * self.repeats

    @property
    def largest(self) -> int:
        """The number of clips in the largest batch, of all shards together."""
        least, larger = self._sizes()
        return least + (larger > 0)

    @property
    def fewest(self) -> int:
        """The number of clips in the smallest batch, of all shards together."""
        return self._sizes()[0]

    def start(self, number: int) -> int:
        """The position of the first clip of batch `number`; the end of the epoch for the number after the last."""
        least, larger = self._sizes()
        this, again = divmod(number, self.repeats)
        return self.repeats * (this * least + min(this, larger)) + again * (least + (this < larger))

    def number_at(self, position: int) -> int:
        """The number of the batch that has `position`; the number after the last where that is the end."""
        least, larger = self._sizes()
        large = self.repeats * larger * (least + 1)  # clips in all the batches that have one more
        if position < large:
            return position // (least + 1)
        return self.repeats * larger + (position - large) // max(1, least)

    def place(self, position: int) -> int:
        """Which clip of one pass over the videos lies at `position`; without repeats, the position itself."""
        if self.repeats == 1:
            return position
        number = self.number_at(position)
        least, larger = self._sizes()
        this = number // self.repeats
        return this * least + min(this, larger) + position - self.start(number)

    def _sizes(self) -> tuple[int, int]:
        """(clips of the smallest batch, how many rounds have one clip more)."""
        return divmod(self.clips, max(1, self.rounds)) if self.last == "spread" else (self.most, 0)
