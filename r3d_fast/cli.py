"""The command line `r3d-fast`: its commands, and how an error becomes one line on stderr and an exit code.

Paddle, DALI and PyAV are imported inside the commands, so that `--help` answers at once. Results go to stdout,
everything else to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from pipelines.errors import ExitCode, R3DFastError
from r3d_fast.backend.restart import restart_with_cuda_libraries
from r3d_fast.commands import data, models
from r3d_fast.commands import doctor as machine
from r3d_fast.commands import eval as evaluation
from r3d_fast.commands import export as exporting
from r3d_fast.commands import import_weights as weights
from r3d_fast.commands import predict as prediction
from r3d_fast.commands import train as training
from r3d_fast.ranks.launcher import tell_exit_code
from r3d_fast.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="r3d-fast")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Train 3D ResNets on action recognition straight from video files."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)


for command in (
    data.demo, data.data, training.train, evaluation.evaluate, prediction.predict, exporting.export,
    weights.import_weights, models.models, machine.doctor,
):  # fmt: skip
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run `r3d-fast` with `arguments` (default: those of the process) and exit with its exit code."""
    if arguments is None:
        restart_with_cuda_libraries(("r3d-fast", "r3d_fast.__main__", "r3d_fast.cli"))
        arguments = sys.argv[1:]
    code = run_cli(cli, arguments, "r3d-fast")
    tell_exit_code(code)
    sys.exit(code)


def run_cli(command: Callable[..., Any], arguments: list[str], name: str) -> int:
    """Run a click command and return its exit code; an error is printed as one line (--debug: after its traceback)."""
    debug = "--debug" in arguments
    try:
        result = command(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        _say_usage(name, error)
        return error.exit_code
    except click.Abort:
        return ExitCode.INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # The program that reads our stdout has ended (click turns that into a SystemExit): drop the rest of the output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except R3DFastError as error:
        _say(name, str(error), debug)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        _say(name, f"internal error: {type(error).__name__}: {error} (--debug shows where)", debug)
        return ExitCode.INTERNAL


def _say_usage(name: str, error: click.ClickException) -> None:
    """Print in one line what is wrong with the arguments; a command group without a command prints its help."""
    if type(error).__name__ == "NoArgsIsHelpError":  # by name, because click 8.1 has no such class
        error.show()
        return
    context = getattr(error, "ctx", None)
    path = context.command_path if context else name
    _say(name, f"{' '.join(error.format_message().split()).rstrip('.')} (see {path} --help)", debug=False)


def _say(name: str, text: str, debug: bool) -> None:
    """Print each line of `text` on stderr after the program's `name`; with `debug`, print the traceback first."""
    if debug:
        import traceback

        traceback.print_exc()
    for line in text.splitlines():
        # File names may contain characters that this terminal can't show.
        shown = line.encode(sys.stderr.encoding or "utf-8", "backslashreplace").decode(sys.stderr.encoding or "utf-8")
        print(f"{name}: {shown}", file=sys.stderr)


if __name__ == "__main__":
    main()
