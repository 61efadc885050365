#!/usr/bin/env bash
# Trains on the CPU with N processes of one thread each:
# ./launch/cpu_processes.sh 2 --config configs/fashion_mnist.yaml
set -euo pipefail

repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 N --config FILE [ARGUMENTS]   N: how many processes, found '${1:-}'" >&2
    exit 2
fi
count=$1
shift
python=$repository/.venv/bin/python
[[ -x $python ]] || python=python3

# Without ACCELERATE_USE_CPU Accelerate starts N runs of one process each, or uses the GPUs if there
# are any. --standalone finds a free port.
ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 exec "$python" -m torch.distributed.run \
    --standalone --nproc_per_node "$count" "$repository/train.py" \
    --processes "$count" --threads 1 "$@"
