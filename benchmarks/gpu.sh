#!/usr/bin/env bash
# What waits for a GPU, in parts of under four minutes. A part that was stopped goes on when it is
# called again; what is finished is not done twice. Results go to data/results/gpu.
#
#   benchmarks/gpu.sh [PART…]          tests, throughput, cost, main; all of them if none is named
#   benchmarks/gpu.sh --list [PART…]   only prints the commands
#   DRY=1 benchmarks/gpu.sh [PART…]    the same in small on the CPU, into a folder that is thrown away
#
# PYTHON: the interpreter (python). RUNS: where the runs of `main` are kept (runs/gpu). `main` reads
# data/cifar100-50, which data/results/README.md tells how to make.
set -euo pipefail
cd "$(dirname "$0")/.."
LIMIT=230 # seconds of a part
python=${PYTHON:-python} list=
if [ "${1:-}" = --list ]; then
  list=1
  shift
fi
if [ -n "${DRY:-}" ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
  runs=$out/runs
  export CATCHUP_GPU_TESTS=cpu
  load="--width 4 --image-size 16 --batch 8 --classes 10 --rounds 2 --device cpu"
  timed="$load --steps 1 --workers 0" costed="$load --steps 1"
  methods="baseline catchup"
  trained="--data digits --subset 3 --width 4 --epochs 2 --batch-size 15 --lr 0.05 --device cpu --seeds 0"
else
  out=data/results/gpu runs=${RUNS:-runs/gpu}
  load="--width 64 --precision bf16"
  timed="$load --batch 128 --steps 40 --rounds 7" costed="$load --rounds 9"
  methods=$($python -c 'from catchup import MIXERS; print(*MIXERS)')
  trained="--data folder:data/cifar100-50 --width 64 --epochs 200 --batch-size 100 --lr 0.1"
  trained+=" --validate-every 20 --precision bf16 --seeds 0 1 2"
fi

# Runs a command for at most LIMIT seconds. FILE, if named, appears when it has ended well: a part
# with its file is done.
part() { # FILE|- command…
  local file=$1 code=0
  shift
  if [ -n "$list" ]; then
    echo "$*"
    return
  fi
  if [ "$file" != - ] && [ -f "$file" ]; then
    echo "done: $file"
    return
  fi
  echo "$ $*"
  timeout --signal=TERM "$LIMIT" "$@" || code=$?
  if [ $code = 124 ] || [ $code = 143 ]; then
    echo "stopped after $LIMIT s: call it again" >&2
  fi
  [ $code = 0 ] || exit $code
  if [ "$file" != - ] && [ -f "$file.part" ]; then
    mv "$file.part" "$file"
  fi
}

tests() {
  part - "$python" -m pytest -q -m gpu tests
}

throughput() { # beside the plain loop and the limit
  part "$out/throughput.json" "$python" -m benchmarks.throughput $timed --parts throughput mix \
    --out "$out/throughput.json.part"
}

cost() { # the step of every method beside the plain one, a file each
  for method in $methods; do
    part "$out/cost-$method.json" "$python" -m benchmarks.method_cost $costed --methods "$method" \
      --out "$out/cost-$method.json.part"
  done
}

main() { # both side by side on one GPU
  part "$out/main-64.json" "$python" -m catchup.cli compare --methods baseline catchup $trained \
    --tests clean,fgsm,feature-drop --engine pool:jobs=2 --out "$runs/main-64"
  [ -n "$list" ] || [ -f "$out/main-64.json" ] || cp "$runs/main-64/results.json" "$out/main-64.json"
}

[ -n "$list" ] || mkdir -p "$out"
[ $# -gt 0 ] || set -- tests throughput cost main
for name in "$@"; do
  case $name in
    tests | throughput | cost | main) "$name" ;;
    *)
      echo "unknown part '$name': tests, throughput, cost or main" >&2
      exit 2
      ;;
  esac
done
