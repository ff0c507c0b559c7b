#!/usr/bin/env bash
# Install what is missing and run the default job: eight partners, epsilon = 8, on film reviews.
# Arguments are overrides, for example: bash scripts/quickstart.sh run.rounds=4
set -euo pipefail
here="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare demo
cd "$here"
exec fedaccord simulate "$@"
