#!/bin/bash
# Embed a cohort on the GPUs of one node: sbatch embed_processes.sh model cohort.zarr samples.h5ad
#SBATCH --job-name=embed
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=02:00:00
set -euo pipefail

export OMP_NUM_THREADS=4
torchrun --standalone --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" embed_processes.py "$@"
