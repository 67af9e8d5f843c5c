#!/bin/bash
# A grid on a Slurm allocation: a Ray head on its first node, workers on the others, the run on the first.
#   sbatch docs/slurm.sh --solvers gas,dpm,unipc --nfe 3-10 --teachers cifar10 --metrics fid --protocol paper --out /shared/runs
# Preempted or out of time: submit the same line again, it goes on from the blocks that are stored.
#SBATCH --job-name=solverbench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:INT@120
set -euo pipefail

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
address="${nodes[0]}:6379"

srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
    ray start --head --port=6379 --num-gpus="$SLURM_GPUS_ON_NODE" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep 15
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --nodelist="$node" \
        ray start --address="$address" --num-gpus="$SLURM_GPUS_ON_NODE" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
done
sleep 15

# The run itself needs a GPU, too, but a small part of one: it loads the network to name it, the workers sample.
trap 'kill -INT $run' INT
srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
    solverbench run --device cuda --engine ray --ray-address "$address" "$@" &
run=$!
wait "$run"
