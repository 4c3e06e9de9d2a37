#!/bin/bash
# Several seeds of a run, each with its test, on one GPU each:
#   sbatch --array=0-4 slurm_seeds.sh --config pix2pix_facades.yaml
#   gancompress compare --output runs --only_report          # when they are done
# RUNS=runs/wide sbatch ... puts them elsewhere. Each element of the array is started again and goes on by
# itself, as in slurm.sh. For several experiments: gancompress compare --launcher slurm.
#SBATCH --job-name=gancompress --array=0-2
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8
#SBATCH --time=24:00:00 --output=slurm-%A_%a.out
#SBATCH --requeue --open-mode=append --signal=USR1@300
set -euo pipefail
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
seed="$SLURM_ARRAY_TASK_ID"
folder="${RUNS:-runs/seeds}/seed_$seed"
srun python -m lightning_gancompress fit "$@" \
  --seed_everything="$seed" --trainer.default_root_dir="$folder" --trainer.devices=1
srun python -m lightning_gancompress test --ckpt_path="$folder/checkpoints/last.ckpt" --trainer.devices=1
