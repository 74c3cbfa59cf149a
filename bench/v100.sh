#!/usr/bin/env bash
# `bench gpu` on a bare server with a V100: makes .venv in this checkout if there is none, then measures.
set -euo pipefail

usage() {
    cat <<'END'
Usage: bench/v100.sh [options of bench gpu] DATA

Measures everything that this machine's NVIDIA GPU can tell. DATA is a folder of videos, a folder a class. Where the
checkout has no .venv, one is made with PYTHON (default: python3, which has to be 3.11 or 3.12) and what a V100 needs is
installed into it: r3d-fast[cuda11,test]. Options, and exit codes: .venv/bin/bench gpu --help.
END
}

stop() { # stop CODE MESSAGE
    printf 'v100.sh: %s\n' "$2" >&2
    exit "$1"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
bench=$root/.venv/bin/bench
if [ ! -x "$bench" ]; then
    case ${1:-} in '' | -h | --help) usage && exit 0 ;; esac
    # The last Paddle with code for a V100 is 2.6.2, of which there are wheels up to Python 3.12.
    version=$("$python" -c 'from sys import version_info as v; print(f"{v[0]}.{v[1]}-{v[3]}")') ||
        stop 4 "$python: can't be run; set PYTHON"
    number=${version%-*}
    case $version in
        3.11-final | 3.12-final) ;;
        *-final) stop 4 "$python is Python $number; a V100 needs 3.11 or 3.12: set PYTHON, such as PYTHON=python3.12" ;;
        *) stop 4 "$python is a test version of Python $number, as Ubuntu 22.04 has it: docs/gpu.md names a released one" ;;
    esac
    "$python" -m venv "$root/.venv" ||
        stop 4 "$root/.venv: can't be made; Debian, Ubuntu: sudo apt-get install python$number-venv"
    "$root/.venv/bin/pip" install --quiet --upgrade pip || stop 4 'pip: no package index is reached'
    "$root/.venv/bin/pip" install --editable "${root}[cuda11,test]" ||
        stop 4 'r3d-fast[cuda11,test]: not installed; see above'
fi
# Also where it was installed as a copy: the tests are in the checkout.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$bench" gpu "$@"
