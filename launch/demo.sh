#!/usr/bin/env bash
# The main job on the digits world: two processes on a CPU, or one per GPU.
# Further arguments go to `evaluator run`: bash launch/demo.sh --limit 32

# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

gpus="$(python -c 'import torch; print(torch.cuda.device_count())')"
if ((gpus > 0)); then
    launcher=(--num_processes "$gpus" --config_file "$root/launch/accelerate/gpu.yaml")
    ((gpus > 1)) || launcher=(--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no)
else
    launcher=(--config_file "$root/launch/accelerate/cpu-2.yaml")
fi
cd "$root"
exec accelerate launch "${launcher[@]}" -m evaluator run configs/digits.yaml --report "$@"
