#!/bin/bash
# Trains on all GPUs of one node. Where the time limit ends a job, it is queued again and goes on where it was:
#   sbatch examples/slurm/one_node.sh -c ucf101_r3d18 -o data.root=UCF-101 --run runs/ucf101
# `r3d-fast` has to be on the PATH, as in an environment that is active while you call sbatch.
#SBATCH --job-name=r3d-fast --output=%x-%j.log --open-mode=append
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=40 --gpus-per-node=8
#SBATCH --time=24:00:00 --requeue
# Two minutes before the limit, to this script alone. Long enough for a step and a checkpoint. Not TERM, which scancel
# sends: a cancelled job is not to be queued again.
#SBATCH --signal=B:USR1@120

r3d-fast train --nproc "$SLURM_GPUS_ON_NODE" --resume auto "$@" &
train=$!
trap 'asked=yes; kill -TERM "$train"' USR1
wait "$train"
code=$?
if [ -n "${asked-}" ]; then # the signal ended the first wait
    wait "$train"
    code=$?
fi
# 75: it stopped at the signal, and saved.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
