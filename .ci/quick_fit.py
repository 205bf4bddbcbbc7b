"""A model from cells to vectors in seconds: what an installed package must be able to do."""

import scset_tools as sst

cells = sst.datasets.composition_cohort(n_samples=8, n_cells=30)
sst.MAESTRO.setup_anndata(cells, sample_key="sample")
model = sst.MAESTRO(cells, n_latent=4, n_hidden=8)
model.train(1, accelerator="cpu", enable_progress_bar=False)
samples = model.to_sample_adata()
if samples.shape != (8, 4):
    raise SystemExit(f"Expected vectors of shape (8, 4), got {samples.shape}.")
