# Sourced by quickstart.sh, test.sh and CI: provides a Python environment with fedaccord in it.
# Usage: prepare EXTRAS   (for example: prepare demo,dev)
prepare() {
  cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
  # A federation has many processes, and without bytecode each would compile what it imports again.
  unset PYTHONDONTWRITEBYTECODE
  if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
    local python=""
    for candidate in python3 python3.11 python3.12 python3.13 python; do
      if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
        python=$candidate
        break
      fi
    done
    if [ -z "$python" ]; then
      echo "fedaccord needs Python 3.11, 3.12 or 3.13 on the PATH" >&2
      exit 2
    fi
    if [ ! -x .venv/bin/python ] && ! "$python" -m venv .venv; then
      echo "fedaccord needs Python's venv module (Debian: apt-get install python3-venv)" >&2
      exit 2
    fi
    # shellcheck disable=SC1091
    . .venv/bin/activate
  fi
  if ! python -m pip --version >/dev/null 2>&1; then
    echo "fedaccord needs pip in this environment (python -m ensurepip)" >&2
    exit 2
  fi
  # Skip the installation if this pyproject.toml was installed before with these extras or more.
  local prefix mark stamp
  prefix="$(python -c 'import sys; print(sys.prefix)')"
  mark="$(cat pyproject.toml scripts/environment.sh | cksum) $PWD"
  for stamp in "$prefix"/.fedaccord-*; do
    case ",${stamp##*/.fedaccord-}," in
      *",$1,"*) [ "$(cat "$stamp" 2>/dev/null)" != "$mark" ] || return 0 ;;
    esac
  done
  echo "installing fedaccord[$1] (a few minutes the first time)"
  # Most installed modules are never imported; Python compiles the others on first import.
  if ! python -m pip install -q --no-compile -e ".[$1]"; then
    echo "installing failed: pip's message above says why (is a package index reachable?)" >&2
    exit 2
  fi
  case ",$1," in
    *,dev,*)
      # The reference implementation of robust rules. Its requirements include torchvision, which is
      # not needed.
      python -m pip install -q --no-compile --no-deps "byzfl==0.0.11" || exit 2 ;;
  esac
  echo "$mark" >"$prefix/.fedaccord-$1"
}
