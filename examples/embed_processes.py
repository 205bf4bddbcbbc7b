"""Embed a cohort with several processes, one for each GPU; each takes some samples and the first one writes.

    torchrun --nproc-per-node 4 embed_processes.py model cohort.zarr samples.h5ad

On a cluster: embed_processes.sh. Without torchrun it is an ordinary script of one process.
"""

from __future__ import annotations

import os
import sys

import torch

import scset_tools as sst


def main(model_dir: str, store: str, out: str) -> None:
    """Embed all samples of a store.

    Parameters
    ----------
    model_dir
        Folder of a saved MAESTRO.
    store
        Written by ``scset-tools prepare``.
    out
        h5ad file to write.
    """
    model = sst.MAESTRO.load(model_dir, adata=False)
    if torch.cuda.is_available():
        model.to_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    cells = sst.pp.read_store(store)
    with sst.model.share_inference() as rank:
        samples = model.to_sample_adata(cells)
        if rank == 0:
            samples.write_h5ad(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
