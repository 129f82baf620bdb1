#!/usr/bin/env bash
# Prepares an environment for the evaluator, once. Sourced by demo.sh and test.sh.
# An active virtual environment is used as it is; otherwise one is made in .venv.
# What is there already is kept; after an interruption it carries on.

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [[ -n "$candidate" ]] && "$candidate" -c \
            'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "expected Python 3.11, 3.12 or 3.13, got none; install one, or set PYTHON=/path/to/it" >&2
    return 1
}

if [[ -z "${VIRTUAL_ENV:-}" ]]; then
    if ! "$root/.venv/bin/python" -m pip --version >/dev/null 2>&1; then
        echo "making a virtual environment in $root/.venv"
        "$(find_python)" -m venv --clear "$root/.venv"
    fi
    export VIRTUAL_ENV="$root/.venv"
    export PATH="$VIRTUAL_ENV/bin:$PATH"
fi

# The stamp holds what was installed from where: when one of these changes, it is done again.
stamp="$VIRTUAL_ENV/.evaluator-setup"
wanted="$(cat "$root/pyproject.toml" "$root/launch/constraints.txt" | cksum) $root"
if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
    echo "installing the evaluator and its dependencies (some gigabytes, once)"
    python -m pip install --quiet --disable-pip-version-check \
        --constraint "$root/launch/constraints.txt" --editable "${root}[test]"
    echo "$wanted" >"$stamp"
fi
