"""Files of pooled features, .npy or .parquet, written clip by clip. Clips that could not be read have no row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.output.csv_table import csv_rows
from pipelines.output.files import new_file
from pipelines.plain_text import valid
from r3d_fast.prediction.clip_logits import Answer
from r3d_fast.prediction.writers.video_names import FileNames, is_folder_name

Add = Callable[[Answer], None]
_ROWS_AT_ONCE = 1024
_COLUMNS = ("video", "clip", "start_frame", "end_frame")
INDEX = "features.csv"


def feature_outputs(path: Path | None) -> list[Path]:
    """The files of known names that `feature_file(path)` writes; of a folder that does not exist yet, none."""
    if path is None or path.suffix == ".parquet":
        return [] if path is None else [path]
    if path.is_dir():
        return [path / INDEX]
    return [path, path.with_suffix(".csv")] if path.suffix == ".npy" else []


@contextmanager
def feature_file(path: Path) -> Iterator[Add]:
    """A function that adds the features of a clip to `path`: NAME.npy, NAME.parquet, or a folder of .npy files.

    NAME.npy is float32 [clips, F], and NAME.csv beside it names the clip of each row. A folder gets one .npy for each
    video, and `features.csv`, which names the video of each file. Raises UsageError where the files can't be written or
    `path` is none of the three, EnvironmentProblem where pyarrow, which .parquet needs, is missing.
    """
    kinds = {".npy": _npy, ".parquet": _parquet}
    if is_folder_name(path):
        kind = _folder
    elif path.suffix in kinds:
        kind = kinds[path.suffix]
    else:
        raise UsageError(f"--features {path}: expected FILE.npy, FILE.parquet or a folder")
    with kind(path) as add:
        yield lambda answer: add(answer) if answer.features is not None else None


@contextmanager
def _npy(path: Path) -> Iterator[Add]:
    with ExitStack() as stack:
        file = stack.enter_context(new_file(path))
        if not file.seekable():
            raise UsageError(f"--features {path}: a pipe can't take .npy, which begins with its length; use .parquet")
        array = _Array(file)
        described = stack.enter_context(new_file(path.with_suffix(".csv")))
        table = stack.enter_context(csv_rows(described, _COLUMNS))

        def add(answer: Answer) -> None:
            array.add(_features(answer))
            table(_row(answer))

        yield add
        array.end()


@contextmanager
def _folder(path: Path) -> Iterator[Add]:
    names = FileNames(path, ".npy")
    with ExitStack() as stack:
        index = stack.enter_context(new_file(path / INDEX))
        table = stack.enter_context(csv_rows(index, ("video", "file", "clips")))
        files = stack.enter_context(ExitStack())  # of one video
        current: tuple[str, str, _Array] | None = None

        def end() -> None:
            if current is not None:
                video, name, array = current
                array.end()
                files.close()
                table([video, name, array.rows])

        def add(answer: Answer) -> None:
            nonlocal current
            if current is None or answer.video != current[0] or answer.clip == 0:
                end()
                target = names.of(answer.video)
                current = answer.video, target.name, _Array(files.enter_context(new_file(target)))
            current[2].add(_features(answer))

        yield add
        end()


@contextmanager
def _parquet(path: Path) -> Iterator[Add]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise EnvironmentProblem(
            f"{path}: .parquet needs pyarrow ({error}); install it with: pip install 'r3d-fast[parquet]', "
            "or write FILE.npy"
        ) from error
    columns = [("video", pa.string()), *((name, pa.int32()) for name in _COLUMNS[1:])]
    schema = pa.schema([*columns, ("features", pa.list_(pa.float32()))])
    with new_file(path) as file, parquet.ParquetWriter(file, schema) as writer:
        rows: list[dict[str, Any]] = []

        def flush() -> None:
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()

        def add(answer: Answer) -> None:
            row = dict(zip(_COLUMNS, _row(answer), strict=True))
            rows.append({**row, "video": valid(answer.video), "features": _features(answer)})
            if len(rows) == _ROWS_AT_ONCE:
                flush()

        yield add
        flush()


class _Array:
    """A .npy file that grows row by row; its header, which holds the number of rows, is written again at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.rows, self._size = 0, 0
        self._write_header()

    def add(self, row: NDArray[np.float32]) -> None:
        self._size = len(row)
        self.rows += 1
        self._file.write(row.astype("<f4").tobytes())

    def end(self) -> None:
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        # NumPy pads the header to 128 bytes for any shape, so the second header fits over the first.
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self._size)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _row(answer: Answer) -> list[Any]:
    return [answer.video, answer.clip, int(answer.frames[0]), int(answer.frames.max())]


def _features(answer: Answer) -> NDArray[np.float32]:
    assert answer.features is not None
    return answer.features
