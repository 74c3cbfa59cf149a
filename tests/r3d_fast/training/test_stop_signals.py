"""The first SIGINT or SIGTERM is noted and answered with a line; handlers are as before afterwards."""

from __future__ import annotations

import signal

import pytest

from r3d_fast.training.stop_signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_says_what_is_finished_first(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with stop_signals() as was_asked:
        assert not was_asked()
        signal.raise_signal(number)
        assert was_asked()
    assert "stopping after this step or evaluation; a second signal stops at once\n" in capsys.readouterr().err
    assert signal.getsignal(number) == before
