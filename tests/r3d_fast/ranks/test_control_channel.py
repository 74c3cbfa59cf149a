from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from waiting import PATIENCE, wait_until

from pipelines.errors import EnvironmentProblem
from r3d_fast.errors import RankFailed, RankLost
from r3d_fast.metrics import ClassificationMetrics, VideoScores
from r3d_fast.ranks.control_channel import Control, open_control
from r3d_fast.ranks.group import pack, unpack

Work = Callable[[Control], Any]


def free_address() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address: tuple[str, int] = server.getsockname()
    return address


def together(count: int, work: Work, timeout: float = 0.5, versions: str = "") -> list[Any]:
    """What `work` gives on each rank, or the error it raises; ranks are threads here."""
    address, results = free_address(), [None] * count

    def one(rank: int) -> None:
        try:
            control = open_control(rank, count, address, timeout, versions[rank] if versions else "1")
            results[rank] = work(control)
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return results


def answers(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address):
        return True
    return False


def messages(results: list[Any]) -> list[str]:
    return [f"{type(result).__name__}: {result}" for result in results]


def test_messages_of_any_size_come_whole_and_in_order() -> None:
    def work(control: Control) -> list[Any]:
        out: list[Any] = []
        for size in (0, 3, 5_000_000):
            out.append(control.gather(bytes([control.rank]) * size))
            out.append(len(control.broadcast(bytes(size) if control.rank == 0 else b"")))
        control.leave(0, "")
        return out

    first, *others = together(3, work)
    assert [len(part) for part in first[0]] == [0, 0, 0]
    assert first[4] == [bytes([rank]) * 5_000_000 for rank in range(3)]
    assert first[1::2] == others[0][1::2] == others[1][1::2] == [0, 3, 5_000_000]
    assert others[0][0::2] == [[], [], []]


def test_looking_whether_all_are_there_loses_no_message() -> None:
    def work(control: Control) -> list[bytes]:
        if control.rank == 0:
            (other,) = control._channels
            wait_until(lambda: select.select([other.socket], [], [], 0)[0])  # until the other's message lies there
            control.check(time.monotonic())
        parts = control.gather(b"x")
        control.leave(0, "")
        return parts

    assert together(2, work)[0] == [b"x", b"x"]


def test_an_error_of_one_rank_is_heard_by_all_with_its_code() -> None:
    def work(control: Control) -> None:
        try:
            if control.rank == 2:
                raise RankFailed(3, "no such file")
            control.gather(b"")
            control.broadcast(b"")
        except RankFailed as error:
            control.leave(error.exit_code, str(error))
            raise

    results = together(3, work)
    assert messages(results) == ["RankFailed: rank 2: no such file", "RankFailed: ", "RankFailed: no such file"]
    assert [result.exit_code for result in results] == [3, 3, 3]


def test_a_rank_that_is_gone_is_named() -> None:
    def work(control: Control) -> None:
        if control.rank == 1:
            control.close()
            return
        try:
            control.gather(b"")
        finally:
            control.leave(4, "")

    result = together(2, work)[0]
    assert isinstance(result, RankLost)
    assert "rank 1 is gone" in str(result)


def test_a_rank_that_gives_no_sign_of_life_is_named() -> None:
    over = threading.Event()

    def work(control: Control) -> None:
        if control.rank == 1:
            control._over.set()  # its thread stops, its connection stays
            over.wait(PATIENCE)
            return
        try:
            control.gather(b"")
        finally:
            over.set()

    result = together(2, work)[0]
    assert isinstance(result, RankLost)
    assert "rank 1 has given no sign of life" in str(result)


def test_a_rank_that_is_only_late_is_waited_for_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r3d_fast.ranks.control_channel._PATIENCE", 5)
    over = threading.Event()

    def work(control: Control) -> int:
        if control.rank == 1:
            time.sleep(3 * control.timeout)
        control.gather(b"")  # late, but there
        if control.rank == 1:
            over.wait(PATIENCE)
            return 0
        try:
            control.gather(b"")
        finally:
            over.set()
        return 0

    result = together(2, work)[0]
    assert isinstance(result, RankLost)
    assert "rank 1 is alive, but" in str(result)


def test_other_versions_and_strangers_are_refused() -> None:
    results = together(2, lambda control: control.leave(0, ""), versions="12")
    assert isinstance(results[0], EnvironmentProblem)
    assert "rank 1 runs r3d-fast 2, rank 0 runs 1" in str(results[0])

    address, done = free_address(), []
    first = threading.Thread(target=lambda: done.append(open_control(0, 2, address, 0.5, "1")))
    first.start()
    wait_until(lambda: answers(address))  # by a connection that says nothing
    with socket.create_connection(address) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        open_control(1, 2, address, 0.5, "1").close()
    first.join(PATIENCE)
    assert [control.rank for control in done] == [0]
    done[0].close()


def test_figures_survive_the_way() -> None:
    draws = np.random.default_rng(0)
    logits = draws.normal(size=(20, 7)).astype(np.float32)
    real, videos = draws.random(20) < 0.8, draws.integers(0, 9, 20)
    labels = videos % 7
    logits[3] = np.nan
    metrics, scores = ClassificationMetrics(7), VideoScores(7)
    metrics.update(logits, labels, real)
    scores.update(videos, logits, labels, real)
    values, arrays = unpack(pack(metrics.state(), scores.arrays()))
    again, others = ClassificationMetrics.of(7, values), VideoScores.of(7, arrays)
    for mine, theirs in ((metrics.result(), again.result()), (scores.result(), others.result())):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            np.testing.assert_array_equal(np.array(value, float), np.array(theirs[key], float))  # type: ignore[literal-required]
    assert unpack(pack({"a": 1}, {})) == ({"a": 1}, {})
