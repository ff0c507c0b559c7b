#!/usr/bin/env bash
# Install what is missing and run the tests. Arguments are passed on to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare demo,dev
exec python -m pytest "$@"
