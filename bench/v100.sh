#!/usr/bin/env bash
# `bench gpu` on a bare server with a V100: makes .venv-v100 in this checkout if there is none, then measures.
set -euo pipefail

usage() {
    cat <<'END'
Usage: bench/v100.sh [options of bench gpu] DATA

Measures everything that this machine's NVIDIA GPU can tell. DATA is a folder of videos, a folder a class. Where the
checkout has no .venv-v100, it is made with PYTHON (default: python3, which has to be 3.11 or 3.12) and what a V100 needs
is installed into it: r3d-fast[cuda11,test], 3.1 GB to download and 7.6 GB on the disk. Options, and exit codes:
.venv-v100/bin/bench gpu --help.
END
}

stop() { # stop CODE MESSAGE
    printf 'v100.sh: %s\n' "$2" >&2
    exit "$1"
}

install() {
    # The last Paddle with code for a V100 is 2.6.2, of which there are wheels up to Python 3.12.
    version=$("$python" -c 'from sys import version_info as v; print(f"{v[0]}.{v[1]}-{v[3]}")') ||
        stop 4 "$python: can't be run; set PYTHON"
    number=${version%-*}
    case $version in
        3.11-final | 3.12-final) ;;
        *-final) stop 4 "$python is Python $number; a V100 needs 3.11 or 3.12: set PYTHON, such as PYTHON=python3.12" ;;
        *) stop 4 "$python is a test version of Python $number, as Ubuntu 22.04 has it: docs/gpu.md names a released one" ;;
    esac
    printf 'v100.sh: installing into %s: 3.1 GB to download, 7.6 GB on the disk\n' "$venv" >&2
    "$python" -m venv "$venv" || stop 4 "$venv: can't be made; Debian, Ubuntu: sudo apt-get install python$number-venv"
    "$venv/bin/pip" install --quiet --upgrade pip || stop 4 'pip: no package index is reached'
    "$venv/bin/pip" install --editable "${root}[cuda11,test]" || stop 4 'r3d-fast[cuda11,test]: not installed; see above'
}

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
python=${PYTHON:-python3}
# Not .venv, into which other targets of the Makefile install what can't use a V100.
venv=$root/.venv-v100
if [ ! -x "$venv/bin/bench" ]; then
    # What is wrong in any case is said before gigabytes are downloaded; the rest is checked by bench.
    folder=
    dry_run=
    for argument in "$@"; do
        case $argument in
            -h | --help) usage && exit 0 ;;
            --dry-run) dry_run=yes ;;
        esac
        [ ! -d "$argument" ] || folder=$argument
    done
    [ $# -gt 0 ] || { usage && exit 0; }
    [ -n "$folder" ] || stop 3 "${*: -1}: no such folder; expected one with videos"
    if [ -n "$dry_run" ]; then
        echo "would make $venv (3.1 GB to download, 7.6 GB on the disk) and run in it: bench gpu $*"
        exit 0
    fi
    install
fi
# Also where it was installed as a copy: the tests are in the checkout.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$venv/bin/bench" gpu "$@"
