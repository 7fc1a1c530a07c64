#!/usr/bin/env bash
# torchrun on one node of a job. Arguments: processes per node, their command.
# USR2 would end torchrun, so this script sends it to the ranks, which are torchrun's children.
processes=$1
shift
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
restarts=${SLURM_RESTART_COUNT:-0} # the port as in launch/ranks.py: jobs can share a node
port=${MASTER_PORT:-$((20000 + (SLURM_JOB_ID * 15 + restarts % 3) % 12000))}
unset MASTER_ADDR MASTER_PORT # torchrun sets them
(
    trap '' USR1 USR2
    exec torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$processes" \
        --rdzv-backend=c10d --rdzv-endpoint="$head:$port" \
        --rdzv-id="$SLURM_JOB_ID-$restarts" --no-python "$@"
) &
agent=$!
trap 'kill -USR2 $(cat /proc/"$agent"/task/*/children)' USR2
trap 'kill -TERM "$agent"' TERM
while kill -0 "$agent" 2>/dev/null; do wait "$agent"; done
wait "$agent"
