#!/bin/bash
# Trains on all GPUs of two nodes. Where the time limit ends a job, it is queued again and goes on where it was:
#   sbatch examples/slurm/two_nodes.sh -c ucf101_r3d18 -o data.root=UCF-101 --run runs/ucf101
# `r3d-fast` has to be on the PATH, as in an environment that is active while you call sbatch.
#SBATCH --job-name=r3d-fast --output=%x-%j.log --open-mode=append
#SBATCH --nodes=2 --ntasks-per-node=1 --cpus-per-task=40 --gpus-per-node=8
#SBATCH --time=24:00:00 --requeue
# Two minutes before the limit, to every process that srun started, but not to this script.
#SBATCH --signal=TERM@120

# The first address of this node, which is the first of the two, and a port that no other job there has. With a name, or
# a port that another job has, Paddle's launcher waits for ever.
MASTER=$(hostname -I | cut -d ' ' -f 1):$((20000 + SLURM_JOB_ID % 10000))
export MASTER
# Since Slurm 22.05 srun takes one CPU a task where it is not told the number again.
# shellcheck disable=SC2016  # each node's own bash is to fill these in
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 bash -c 'exec python -m paddle.distributed.launch \
    --master "$MASTER" --host "$(hostname -I | cut -d " " -f 1)" --nnodes "$SLURM_NNODES" --rank "$SLURM_NODEID" \
    --nproc_per_node "$SLURM_GPUS_ON_NODE" --log_dir "ranks-$SLURM_JOB_ID/$SLURM_NODEID" \
    r3d-fast train --resume auto "$@"' bash "$@"
code=$?
# 75: it stopped at a signal, and saved. 15: the same, where Paddle's launcher got the signal too.
if [ "$code" -eq 75 ] || [ "$code" -eq 15 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
