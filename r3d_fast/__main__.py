"""Makes `python -m r3d_fast` the same as the command `r3d-fast`."""

from r3d_fast.cli import main

if __name__ == "__main__":
    main()
