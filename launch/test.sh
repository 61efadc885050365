#!/usr/bin/env bash
# Runs the whole test suite in .venv, made where need be. Arguments go to pytest:
# ./launch/test.sh tests/launch -x
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

install_for_tests
cd -- "$repository"
exec "$environment/bin/python" -m pytest "$@"
