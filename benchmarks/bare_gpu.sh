#!/usr/bin/env bash
# The GPU check on a bare machine without network: Python 3.12, torch with CUDA, NumPy, SciPy, e3nn,
# torch-geometric, numba, pandas, matplotlib, tensorboard; no fairchem-core.
#
#   bash benchmarks/bare_gpu.sh prepare [DATA]   where there is a network: wheels, and a folder of
#                                                data for `ablate`, to .gpu/
#   bash benchmarks/bare_gpu.sh run [OPTIONS]    there, with the project and .gpu/ copied: the check
#   bash benchmarks/bare_gpu.sh ablate SECONDS PLAN [OPTIONS]
#                                                there: runs of an ablation plan (seed by seed) until
#                                                the time is over, and the table of those that ended
#
# Variables: PYTHON (default python3), OUT (where it writes, default gpu-report).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wheels=.gpu/wheels
most_mib=60

# What such a machine lacks. Releases are fixed where another one does not fit:
# wandb 0.28 and later need OpenTelemetry, before 0.26 protobuf of before 7.
missing=(
  fairchem-core==1.10.0 'ase>=3.25,<3.26' 'lmdb<2' 'wandb==0.27.*' sentry-sdk
  annotated-types bibtexparser click cloudpickle hydra-core latexcodec monty mypy-extensions
  omegaconf orjson palettable platformdirs pymatgen-core pyre-extensions ruamel.yaml spglib submitit
  tabulate torchtnt tqdm typing-inspect typing-inspection uncertainties
)
with_needs=(pydantic)            # its core has to be of one release
without_wheel=(antlr4-python3-runtime==4.9.3)

usage() { sed -n '2,12p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }

download() {
  local target=(--only-binary=:all: --python-version 3.12 --implementation cp) version
  for version in 2_39 2_35 2_34 2_31 2_28 2_27 2_26 2_24 2_17; do
    target+=(--platform "manylinux_${version}_x86_64")
  done
  target+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
  "$python" -m pip download -q "${target[@]}" -d "$wheels" "$@"
}

prepare() {
  rm -rf "$wheels"; mkdir -p "$wheels"
  download --no-deps "${missing[@]}"
  download "${with_needs[@]}"
  "$python" -m pip wheel -q --no-deps -w "$wheels" "${without_wheel[@]}"
  echo "wheels: $(ls "$wheels" | wc -l), $(mib "$wheels") MiB"
  if [ -n "${1:-}" ]; then
    tar -cJf .gpu/data.tar.xz -C "$(dirname "$1")" "$(basename "$1")"
    echo "data: $1"
  fi
  local project all
  project=$(tracked_mib); all=$((project + $(mib .gpu)))
  echo "project: $project MiB; with all of .gpu: $all MiB of at most $most_mib"
  if ((all > most_mib)); then
    echo "error: $all MiB are more than $most_mib; see what in .gpu is large (du -a .gpu)" >&2
    exit 1
  fi
}

mib() { du -sm "$1" | cut -f1; }

# Of the files that git knows; without git of all but .gpu, environments and output.
tracked_mib() {
  local bytes
  if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    bytes=$(git ls-files -z | xargs -0 du -cb 2>/dev/null | tail -1 | cut -f1)
  else
    bytes=$(du -sb --exclude=.gpu --exclude='.venv*' --exclude=.git --exclude=gpu-report . | cut -f1)
  fi
  echo $((bytes / 1048576 + 1))
}

run() {
  local status=0
  install
  "$python" -m benchmarks gpu --out "$out" "$@" || status=$?
  return "$status"
}

ablate() {
  if [ $# -lt 2 ]; then usage; fi
  local seconds=$1 words
  shift
  install
  if [ -f .gpu/data.tar.xz ]; then mkdir -p data && tar -xJf .gpu/data.tar.xz -C data; fi
  words=("$python" -c 'import sys; from dens_ocp.tools.cli import main; sys.exit(main())' ablate)
  timeout -s TERM -k 20 "$seconds" "${words[@]}" "$@" --out "$out" || echo "ended with status $?"
  "${words[@]}" "$@" --out "$out" --collect-only
}

# The wheels, for this process and those that it starts.
install() {
  out=${OUT:-gpu-report}
  if ! compgen -G "$wheels/*.whl" >/dev/null; then
    echo "error: no wheels in $wheels; run 'bash benchmarks/bare_gpu.sh prepare' where there is a" \
      "network, and copy .gpu with the project" >&2
    exit 2
  fi
  site=$(mktemp -d)  # not local: the trap runs after this function
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" \
    "$wheels"/*.whl
  export PYTHONPATH="$site:$PWD/src:$PWD" PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore WANDB_MODE=disabled
  say_what_is_missing
  mkdir -p "$out"
}

# All modules that the check needs and that are not there, in one message.
say_what_is_missing() {
  "$python" - <<'END'
import importlib.util
import sys

names = """ase bibtexparser click cloudpickle e3nn fairchem.core hydra jinja2 lmdb matplotlib numba
numpy omegaconf orjson pandas pydantic pymatgen.core requests scipy submitit tabulate tensorboard torch
torch_geometric torchtnt tqdm wandb yaml""".split()


def is_there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


missing = [name for name in names if not is_there(name)]
if missing:
    sys.exit(f"error: this machine has no {', '.join(missing)}; add them to the lists in "
             "benchmarks/bare_gpu.sh and prepare again")
END
}

python=${PYTHON:-python3}
case "${1:-}" in
  prepare) shift; prepare "$@" ;;
  run | ablate) "$@" ;;
  *) usage ;;
esac
