"""The command line `r3d-fast`: its commands, and how an error becomes one line on stderr and an exit code.

Paddle, DALI and PyAV are imported inside the commands, so that `--help` answers at once. Results go to stdout,
everything else to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from pipelines.errors import ExitCode, R3DFastError
from pipelines.plain_text import show_logs_plainly, speak_plainly
from r3d_fast.backend.restart import restart_with_cuda_libraries
from r3d_fast.commands import config as settings
from r3d_fast.commands import doctor as machine
from r3d_fast.commands import eval as evaluation
from r3d_fast.commands import export as exporting
from r3d_fast.commands import import_weights as weights
from r3d_fast.commands import models
from r3d_fast.commands import report as reporting
from r3d_fast.commands import watch as watching
from r3d_fast.commands.data.data import data
from r3d_fast.commands.data.demo import demo
from r3d_fast.commands.predict.predict import predict
from r3d_fast.commands.train.train import train
from r3d_fast.console import refused_lines, tell
from r3d_fast.errors import ConfigError, refusal
from r3d_fast.interrupt import MESSAGE, Terminated, end_by_signal
from r3d_fast.ranks.launcher import hide_environment, tell_exit_code
from r3d_fast.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="r3d-fast")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Train 3D ResNets on action recognition straight from video files."""
    show_logs_plainly()


for command in (
    demo, data, train, evaluation.evaluate, reporting.report, watching.watch, predict, exporting.export,
    weights.import_weights, models.models, settings.config, machine.doctor,
):  # fmt: skip
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run `r3d-fast` with `arguments` (default: those of the process) and exit with its exit code."""
    if arguments is None:
        restart_with_cuda_libraries(("r3d-fast", "r3d_fast.__main__", "r3d_fast.cli"))
        arguments = sys.argv[1:]
    hide_environment()
    speak_plainly()
    code = run_cli(cli, arguments, "r3d-fast")
    tell_exit_code(code)
    sys.exit(code)


def run_cli(command: Callable[..., Any], arguments: list[str], name: str) -> int:
    """Run a click command and return its exit code; an error is printed as one line (--debug: after its traceback)."""
    refused_lines()
    code = _run(command, arguments, name, debug="--debug" in arguments)
    refused = refused_lines()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
    except OSError as error:
        _drop_stdout()
        if code == ExitCode.OK:
            refused = refused or f"stdout: can't be written: {error.strerror}"
    if refused:
        tell(f"{name}: {refused}")
        return code or ExitCode.USAGE
    return code


def _run(command: Callable[..., Any], arguments: list[str], name: str, *, debug: bool) -> int:
    try:
        result = command(args=arguments, prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        _say_usage(name, error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as stop:  # click makes the latter of the former
        signaled = stop if isinstance(stop, Terminated) else stop.__cause__
        _say(name, str(signaled) if isinstance(signaled, Terminated) else MESSAGE, debug=debug)
        if isinstance(signaled, Terminated):
            end_by_signal(signaled.number)
        return ExitCode.INTERRUPTED
    except (BrokenPipeError, SystemExit):
        _drop_stdout()  # the program that reads it has ended (click turns that into a SystemExit)
        return ExitCode.OK
    except ConfigError as error:
        _say(name, *str(error).splitlines(), debug=debug)
        return error.exit_code
    except R3DFastError as error:
        _say(name, str(error), *getattr(error, "__notes__", ()), debug=debug)
        return error.exit_code
    except ImportError as error:
        what = f"a library can't be imported ({error}); to see what is missing, run: r3d-fast doctor"
        _say(name, what, debug=debug)
        return ExitCode.ENVIRONMENT
    except Exception as error:
        if isinstance(error, OSError) and _is_of_click(error):  # which prints on stdout only, as for --help
            _say(name, f"stdout: can't be written: {error.strerror}", debug=debug)
            _drop_stdout()
            return ExitCode.USAGE
        refused = refusal(error)
        if refused:
            _say(name, refused, debug=debug)
            return ExitCode.ENVIRONMENT
        text = " ".join(str(error).split())
        _say(name, f"internal error: {type(error).__name__}: {text} (--debug shows where)", debug=debug)
        return ExitCode.INTERNAL


def _is_of_click(error: OSError) -> bool:
    """Whether `error` was raised within the library that reads the command line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("click.")


def _drop_stdout() -> None:
    """Drop all that is still to be printed: it can't be."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_usage(name: str, error: click.ClickException) -> None:
    """Print in one line what is wrong with the arguments; a command group without a command prints its help."""
    if type(error).__name__ == "NoArgsIsHelpError":  # by name, because click 8.1 has no such class
        error.show()
        return
    context = getattr(error, "ctx", None)
    path = context.command_path if context else name
    _say(name, f"{' '.join(error.format_message().split()).rstrip('.')} (see {path} --help)", debug=False)


def _say(name: str, *lines: str, debug: bool) -> None:
    """Print `lines` on stderr after the program's `name`, but no empty one; with `debug`, the traceback first."""
    if debug:
        import traceback

        tell(*traceback.format_exc().splitlines())
    tell(*(f"{name}: {line}" for line in lines if line))


if __name__ == "__main__":
    main()
