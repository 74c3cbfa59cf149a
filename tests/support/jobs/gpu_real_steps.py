"""`bench gpu` with its real parts machine and parity, and few tests in place of the checkout's, one of which fails.

Run as a script with the arguments of `bench`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from bench.cli import main
from bench.gpu import plan, session

TESTS = """
def test_a_folder_in_a_message(tmp_path):
    import os
    raise ValueError(f"{'x' * 150} {tmp_path} of {os.environ['R3D_REAL_CLIPS']} isn't there")

def test_a_long_path():
    import os
    assert not os.environ["R3D_REAL_CLIPS"], "y" * 165 + os.environ["R3D_REAL_CLIPS"]
"""
REAL_PLAN = plan.plan


def with_own_tests(settings: plan.GpuSettings, card: plan.Card) -> list[plan.Part]:
    """The real plan, whose tests need no GPU and are few."""
    parts = []
    for part in REAL_PLAN(settings, card):
        if part.name == "tests":
            file, ini = settings.out / "test_own.py", settings.out / "pytest.ini"
            settings.out.mkdir(exist_ok=True)
            file.write_text(TESTS, encoding="utf-8")
            ini.write_text("[pytest]\n", encoding="utf-8")
            options = [word for word in part.command if word.startswith("--")]
            command = (sys.executable, "-m", "pytest", "-q", *options, "-c", str(ini), str(file))
            part = replace(part, needs="nothing", command=command, folder=None)
        parts.append(part)
    return parts


if __name__ == "__main__":
    session.plan = with_own_tests
    main()
