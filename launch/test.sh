#!/usr/bin/env bash
# Runs the whole test suite in .venv, made where need be, on two cores: a file is one worker's, and
# the last ones are short. Arguments go to pytest; -n 0 does without workers:
# ./launch/test.sh tests/launch -x -n 0
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

install_for_tests
cd -- "$repository"
exec "$environment/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
