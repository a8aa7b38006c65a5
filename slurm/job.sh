#!/usr/bin/env bash
# What every job does. slurm/schedule.py writes a script that ends in this one; by hand, from the checkout:
#   sbatch --signal=B:USR1@120 --requeue --open-mode=append [options] slurm/job.sh PROGRAM...
# such as python launch.py --config_files configs/rand_proj.yaml --run_dir runs/mine --continue
#
# Several tasks become the ranks of one mpirun, with a GPU each if the job has GPUs. On SIGUSR1, which Slurm
# sends ahead of the time limit, the run saves and the job is queued again; on SIGTERM it saves and the job ends.
#
# Environment:
#   MPIRUN        Open MPI's mpirun, the one that belongs to the program's mpi4py, with options if need be
#   VSML_REQUEUE  "no": do not queue again after SIGUSR1
set -uo pipefail

if (($# == 0)); then
    echo "slurm/job.sh: expected the program to run, such as python launch.py --config_files ..." >&2
    exit 2
fi
if [[ ! -f assign_gpu.py ]]; then
    echo "slurm/job.sh: no assign_gpu.py in $PWD; submit from the checkout, or give sbatch --chdir" >&2
    exit 2
fi

# The folder of the run tells whether it is complete; only a program that is given one can be gone on with.
run_dir=
previous=
signal=TERM # for programs of others, such as wandb's agent
for argument in "$@"; do
    [[ ${argument##*/} == launch.py ]] && signal=USR1
    [[ $previous == --run_dir || $previous == --resume ]] && run_dir=$argument
    [[ $argument == --run_dir=* || $argument == --resume=* ]] && run_dir=${argument#*=}
    previous=$argument
done

# One rank per task. Without --ntasks Slurm may still count a task for every CPU: then one per node is meant.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
tasks=()
if [[ -n ${SLURM_NTASKS:-} ]]; then
    IFS=, read -ra groups <<< "$SLURM_TASKS_PER_NODE" # such as 2(x3),1
    for group in "${groups[@]}"; do
        [[ $group =~ ^([0-9]+)(\(x([0-9]+)\))?$ ]]
        for ((i = 0; i < ${BASH_REMATCH[3]:-1}; i++)); do tasks+=("${BASH_REMATCH[1]}"); done
    done
fi
hosts=()
ranks=0
for i in "${!nodes[@]}"; do
    hosts+=("${nodes[i]}:${tasks[i]:-1}")
    ((ranks += ${tasks[i]:-1}))
done

# GPUs are shared out by assign_gpu.py. Slurm counts them; it lists them as well where it knows how.
if [[ -n ${SLURM_GPUS_ON_NODE:-} ]]; then
    unset GPU_COUNT # of the machine that submitted
    [[ -n ${CUDA_VISIBLE_DEVICES:-} ]] || export GPU_COUNT=$SLURM_GPUS_ON_NODE
    if ((SLURM_GPUS_ON_NODE > ${tasks[0]:-1})); then
        echo "slurm/job.sh: $SLURM_GPUS_ON_NODE GPUs on a node for ${tasks[0]:-1} rank(s): the others stay idle;" \
            "--ntasks-per-node=$SLURM_GPUS_ON_NODE uses all" >&2
    fi
fi
command=("$@")
if [[ -n ${CUDA_VISIBLE_DEVICES:-}${GPU_COUNT:-} ]]; then
    python=python3
    [[ ${1##*/} == python* ]] && python=$1
    command=("$python" assign_gpu.py "$@")
fi
if ((ranks > 1)); then
    # Each rank may use all cores that the job has on its node, and takes its share of them.
    export PRTE_MCA_hwloc_default_binding_policy=${PRTE_MCA_hwloc_default_binding_policy-none}
    read -ra mpirun <<< "${MPIRUN:-mpirun}"
    command=("${mpirun[@]}" -n "$ranks" --host "$(IFS=, && echo "${hosts[*]}")" "${command[@]}")
fi

# Either signal reaches launch.py as SIGUSR1: mpirun passes that one on and lets the ranks finish, while on
# SIGTERM it kills them.
child=
warned=
stopped=
told=
tell() {
    if [[ -n $child && -z $told ]]; then
        told=yes
        echo "slurm/job.sh: told to stop; a run saves after its meta step"
        kill "-$signal" "$child" 2> /dev/null
    fi
}
trap 'warned=yes; tell' USR1
trap '[[ $warned ]] || stopped=yes; tell' TERM # after the warning it is the time limit itself
saved() { ls "${run_dir:-.}/checkpoints" 2> /dev/null; }
saved_before=$(saved)
echo "slurm/job.sh: job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}, in $PWD: ${command[*]}"
"${command[@]}" &
child=$!
[[ -z $warned$stopped ]] || tell
while wait "$child"; kill -0 "$child" 2> /dev/null; do :; done # a signal ends `wait` early
wait "$child"
code=$?
# A run that the signal met before it could handle it has not begun, so has nothing to save.
if [[ -n $told && -n $run_dir ]] && ((code == 128 + $(kill -l USR1))); then code=0; fi

[[ -n $run_dir && ! -e $run_dir/complete ]] && unfinished=yes || unfinished=
if [[ $unfinished && $warned && ! $stopped && $code == 0 && ${VSML_REQUEUE:-} != no ]]; then
    if [[ $(saved) == "$saved_before" ]]; then
        echo "slurm/job.sh: nothing was saved since this start, so the job is not queued again: the time limit," \
            "or the time from the signal to it, is too short for a meta step, or for the evaluation at the end" >&2
        exit 1
    fi
    echo "slurm/job.sh: not complete; job $SLURM_JOB_ID is queued again"
    scontrol requeue "$SLURM_JOB_ID" # ends this script
    code=$?
    ((code == 0)) || echo "slurm/job.sh: it could not be; to go on: submit the same script again" >&2
fi
exit "$code"
