#!/usr/bin/env bash
# Installs Lockstep into .venv, gets Fashion-MNIST and trains the default recipe on it.
# Arguments go to train.py: ./launch/quickstart.sh --train.epochs 4
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

main() {
    install_lockstep "" "1/3 "
    if brings_own_data "$@"; then
        echo "2/3 Data as the arguments say"
    else
        echo "2/3 Getting Fashion-MNIST"
        get_fashion_mnist
    fi
    echo "3/3 Training"
    has_option --config "$@" || set -- --config "$repository/configs/fashion_mnist.yaml" "$@"
    exec "$environment/bin/python" "$repository/train.py" "$@"
}

brings_own_data() {
    local option
    for option in --data.root --data.name --config --help -h; do
        if has_option "$option" "$@"; then
            return 0
        fi
    done
    return 1
}

# has_option NAME ARGUMENTS: whether ARGUMENTS contain NAME or NAME=value.
has_option() {
    local name=$1 argument
    shift
    for argument in "$@"; do
        if [[ $argument == "$name" || $argument == "$name="* ]]; then
            return 0
        fi
    done
    return 1
}

# The trainer looks in its own places, then asks the mirrors. If these cannot be reached, the same
# files are in a Debian package, from the package manager's mirror.
get_fashion_mnist() {
    local reason code=0
    reason=$("$environment/bin/python" -c '
import sys

from trainer.config.schema import DataConfig
from trainer.data.sources.reading import prepare
from trainer.base.errors import UserError

try:
    prepare(DataConfig(name="fashion_mnist"))
except UserError as error:
    print(error)
    sys.exit(2)
') || code=$?
    case $code in
        0) return ;;
        2) ;; # not found; the reason says where it was looked for
        *) exit "$code" ;;
    esac
    echo "    No mirror helped; taking the same files from Debian's package"
    if ! "$repository/launch/fetch_debian_package.sh"; then
        stop "$reason"
    fi
}

main "$@"
