#!/usr/bin/env bash
# Build the wheel, install it away from this folder, and run it from an empty one: a module or a
# file of conf/ that is not packaged is noticed here.
# Usage: bash scripts/wheel.sh, in an environment with fedaccord[dev], whose dependencies it uses.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# From a copy: setuptools leaves build/ in the folder that it builds, and packages what is in it.
mkdir "$work/source" "$work/empty"
tar --exclude-vcs --exclude=./.venv --exclude=./build --exclude=./dist --exclude=./outputs \
  --exclude=./multirun --exclude='__pycache__' --exclude='*.egg-info' -cf - . |
  tar -xf - -C "$work/source"
python -m pip wheel -q --no-deps --no-build-isolation -w "$work/dist" "$work/source"

# The dependencies come from the environment that this runs in; its editable install of fedaccord does
# not: Python reads no .pth file of a folder that was itself added by one.
python -m venv --without-pip "$work/clean"
python - "$work/clean/lib/python"*/site-packages <<'PY'
import sys, sysconfig
from pathlib import Path
Path(sys.argv[1], "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
PY
python -m pip --python "$work/clean/bin/python" install -q --no-deps --no-index \
  --ignore-installed "$work"/dist/fedaccord-*.whl

cd "$work/empty"
env -u PYTHONPATH "$work/clean/bin/fedaccord" --help >/dev/null
env -u PYTHONPATH "$work/clean/bin/python" - "$work/source" <<'PY'
import sys
from importlib.metadata import distribution
from pathlib import Path

from scripts import compose

source = Path(sys.argv[1])
assert not Path(compose.__file__).is_relative_to(source), compose.__file__
assert "clean" in Path(compose.__file__).parts, compose.__file__
# Every file of a package that is in the wheel at all.
files = {str(file) for file in distribution("fedaccord").files}
packages = {file.split("/")[0] for file in files if file.endswith(".py")}
expected = {
    path.relative_to(source).as_posix()
    for package in packages
    for path in (source / package).rglob("*")
    if path.suffix in {".py", ".yaml"}
}
missing = sorted(expected - files)
assert not missing, f"not in the wheel: {missing}"
assert not packages & {"tests", "bench"}, packages
config = compose.compose_config(["strategy=recommended", "privacy.epsilon=3"])
assert config.privacy.epsilon == 3.0
print(f"the wheel has {len(files)} files and composes a configuration")
PY
