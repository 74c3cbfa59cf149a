"""The command `r3d-fast`, also as `python -m r3d_fast`."""

from pipelines.output.descriptors import hold_standard_streams
from r3d_fast.interrupt import ignore_interrupts, take_interrupts


def main() -> None:
    """Run `r3d-fast` with the arguments of the process and exit with its exit code."""
    hold_standard_streams()
    take_interrupts("r3d-fast")
    from r3d_fast.cli import main as run

    try:
        run()
    finally:
        ignore_interrupts()  # Python and its libraries take a second or two to end


if __name__ == "__main__":
    main()
