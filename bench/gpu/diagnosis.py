"""What `r3d-fast doctor` finds, as text and as JSON. Run as a process, `FILE`: it ends with the doctor's exit code."""

from __future__ import annotations

import sys
from pathlib import Path


def _examine(file: str) -> int:
    from pipelines.output.files import write_json
    from r3d_fast.doctor.doctor import as_json, as_text, examine

    diagnosis = examine()
    write_json(Path(file), as_json(diagnosis))
    print(as_text(diagnosis))
    return diagnosis.exit_code


if __name__ == "__main__":
    sys.exit(_examine(*sys.argv[1:]))
