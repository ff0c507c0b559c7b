#!/usr/bin/env bash
# Run the tests on every supported Python, and on the lowest allowed version of every dependency.
# Each leg has an environment of its own in a temporary folder; nothing here touches .venv.
# Usage: bash scripts/matrix.sh [LEG...] [-- PYTEST ARGUMENT...]
#   LEG: 3.11, 3.12 or 3.13 (the newest allowed versions), or lowest (Python 3.11). Default: all.
#   Without arguments for pytest the unit tests run: -m "not e2e and not deploy".
# A leg needs about 4 GB of disk and, on two cores, 15 minutes. Python versions must be on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
unset VIRTUAL_ENV CONDA_PREFIX
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

legs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case "$1" in
    3.11 | 3.12 | 3.13 | lowest) legs+=("$1") ;;
    *) echo "matrix.sh: there is no leg '$1'; use 3.11, 3.12, 3.13 or lowest" >&2; exit 2 ;;
  esac
  shift
done
[ "${1:-}" != -- ] || shift
[ ${#legs[@]} -gt 0 ] || legs=(3.11 3.12 3.13 lowest)
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(-m "not e2e and not deploy")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The versions that `lowest` installs, from the lower bounds in pyproject.toml. Dependencies of
# dependencies take their newest version: their lower bounds are not ours to test.
lowest_versions() {
  "$1" -m pip install -q uv
  "$1" -m uv pip compile -q --resolution lowest-direct --python-version 3.11 \
    --extra demo --extra dev pyproject.toml -o "$work/lowest.txt"
}

run_leg() {
  local leg="$1" version="$1" environment="$work/$1" python
  [ "$leg" != lowest ] || version=3.11
  if ! "python$version" -c '' 2>/dev/null; then
    echo "matrix.sh: python$version: not on the PATH; install it, or name the legs to run" >&2
    return 2
  fi
  "python$version" -m venv "$environment" || return
  python="$environment/bin/python"
  "$python" -m pip install -q --upgrade pip || return
  if [ "$leg" = lowest ]; then
    lowest_versions "$python" || return
    "$python" -m pip install -q --no-compile -r "$work/lowest.txt" || return
  fi
  "$python" -m pip install -q --no-compile -e ".[demo,dev]" || return
  "$python" -m pip install -q --no-compile --no-deps "byzfl==0.0.11" || return
  "$python" -m pytest "${tests[@]}" || return
  rm -rf "$environment"
}

outcomes=()
failed=0
for leg in "${legs[@]}"; do
  echo "== $leg"
  if run_leg "$leg"; then
    outcomes+=("$leg: passed")
  else
    outcomes+=("$leg: failed")
    failed=1
  fi
done
printf '%s\n' "${outcomes[@]}"
exit "$failed"
