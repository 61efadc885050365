#!/usr/bin/env bash
# Runs the whole test suite in .venv (created if missing) on two cores: each file runs on one worker,
# and the last files are short. Tests often wait, for a launcher or a timeout, so that three workers
# keep two cores busy. Arguments go to pytest; -n 0 uses no workers:
# ./launch/test.sh tests/launch -x -n 0
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

install_for_tests
cd -- "$repository"
exec "$environment/bin/python" -m pytest -n 3 --dist loadfile --no-loadscope-reorder "$@"
