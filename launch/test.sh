#!/usr/bin/env bash
# Sets everything up and runs the checks: lint, format, types, tests. `--all` adds the slow tier.
# Further arguments go to pytest: bash launch/test.sh -k seeds

# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$root"

tier=(-m "not slow")
arguments=()
for argument in "$@"; do
    if [[ "$argument" == --all ]]; then tier=(); else arguments+=("$argument"); fi
done

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
ruff check .
ruff format --check .
mypy
python -m pytest "${tier[@]}" "${arguments[@]}"
