#!/bin/bash
# A run on one machine of a Slurm cluster, or on several:
#   sbatch slurm.sh --config pix2pix_facades.yaml
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 slurm.sh --config pix2pix_facades.yaml
# One process per GPU. data.batch_size is that of a process: 4 GPUs with 8 are a step of 32 images.
# A job that is pre-empted, or whose time is over, is started again and goes on from checkpoints/last.ckpt.
#SBATCH --job-name=gancompress
#SBATCH --nodes=1 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=8
#SBATCH --time=24:00:00 --output=slurm-%j.out
#SBATCH --requeue --open-mode=append --signal=USR1@300
set -euo pipefail
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"   # which srun no longer takes from the job
srun --kill-on-bad-exit=1 python -m lightning_gancompress fit "$@" \
  --trainer.devices="$SLURM_NTASKS_PER_NODE" --trainer.num_nodes="$SLURM_NNODES"
