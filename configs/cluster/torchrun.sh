#!/bin/bash
# A run on several machines without a scheduler: on each of them, with NODE_RANK=0 on the first,
#   NODES=2 NODE_RANK=0 GPUS=4 MASTER_ADDR=host0 ./torchrun.sh --config pix2pix_facades.yaml
# One process per GPU. data.batch_size is that of a process: 8 GPUs with 8 are a step of 64 images.
# Started again, on all machines, it goes on from checkpoints/last.ckpt, which each reads from its own disk.
set -euo pipefail
torchrun --nnodes="${NODES:-1}" --node-rank="${NODE_RANK:-0}" --nproc-per-node="${GPUS:-1}" \
  --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${MASTER_PORT:-29500}" \
  -m lightning_gancompress fit "$@" \
  --trainer.devices="${GPUS:-1}" --trainer.num_nodes="${NODES:-1}" --ckpt_path=last
