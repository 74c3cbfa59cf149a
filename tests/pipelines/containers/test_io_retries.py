from __future__ import annotations

import errno
import os
from collections.abc import Callable

import av.error
import pytest

from pipelines.containers import io_retries
from pipelines.containers.io_retries import fitting_retries, is_of_system, with_retries


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait, of which none is waited."""
    found: list[float] = []
    monkeypatch.setattr(io_retries.time, "sleep", found.append)
    return found


def failing(times: int, error: BaseException) -> Callable[[], str]:
    """Raises `error` so many times, then gives "read"."""
    left = [error] * times

    def read() -> str:
        if left:
            raise left.pop()
        return "read"

    return read


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def of_ffmpeg(number: int) -> av.error.FFmpegError:
    return av.error.OSError(number, os.strerror(number))  # type: ignore[no-any-return]


@pytest.mark.parametrize("error", [system(errno.EIO), system(errno.ESTALE), system(errno.ENOMEM), of_ffmpeg(errno.EIO)])
def test_a_passing_error_is_waited_for_longer_each_time(waits: list[float], error: BaseException) -> None:
    retries: list[int] = []
    assert with_retries(failing(3, error), 3, lambda: retries.append(len(waits))) == "read"
    assert waits == pytest.approx([0.1, 0.4, 1.6])
    assert retries == [0, 1, 2]
    with pytest.raises(type(error)):
        with_retries(failing(4, error), 3)


@pytest.mark.parametrize(
    "error",
    [
        system(errno.ENOENT),
        system(errno.EACCES),
        system(errno.EISDIR),
        of_ffmpeg(errno.EINVAL),
        of_ffmpeg(errno.ENOMEM),
    ],
)
def test_other_errors_come_at_once(waits: list[float], error: BaseException) -> None:
    with pytest.raises(type(error)):
        with_retries(failing(1, error), 3)
    assert waits == []


def test_what_ffmpeg_says_of_damaged_bytes_is_not_of_the_system() -> None:
    assert is_of_system(system(errno.EISDIR))
    assert is_of_system(of_ffmpeg(errno.EIO))
    assert not is_of_system(of_ffmpeg(errno.ENOMEM))
    assert not is_of_system(of_ffmpeg(av.error.InvalidDataError(1, "").errno))
    assert not is_of_system(ValueError())


@pytest.mark.parametrize(
    ("wanted", "seconds", "fitting"), [(3, 30, 3), (3, 1.0, 2), (10, 30, 4), (10, 0.1, 0), (0, 30, 0)]
)
def test_retries_wait_for_at_most_half_of_the_time(wanted: int, seconds: float, fitting: int) -> None:
    assert fitting_retries(wanted, seconds) == fitting
