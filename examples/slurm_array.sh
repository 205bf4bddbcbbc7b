#!/bin/bash
# One job per method: sbatch examples/slurm_array.sh cohort.h5ad
#SBATCH --job-name=scset-tools
#SBATCH --array=0-3
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

cohort=${1:?usage: sbatch slurm_array.sh cohort.h5ad}
methods=(mean kmeans_fractions maestro scset)
method=${methods[$SLURM_ARRAY_TASK_ID]}
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

mkdir -p results
arguments=(--sample-key sample --output "results/$method.h5ad" --log "results/$method.jsonl" --overwrite)
case $method in
    maestro | scset) # goes on where it stopped when the job is requeued
        arguments+=(--checkpoint-dir "checkpoints/$method" --accelerator auto) ;;
esac
scset-tools fit "$method" "$cohort" "${arguments[@]}"
scset-tools probe "results/$method.h5ad" disease --groups-key donor --output "results/$method.csv" --overwrite
