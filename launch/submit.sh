#!/usr/bin/env bash
# Submits one evaluation to SLURM: workers, and a job that computes the numbers after them.

set -euo pipefail

usage() {
    cat <<'END'
usage: launch/submit.sh [options] CONFIG [-- arguments of `evaluator run`]

Submits workers for CONFIG, and after them a job that aggregates and writes the report. Prints the
two job ids. The same command again continues the run, or adds workers to it.

what runs
  --output RUN        run directory; default: as CONFIG says (needed with further arguments)
  --tasks N           independent workers, a job array of N tasks (default 4)
  --nodes N           one launch over N nodes instead of an array
  --gpus N            GPUs of each task or node, one process each (default 1; 0: on CPUs)
  --processes N       processes of each task or node, where they are not as many as GPUs
  --cpus N            CPU cores of each process
  --restarts N        how often a job may be started again (default 100)
  --environment FILE  sourced first by every job: modules, virtual environment, HF_HOME
  --logs FOLDER       where the jobs' output goes (default RUN.logs)

where it runs, as sbatch has it
  --partition P  --account A  --qos Q  --time T  --mem M
  --aggregate-partition P   of the aggregating job, which needs no GPU (default: the same)
  --sbatch OPTION           any other option of sbatch, for the workers; may be repeated

  --dry-run           print the commands, submit nothing
  --help              this text
END
}

refuse() {
    echo "launch/submit.sh: $1 (--help lists the options)" >&2
    exit 2
}

launch="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
config='' run='' logs='' tasks=4 nodes='' gpus=1 processes='' cpus='' dry=''
place=() aggregate_place=() extra=()

while (($#)); do
    case "$1" in
        --help | -h) usage && exit 0 ;;
        --dry-run) dry=1 && shift && continue ;;
        --) shift && break ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --*) (($# > 1)) || refuse "expected a value after $1, got none" ;;
        *)
            [[ -z "$config" ]] || refuse "expected one CONFIG, got '$config' and '$1'"
            config="$1" && shift && continue
            ;;
    esac
    case "$1" in
        --output) run="$2" ;;
        --tasks) tasks="$2" ;;
        --nodes) nodes="$2" ;;
        --gpus) gpus="$2" ;;
        --processes) processes="$2" ;;
        --cpus) cpus="$2" ;;
        --restarts) export EVALUATOR_RESTARTS="$2" ;;
        --environment) export EVALUATOR_ENVIRONMENT="$2" ;;
        --logs) logs="$2" ;;
        --partition) place+=("$1=$2") aggregate_place=("$1=$2" "${aggregate_place[@]}") ;;
        --account | --qos) place+=("$1=$2") aggregate_place=("$1=$2" "${aggregate_place[@]}") ;;
        --time | --mem) place+=("$1=$2") ;;
        --aggregate-partition) aggregate_place+=("--partition=$2") ;;
        --sbatch) extra+=("$2") ;;
        *) refuse "unknown option $1" ;;
    esac
    shift 2
done

[[ -n "$config" ]] || refuse "expected a CONFIG, got none"
[[ -f "$config" ]] || refuse "$config: expected a configuration file, got nothing there"
for number in "$tasks" "$gpus" "${nodes:-1}" "${processes:-1}" "${cpus:-1}" "${EVALUATOR_RESTARTS:-1}"; do
    [[ "$number" =~ ^[0-9]+$ ]] || refuse "expected a number, got '$number'"
done
((tasks > 0)) || refuse "--tasks: expected at least 1, got 0"
if [[ -n "${EVALUATOR_ENVIRONMENT:-}" ]]; then
    [[ -r "$EVALUATOR_ENVIRONMENT" ]] || refuse "$EVALUATOR_ENVIRONMENT: expected a file to source"
    EVALUATOR_ENVIRONMENT="$(realpath "$EVALUATOR_ENVIRONMENT")"
    set +eu # a site's own files may not bear them
    # shellcheck source=/dev/null
    source "$EVALUATOR_ENVIRONMENT"
    set -eu
fi
if [[ -z "$run" ]]; then
    (($# == 0)) || refuse "expected --output RUN together with arguments of evaluator run"
    # Says what is wrong with CONFIG now, and not when the jobs start.
    run="$(python - "$config" <<'END'
import sys
from pathlib import Path

from evaluator.config import load_config
from evaluator.errors import ConfigError

try:
    config = load_config(Path(sys.argv[1]))
except ConfigError as error:
    raise SystemExit(f"error: {error}") from None
print(Path(config.output) / config.name)
END
)" || exit 2
fi
logs="${logs:-$run.logs}"

each="${processes:-$((gpus > 0 ? gpus : 1))}"
options=("${place[@]}")
((gpus == 0)) || options+=("--gpus-per-node=$gpus")
if [[ -n "$nodes" ]]; then
    export EVALUATOR_PROCESSES="$each"
    # One launcher a node has the cores of all its processes.
    [[ -z "$cpus" ]] || options+=("--cpus-per-task=$((cpus * each))")
    options+=("--nodes=$nodes" "--output=$logs/%x-%j.log")
    script="$launch/slurm-multinode.sbatch"
else
    [[ -z "$cpus" ]] || options+=("--cpus-per-task=$cpus")
    options+=("--ntasks-per-node=$each" "--array=0-$((tasks - 1))" "--output=$logs/%x-%A_%a.log")
    script="$launch/slurm-array.sbatch"
fi

submit() {
    if [[ -n "$dry" ]]; then
        { printf '%q ' sbatch "$@" && echo; } >&2
        echo JOB
    else
        sbatch --parsable --export=ALL "$@" | cut -d ';' -f 1
    fi
}

[[ -n "$dry" ]] || mkdir -p "$logs"
workers="$(submit "${options[@]}" "${extra[@]}" "$script" "$config" "$run" "$@")"
echo "workers: job $workers, into $run, output in $logs"
numbers="$(submit "${aggregate_place[@]}" "--dependency=afterany:$workers" \
    "--output=$logs/%x-%j.log" "$launch/slurm-aggregate.sbatch" "$run")"
echo "numbers: job $numbers, after them"
