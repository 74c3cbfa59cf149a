#!/usr/bin/env bash
# Makes every figure of docs/speed.md that needs a GPU, and those of the CPU beside them. What is run: --dry-run.
set -euo pipefail

usage() {
    cat <<'END'
Usage: bench/v100.sh [options] DATA

Measures r3d-fast on this machine's NVIDIA GPU. DATA is the folder of UCF-101's videos, a folder a class.

  --lists DIR   folder of its official lists (ucfTrainTestlist): needed for --full to be comparable
  --split N     which split of the lists (default 1)
  --videos N    how many of DATA's videos the throughput is measured on, spread over all (default 960)
  --out DIR     where everything goes (default: v100): results/*.json, report.md, logs/, data.r3dindex, run/
  --full        train configs/ucf101/ucf101_r3d18.yaml and evaluate it too; goes on where it was stopped
  --dry-run     print the commands, run none
  -h, --help    this text

A part that fails doesn't stop the others. Exit codes: 0 all done; 1 a part failed, named at the end; 2 wrong usage;
3 no such data; 4 no GPU to measure on.
END
}

stop() { # stop CODE MESSAGE
    printf 'v100.sh: %s\n' "$2" >&2
    exit "$1"
}

value() { # value OPTION [VALUE]: the value, which has to be there
    [ $# -ge 2 ] && [ -n "$2" ] || stop 2 "$1: expected a value; see --help"
    printf '%s' "$2"
}

data='' lists='' split=1 videos=960 out=v100 full='' dry_run=''
while [ $# -gt 0 ]; do
    case "$1" in
        --lists) lists=$(value "$@"); shift ;;
        --split) split=$(value "$@"); shift ;;
        --videos) videos=$(value "$@"); shift ;;
        --out) out=$(value "$@"); shift ;;
        --full) full=yes ;;
        --dry-run) dry_run=yes ;;
        -h | --help) usage && exit 0 ;;
        -*) stop 2 "$1: no such option; see --help" ;;
        *) [ -z "$data" ] || stop 2 "$1: expected one folder, $data is given already" && data=$1 ;;
    esac
    shift
done
[ -n "$data" ] || stop 2 'no DATA: expected the folder of the videos; see --help'

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ ! -d "$root/.venv/bin" ] || PATH="$root/.venv/bin:$PATH"
if [ -z "$dry_run" ]; then
    [ -d "$data" ] || stop 3 "$data: no such folder; expected one with videos"
    [ -z "$lists" ] || [ -d "$lists" ] || stop 3 "$lists: no such folder; expected one with trainlist01.txt"
    # pytest runs in the checkout, the rest does not care.
    data=$(cd "$data" && pwd)
    lists=${lists:+$(cd "$lists" && pwd)}
fi

failed=()

part() { # part NAME COMMAND...: run it, its output in logs/NAME.log; a failure is noted
    local name=$1 code=0
    shift
    if [ -n "$dry_run" ]; then
        printf '%q' "$1"
        printf ' %q' "${@:2}"
        printf '\n'
        return
    fi
    printf '%s  %s ...\n' "$(date +%H:%M:%S)" "$name"
    (cd "$root" && "$@") >"$out/logs/$name.log" 2>&1 || code=$?
    [ "$code" -eq 0 ] && return
    failed+=("$name")
    printf '          failed with code %s: %s\n' "$code" "$(tail -n 1 "$out/logs/$name.log")"
}

need_gpu() { # stop unless the doctor says that this machine trains on a GPU
    local why
    command -v r3d-fast >/dev/null || stop 4 "no r3d-fast here: pip install '.[cuda11,bench]' in $root, or make .venv/.test"
    r3d-fast doctor --json >"$out/doctor.json" || true
    why=$(python - "$out/doctor.json" <<'END'
import json, sys

try:
    with open(sys.argv[1], encoding="utf-8") as file:
        found = json.load(file)
except ValueError:
    sys.exit(1)
driver, lacking = found["driver"], [check for check in found["checks"] if check["state"] != "ok" and check["to_do"]]
if driver["problem"]:
    print("no GPU:", driver["problem"] + ";", driver["to_do"] or "run this on a machine with an NVIDIA card")
elif found["device"] != "gpu":
    print("the GPU can't train:", "; ".join(" ".join(check["to_do"].split()) for check in lacking) or "r3d-fast doctor")
END
    ) || why='r3d-fast doctor gave no answer: see what it prints'
    [ -z "$why" ] || stop 4 "$why"
}

precisions='fp32 bf16 fp16'
if [ -z "$dry_run" ]; then
    mkdir -p "$out/logs" "$out/results" || stop 2 "$out: can't be made; choose another --out"
    out=$(cd "$out" && pwd)
    need_gpu
    # Tensor cores take fp16 from compute capability 7.0 on, bf16 from 8.0 on.
    arch=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["driver"]["gpus"][0]["arch"])' "$out/doctor.json")
    [ "$arch" -ge 70 ] || precisions='fp32'
    [ "$arch" -lt 70 ] || [ "$arch" -ge 80 ] || precisions='fp32 fp16'
    printf 'precisions of this GPU: %s\n' "$precisions"
fi

index="$out/data.r3dindex" results="$out/results"
part doctor r3d-fast doctor
part index r3d-fast data index "$data" ${lists:+--lists "$lists" --split "$split"} --index "$index"
part bench_index bench index --data "$data" --json "$results/index.json"
part loader_cpu bench loader throughput --data "$data" --videos "$videos" --peers \
    --json "$results/loader_cpu.json" --plot "$results/loader_cpu.png"
part loader_gpu bench loader throughput --data "$data" --videos "$videos" --peers --device gpu \
    --json "$results/loader_gpu.json" --plot "$results/loader_gpu.png"
# A command each, so that one that runs out of memory doesn't take the others with it.
for precision in $precisions; do
    for layout in NCDHW NDHWC; do
        name="train_gpu_${layout}_${precision}"
        part "$name" bench train throughput -c ucf101_r3d18 --data "$data" --videos "$videos" --device gpu \
            --precision "$precision" --layout "$layout" --json "$results/$name.json" --plot "$results/$name.png"
    done
done
part tests env R3D_REQUIRE_GPU=1 R3D_REQUIRE_PADDLE_GPU=1 python -m pytest -m gpu
if [ -n "$full" ]; then
    part train r3d-fast train -c "$root/configs/ucf101/ucf101_r3d18.yaml" -o "data.root=$data" -o "data.index=$index" \
        --run "$out/run" --resume auto
    part eval r3d-fast eval --run "$out/run" --json "$out/eval.json"
fi
part report bench report "$results"
[ -z "$dry_run" ] || exit 0
cp "$out/logs/report.log" "$out/report.md"

printf 'results: %s\nreport:  %s\n' "$results" "$out/report.md"
[ ${#failed[@]} -eq 0 ] || stop 1 "failed: ${failed[*]}; their logs are in $out/logs"
