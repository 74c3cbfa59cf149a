"""Reads and checks the name of a device: "cpu", "gpu" or "gpu:N", as Paddle names them."""

from __future__ import annotations

import re

from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.machine.nvidia import probe_driver


def device_number(device: str) -> int | None:
    """The number of the GPU `device`, 0 for "gpu", None for "cpu". Raises UsageError for any other name."""
    if device == "cpu":
        return None
    found = re.fullmatch(r"gpu(?::(\d+))?", device)
    if not found:
        raise UsageError(f"device {device!r}: expected 'cpu', 'gpu' or 'gpu:N'")
    return int(found[1] or 0)


def check_device(device: str) -> None:
    """Raise EnvironmentProblem if `device` is a GPU that can't be used here, UsageError if it is no device."""
    number = device_number(device)
    if number is None:
        return
    driver = probe_driver()
    problem, to_do = driver.problem, driver.to_do
    if not problem and number >= len(driver.gpus):
        there = ", ".join(f"gpu:{gpu.index} ({gpu.name})" for gpu in driver.gpus)
        problem, to_do = f"there is no GPU {number}", f"choose one of {there}"
    if problem:
        raise EnvironmentProblem(f"device {device}: {problem}; {to_do or 'use device cpu'}")
