"""Draws the clips of a run's first training batch and of its first evaluation batch, beside the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread

from pipelines.loader import ClipLoader
from pipelines.output.files import write_file
from r3d_fast.backend.feed import DeviceBatch
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.preview.contact_sheet import contact_sheet, legend
from r3d_fast.preview.shown_clips import mixed_labels, pixels_of, plans_of, rows_to_show, shown_clips

TRAIN_CLIPS, EVAL_CLIPS = "train_clips.png", "eval_clips.png"
_MOST = 8  # clips in a picture


class FirstClips:
    """Writes train_clips.png and eval_clips.png into the folder of a run; `close` waits until both are there.

    A picture that the folder has already stays as it is, so a run that goes on draws none. The clips are copied at
    once, and drawn by a thread. Nothing that fails here stops the training: `say` gets a line for the user.
    """

    def __init__(self, run: Path | None, say: Callable[[str], None]) -> None:
        """`run` is None on every rank but the first; then nothing is drawn."""
        self._run, self._say = run, say
        self._seen: set[str] = set()
        self._drawing: list[Thread] = []

    def of_training(self, loader: ClipLoader, batch: DeviceBatch, epoch: int, position: int) -> None:
        """Draw clips of `batch` as the model trains on it; the next one of `loader` starts at `position` of `epoch`."""
        self._draw(TRAIN_CLIPS, f"Clips of training, epoch {epoch + 1}", loader, batch, epoch, position)

    def of_evaluation(self, loader: ClipLoader, batch: DeviceBatch, position: int) -> None:
        """Draw clips of `batch` as the model is evaluated on it; the next one of `loader` starts at `position`."""
        self._draw(EVAL_CLIPS, "Clips of evaluation", loader, batch, 0, position)

    def close(self) -> None:
        """Return when the pictures that were begun are written."""
        for thread in self._drawing:
            thread.join()

    def _draw(
        self, name: str, title: str, loader: ClipLoader, batch: DeviceBatch, epoch: int, position: int
    ) -> None:  # fmt: skip
        """Copy some clips of `batch` and begin to draw them in the file `name`, if it is the first one."""
        if self._run is None or name in self._seen:
            return
        self._seen.add(name)
        place = self._run / name
        if place.exists():
            return
        title = f"{title}, split {loader.split} of {loader.index.path.name}"
        try:
            draw = self._copied(place, title, loader, batch, epoch, position)
        except Exception as error:  # whatever fails, training is more important than its picture
            self._failed(place, error)
        else:
            self._drawing.append(Thread(target=self._write, args=(place, draw), name=name))
            self._drawing[-1].start()

    def _copied(
        self, place: Path, title: str, loader: ClipLoader, batch: DeviceBatch, epoch: int, position: int
    ) -> Callable[[], bytes]:  # fmt: skip
        """What gives the PNG of some clips of `batch`, without using the batch or the loader any more.

        It says which of them lack their whole first frame in `place`, the file that the PNG is for, and why.
        """
        sampler, index = loader.sampler, loader.index
        plans = plans_of(loader, epoch, position)
        rows = rows_to_show(plans, _MOST)
        paddle = import_paddle()
        # Of a part of a tensor, `numpy` would copy the whole.
        values = paddle.index_select(batch.clips, paddle.to_tensor(rows, place=batch.clips.place)).numpy()
        every, weights = mixed_labels(batch, index.classes), batch.weights.numpy()
        labels, chosen = [every[row] for row in rows], [plans[row] for row in rows]
        records = [index[plan.video_id] for plan in chosen]
        bad = {plans[row].video_id: "see what the run said of it" for row in rows if weights[row] == 0.0}

        def draw() -> bytes:
            pixels = pixels_of(values, sampler.augment)
            clips = shown_clips(pixels, chosen, labels, records, index.root, bad)
            for clip in clips:
                if clip.problem and clip.plan.video_id not in bad:
                    self._say(f"warning: {place}: without a frame: {clip.problem}")
            return contact_sheet(clips, f"{title}\n{legend(sampler.clip, sampler.augment)}")

        return draw

    def _write(self, place: Path, draw: Callable[[], bytes]) -> None:
        try:
            write_file(place, draw(), follow=False)
        except Exception as error:  # as above
            self._failed(place, error)

    def _failed(self, place: Path, error: Exception) -> None:
        self._say(f"warning: {place}: not drawn ({type(error).__name__}: {error}); the run goes on without it")
