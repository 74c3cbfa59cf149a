"""Python processes of their own, for what has to be measured apart; they import what this process would import."""

from __future__ import annotations

import os
import subprocess
import sys

from pipelines.errors import EnvironmentProblem


def python_command(module: str, *arguments: object) -> list[str]:
    """The command line that runs `module` by this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def python_environment(**variables: str) -> dict[str, str]:
    """The environment of such a process: that of this one, with its import path and `variables`."""
    # Not Path: "" stands for the current folder.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    return {**os.environ, "PYTHONPATH": path, **variables}


def output_of(module: str, *arguments: object) -> str:
    """What `module` prints in a fresh Python.

    Raises EnvironmentProblem, with the last line of its stderr, where it fails.
    """
    command = python_command(module, *arguments)
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentProblem(f"{module} ended with code {done.returncode}: {last_line(done.stderr)}")
    return done.stdout


def last_line(text: str) -> str:
    """The last line of `text` that is not blank: of a traceback, the error itself."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
