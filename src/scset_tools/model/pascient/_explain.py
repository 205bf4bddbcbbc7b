"""Attributions of PaSCient: which cells, genes and cell types move the score of a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse

from scset_tools import _checks, _keys, _labels
from scset_tools._checks import require_choice
from scset_tools.data._sparse import SparseRows
from scset_tools.data._splitter import sample_loader
from scset_tools.model._attributions import METHODS
from scset_tools.model._inference import MAX_CELLS
from scset_tools.model._mixin import ModelMixin
from scset_tools.model._sample_attributions import SampleAttributions, write_sample_attributions
from scset_tools.model.pascient._tables import AttributionTables
from scset_tools.nn import LinearAttributions, attribute_through_linear, sample_of_cell

if TYPE_CHECKING:
    from scset_tools.data._batch import SampleBatch
    from scset_tools.data._dataset import SampleDataset
    from scset_tools.model.pascient._targets import Target

MAX_DOUBLINGS = 4
"""How often the number of steps is doubled at most."""


class ExplainMixin(ModelMixin):
    """``get_attributions``, ``annotate_attributions`` and ``get_attribution_matrix``."""

    def get_attributions(
        self,
        target: str,
        *,
        reference: str | None = None,
        label_key: str | None = None,
        adata: AnnData | None = None,
        samples: Sequence[str] | None = None,
        groupby: str | None = None,
        method: Literal["integrated_gradients", "gradient_x_input", "attention"] = "integrated_gradients",
        baseline: Literal["zeros", "reference"] = "zeros",
        reduce: Literal["mean", "sum"] = "mean",
        n_cells: int | None = 1_500,
        n_steps: int = 50,
        tolerance: float = 0.01,
        batch_size: int = 8,
    ) -> SampleAttributions:
        """What moves the score of samples towards a class: by cell, gene and type of cell (PaSCient 2.3).

        Integrated gradients are taken in the output of the first, linear layer, and carried back to the genes once: exact,
        and cells x genes are never held per step. They explain the model, and are worth as much as its predictions of
        held-out samples: see :meth:`evaluate`, and :func:`scset_tools.model.trust_attributions` for how stable they are.

        Parameters
        ----------
        target
            Class whose logit is explained; for an ordinal or continuous target the name of its column.
        reference
            Class whose logit is subtracted, for instance ``"healthy"``. With two classes the difference is the log-odds.
        label_key
            Column of the target, where several have a class of this name. Default: the first that has it.
        adata
            Cells to attribute to. Default: the registered AnnData.
        samples
            Names of samples. Default: those labelled with the class, as in the paper; all where no label says so.
        groupby
            Column of ``adata.obs`` with the type of each cell.
        method
            ``"integrated_gradients"``, ``"gradient_x_input"`` (first order), or ``"attention"``: the weight of each cell in the
            aggregation, and the weighted input for genes.
        baseline
            Where the path begins: ``"zeros"``, or the mean cell of the ``reference`` samples (all samples if there is none).
        reduce
            ``"mean"`` averages over cells and genes (the paper), ``"sum"`` adds up, so that cells sum to the score.
        n_cells
            Most cells of a sample, drawn from a seed. None: all.
        n_steps
            Gradients to average.
        tolerance
            While the completeness error of a batch of samples is above this, their steps are doubled, up to 16 times
            ``n_steps``: the score has kinks (PReLU) that more steps resolve. What is left is reported.
        batch_size
            Number of samples at a time.

        Returns
        -------
        :class:`~scset_tools.model.SampleAttributions`.

        Raises
        ------
        ValueError
            If target or reference are unknown or the same, or no sample is left.
        """
        require_choice("method", method, METHODS)
        require_choice("baseline", baseline, ("zeros", "reference"))
        require_choice("reduce", reduce, ("mean", "sum"))
        target, reference = _labels.name_of(target), None if reference is None else _labels.name_of(reference)
        chosen, which, against = self._explained(target, reference, label_key)
        self._check_if_trained(message=f"This {type(self).__name__} is not trained: it explains random weights.")
        cells = self._validate_anndata(adata)
        try:
            group, names = _checks.group_codes(cells, groupby)
            dataset = self._dataset(cells, n_cells)
            positions = self._explained_samples(cells, dataset, samples, chosen, target)
            start = None
            if baseline == "reference" and method != "attention":
                start = self._mean_cell(cells, dataset, chosen, reference, batch_size)
            tables = AttributionTables(dataset, positions, group, n_groups=len(names), n_genes=self._n_input)
            for batch, found in self._explain(
                dataset, positions, chosen, (which, against), method, start, (n_steps, tolerance), batch_size
            ):
                tables.add(batch, found)
        finally:
            self._release(cells)
        return tables.result(
            mean=reduce == "mean",
            cells=cells.obs_names,
            genes=pd.Index(self.get_var_names()),
            groups=names,
            sample_key=self._sample_key,
            target=target,
            reference=reference,
            label_key=chosen.name,
            method=method,
            baseline=baseline,
            reduce=reduce,
        )

    def annotate_attributions(
        self, target: str, *, adata: AnnData | None = None, key_added: str | None = None, **kwargs: Any
    ) -> None:
        """Write the attributions to a class; see :meth:`get_attributions`.

        Parameters
        ----------
        target
            Class that is explained.
        adata
            Cells to annotate. Default: the registered AnnData.
        key_added
            Default: ``"pascient_attribution_<label>_<target>"``.
        **kwargs
            Arguments of :meth:`get_attributions`.

        Writes
        ------
        ``obs[key_added]`` (cells), ``var[key_added]`` (genes, mean over samples), and with ``groupby`` ``varm[key_added]``
        (genes x types) and ``uns[key_added]`` (samples x types), float32; ``uns[key_added + "_scores"]``: scores and
        completeness. Where the model reads ``obsm``, features go to ``uns[key_added + "_genes"]``.
        """
        cells = self._cells_of(self.adata if adata is None else adata)
        found = self.get_attributions(target, adata=cells, **kwargs)
        name = key_added or _keys.attribution_name(self.name, found.label_key, found.target)
        _keys.remember(cells.uns, [name])
        write_sample_attributions(cells, found, _keys.key(name))

    def get_attribution_matrix(
        self,
        target: str,
        *,
        samples: Sequence[str] | str,
        reference: str | None = None,
        label_key: str | None = None,
        adata: AnnData | None = None,
        n_cells: int | None = 1_500,
        n_steps: int = 50,
    ) -> AnnData:
        """Attributions of every gene in every cell of some samples, from a baseline of zeros.

        Parameters
        ----------
        target, reference, label_key, adata, n_cells, n_steps
            As for :meth:`get_attributions`.
        samples
            Names of samples.

        Returns
        -------
        AnnData of the drawn cells x genes with ``obs`` of these cells; ``X`` is sparse if the input is: zero where it is zero.
        """
        target, reference = _labels.name_of(target), None if reference is None else _labels.name_of(reference)
        chosen, which, against = self._explained(target, reference, label_key)
        self._check_if_trained(message=f"This {type(self).__name__} is not trained: it explains random weights.")
        cells = self._validate_anndata(adata)
        blocks, rows = [], []
        try:
            dataset = self._dataset(cells, n_cells)
            positions = dataset.index.positions([samples] if isinstance(samples, str) else samples)
            for batch, found in self._explain(
                dataset, positions, chosen, (which, against), METHODS[0], None, (n_steps, 0.01), 8
            ):
                rows.append(batch.rows.cpu().numpy())
                values = found.values().float().cpu()
                if isinstance(found.x, SparseRows):
                    blocks.append(_to_scipy(found.x.to("cpu").with_values(values)))
                else:
                    blocks.append(values.numpy())
        finally:
            self._release(cells)
        x = sparse.vstack(blocks, format="csr") if sparse.issparse(blocks[0]) else np.concatenate(blocks)
        var = pd.DataFrame(index=pd.Index(self.get_var_names()))
        return AnnData(x, obs=cells.obs.iloc[np.concatenate(rows)].copy(), var=var)

    # ---- steps

    def _explained(
        self, target: str, reference: str | None, label_key: str | None
    ) -> tuple[Target, int | None, int | None]:
        """The head that knows the class, and the numbers of the class and of the reference."""
        targets = list(self._require_targets()) if label_key is None else [self._target(label_key)]
        for chosen in targets:
            if chosen.kind != "class" and target == chosen.name:
                if reference is not None:
                    msg = f"{target!r} is {chosen.kind}: it has one score, and no reference class ({reference!r})."
                    raise ValueError(msg)
                return chosen, None, None
            if chosen.kind == "class" and target in chosen.classes:
                if reference is None:
                    return chosen, chosen.classes.index(target), None
                if reference not in chosen.classes:
                    msg = f"reference={reference!r} is not a class of {chosen.name!r}: {_checks.first(chosen.classes, 20)}."
                    raise ValueError(msg)
                if reference == target:
                    msg = f"target and reference are both {target!r}: their difference is zero. Name another reference."
                    raise ValueError(msg)
                return chosen, chosen.classes.index(target), chosen.classes.index(reference)
        known = {t.name: list(t.classes[:20]) if t.kind == "class" else f"{t.kind}: name the column" for t in targets}
        msg = f"target={target!r} is not a class of this model. Targets: {known}."
        raise ValueError(msg)

    def _explained_samples(
        self, cells: AnnData, dataset: SampleDataset, samples: Sequence[str] | None, chosen: Target, target: str
    ) -> np.ndarray:
        positions = dataset.index.positions(samples)
        if samples is None and chosen.kind == "class" and chosen.name in cells.obs:
            is_of_class = self._of_class(cells, dataset, chosen, target)
            positions = np.flatnonzero(is_of_class) if is_of_class.any() else positions
        if not len(positions):
            msg = "No sample to attribute to: `samples` is empty."
            raise ValueError(msg)
        return positions

    @staticmethod
    def _of_class(cells: AnnData, dataset: SampleDataset, chosen: Target, name: str) -> np.ndarray:
        """Whether each sample is of a class, (samples,)."""
        codes = _labels.match_classes(_checks.require_obs(cells, chosen.name), chosen.classes, allow_new=True)
        return dataset.index.first(codes) == chosen.classes.index(name)

    def _explain(
        self,
        dataset: SampleDataset,
        positions: np.ndarray,
        chosen: Target,
        score_of: tuple[int | None, int | None],
        method: str,
        baseline: torch.Tensor | None,
        precision: tuple[int, float],
        batch_size: int,
    ) -> Iterator[tuple[SampleBatch, LinearAttributions]]:
        module = self.module.eval()
        head = module.heads[module.targets.index(chosen)]

        second = module.second_layer()
        behind = module.from_first_layer if second is None else module.from_two_layers

        def score(h: torch.Tensor, ptr: torch.Tensor) -> torch.Tensor:
            return head.score(behind(h, ptr), *score_of)

        for batch in sample_loader(dataset, positions, batch_size=batch_size, max_cells=MAX_CELLS):
            batch = batch.to(module.device)
            x = module.features(batch.x)
            with torch.no_grad():
                hidden = module.first(x)
            if method == "attention":
                with torch.no_grad():
                    value = head.score(module.from_first_layer(hidden, batch.ptr), *score_of)
                yield batch, self._weighted_input(batch, x, value)
                continue
            n_steps, tolerance = precision
            for steps in (n_steps * 2**k for k in range(MAX_DOUBLINGS + 1)):
                found = attribute_through_linear(
                    score,
                    x,
                    batch.ptr,
                    hidden=hidden,
                    weight=module.first.weight,
                    bias=module.first.bias,
                    baseline=baseline,
                    second=second,
                    n_steps=steps,
                    is_integrated=method == "integrated_gradients",
                )
                if method != "integrated_gradients" or float(found.completeness_error.max()) <= tolerance:
                    break
            yield batch, found

    @torch.no_grad()
    def _weighted_input(self, batch: SampleBatch, x: Any, f: torch.Tensor) -> LinearAttributions:
        """Attention in the place of the gradient: with one hidden unit and a weight of 1, values are weight x input."""
        weights = self.module.attention(batch).mean(1)
        one = weights.new_ones(self._n_input, 1)
        nothing = torch.full_like(f, torch.nan)
        return LinearAttributions(x, one, None, weights[:, None], weights.double(), f, nothing, nothing)

    @torch.no_grad()
    def _mean_cell(
        self, cells: AnnData, dataset: SampleDataset, chosen: Target, reference: str | None, batch_size: int
    ) -> torch.Tensor:
        """Mean over the reference samples of their mean cell, as the network reads it, (features,)."""
        positions = np.arange(len(dataset))
        if reference is not None:
            if chosen.name not in cells.obs:
                msg = f"baseline='reference' needs the samples of {reference!r}: {chosen.name!r} is not a column of adata.obs."
                raise ValueError(msg)
            positions = np.flatnonzero(self._of_class(cells, dataset, chosen, reference))
            if not len(positions):
                msg = f"baseline='reference' needs samples of {reference!r}, but adata has none. Use baseline='zeros'."
                raise ValueError(msg)
        total = torch.zeros(self._n_input, dtype=torch.float64)
        for batch in sample_loader(dataset, positions, batch_size=batch_size, max_cells=MAX_CELLS):
            x = self.module.features(batch.x)
            share = (1 / batch.sizes.clamp_min(1).double())[sample_of_cell(batch.ptr)]
            if isinstance(x, SparseRows):
                total.index_add_(0, x.indices.long(), x.values.double() * share[x.row_of_value()])
            else:
                total += (x.double() * share[:, None]).sum(0)
        return (total / len(positions)).float().to(self.module.device)


def _to_scipy(rows: SparseRows) -> sparse.csr_matrix:
    return sparse.csr_matrix((rows.values.numpy(), rows.indices.numpy(), rows.indptr.numpy()), shape=rows.shape)
