"""MAESTRO, as users call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from anndata import AnnData

from scset_tools._checks import require_choice
from scset_tools._docs import docs
from scset_tools._samples import as_text
from scset_tools.data._splitter import SampleDataSplitter
from scset_tools.model._base import SampleModelClass
from scset_tools.model._covariate_setup import TakesCovariates
from scset_tools.model._covariates import Asked, asked_values, values_of_samples, weights_of
from scset_tools.model._init_params import with_arguments_of
from scset_tools.model._moments import batch_moments
from scset_tools.model._tokens import fit_tokens_once
from scset_tools.model._whitening import fit_whitening
from scset_tools.model.maestro._arguments import require_sound
from scset_tools.model.maestro._decoder import DECODERS
from scset_tools.model.maestro._module import MAESTROModule
from scset_tools.model.maestro._presets import PRESETS
from scset_tools.model.maestro._reconstruction import reconstruct_samples
from scset_tools.model.maestro._views import MASKINGS, VIEWS


class MAESTRO(TakesCovariates):
    """Masked set transformer with self-distillation: one vector per sample, learned without labels.

    A student encoder sees crops of each sample, one whole and one with a part of its cells hidden. It learns to reconstruct what is
    hidden (optimal transport between sets), and to see in a crop what a teacher, its own slow moving average, sees in all cells:
    which samples are alike, and by how much. Beside its attention, cells are pooled by kind; the kinds are those of a
    mixture of the training cells. Made for cytometry; any numeric features of cells serve. The paper's recipe is ``preset("paper")``; the user guide says
    what the defaults change and why.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    registry
        Registry of a saved model; used by :meth:`load`.
    n_hidden
        Width of the attention blocks.
    n_latent
        Length of a sample's vector.
    n_layers
        Number of ISAB blocks of the encoder.
    n_heads
        Number of attention heads.
    n_inducing
        Number of inducing points of each block.
    n_cells
        Most cells of a student's crop; a smaller sample is taken whole.
    n_tokens
        Number of kinds of cells that the tokenizer tells apart (:class:`~scset_tools.nn.TokenPool`), found in the training samples
        before the first step; 0 leaves it out, as the paper does.
    token_weight
        Weight of what the tokens say against what attention pools, in standard deviations between samples.
    whitening
        Degree to which vectors are whitened after training, over the training samples (Ledoit and Wolf's covariance): 0 leaves them as they
        are, 1 gives each direction the same variance. The decoder reads vectors as they were.
    standardize_latent
        Whether what attention pools is centred, and scaled by one number, over the samples seen in training.
    mask_rates
        Shares of the cells that are hidden.
    one_rate
        Whether each crop gets one view with hidden cells, at a rate drawn for it, instead of one at every rate (the paper).
    unmasked_view
        Whether each crop gets a view without hidden cells as well, which is then the one that is to agree with the teacher.
    masking
        ``"block"`` hides blocks of similar cells (the paper), ``"random"`` cells at random.
    views
        Crops of each sample: ``"random"`` cells, ``"farthest"`` points (which keep rare cells in sight), or both.
    decoder
        ``"sab"``: decoded cells attend to each other (the paper; quadratic). ``"isab"``: through inducing points (linear).
    reconstruct
        Whether the loss compares the ``"masked"`` cells (as the reference code does) or ``"all"`` cells of the crop.
    reconstruction_weight
        Weight of the reconstruction of hidden cells (1 in the paper). 0 leaves it out, with its decoder.
    distillation_weight
        Weight of the agreement with the teacher (1 in the paper). 0 leaves it out, with the teacher.
    distillation
        ``"relational"``: samples lie to each other as they do for the teacher (:class:`~scset_tools.nn.loss.RelationalLoss`), which
        cannot collapse. ``"prototypes"``: the projected vectors agree, softmax by softmax (the paper).
    n_prototypes
        Width of the projected outputs that student and teacher agree on, for ``"prototypes"``.
    student_temperature
        Temperature of the student's distribution, for ``"prototypes"``.
    teacher_temperature
        Temperature of the teacher's distribution, for ``"prototypes"``.
    center_momentum
        Momentum of the centre of the teacher's outputs, for ``"prototypes"``.
    ema_decay
        How much of the teacher stays in each step; with ``"prototypes"`` less in the first steps.
    dropout_rate
        Dropout inside the attention blocks of the student.
    standardize
        Whether features are centred and scaled by their mean and standard deviation over the registered cells; within each
        batch if ``batch_key`` was given. Without it cells enter as they are.
    covariate_dropout
        With ``covariate_keys``: share of the samples of a step of which the decoder is told no covariate, and share of the others in which
        each one is left unsaid, so that cells are decoded as well where it is not known.
    batch_weight
        With ``covariate_keys``: weight of a term that takes covariates out of the vectors, for all of them or by name
        (``{"batch": 1.0}``): how much the vectors of a step depend on it (normalised HSIC, 0 to 1; ``history["dependence_train"]``). Of the
        geometry by which a relational student is held to its teacher, their linear effects are left out. 1 is a strong one; 0: none.
    represent_with
        Whether samples are represented by the ``"student"`` or the ``"teacher"``.
    marker_dropout_rate
        With ``panel="open"``: largest share of its markers that a sample loses in the views of the student; the teacher sees all.
    modality_dropout_rate
        With several modalities and ``panel="open"``: probability that a sample loses a modality in the views of the student; one that it has stays.
    random_state
        Seed of the initial weights. Default: ``scvi.settings.seed``, or random.

    Notes
    -----
    Follows the MAESTRO paper; the user guide lists where paper and published code disagree and which is followed.

    Examples
    --------
    >>> import scset_tools as sst
    >>> adata = sst.datasets.perturbation_cohort(n_samples=6, n_cells=40)
    >>> sst.MAESTRO.setup_anndata(adata, sample_key="sample")
    >>> model = sst.MAESTRO(adata, n_hidden=16, n_latent=4, n_inducing=4)
    >>> model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    >>> model.to_sample_adata().shape
    (6, 4)
    """

    _module_cls = MAESTROModule
    _presets = PRESETS
    _panels = ("fixed", "open")
    _by_marker = {  # noqa: RUF012
        "mean": 1,
        "scale": 1,
        "hidden_token": 0,
        "decoder.output.weight": 0,
        "decoder.output.bias": 0,
        "student.encoder.lift.names": 0,
        "teacher.encoder.lift.names": 0,
    }
    _averages = {"teacher.encoder.lift.names": "student.encoder.lift.names"}  # noqa: RUF012
    _covariate_kinds = ("class", "continuous")  # the decoder makes a set of cells, none of which is told apart
    _forbid_zero_cells = True  # blocks of similar cells are found by cosine similarity
    _plan_defaults = {"lr": 1e-3, "lr_min": 1e-6, "lr_schedule": "cosine", "weight_decay": 1e-2}  # noqa: RUF012

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        n_hidden: int = 64,
        n_latent: int = 128,
        n_layers: int = 3,
        n_heads: int = 4,
        n_inducing: int = 32,
        n_cells: int = 256,
        mask_rates: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
        masking: Literal["block", "random"] = "block",
        views: Sequence[Literal["random", "farthest"]] = ("random",),
        decoder: Literal["sab", "isab"] = "sab",
        reconstruct: Literal["masked", "all"] = "masked",
        reconstruction_weight: float = 0.01,
        distillation_weight: float = 1.0,
        distillation: Literal["relational", "prototypes"] = "relational",
        n_tokens: int = 8,
        token_weight: float = 0.7,
        whitening: float = 0.5,
        standardize_latent: bool = True,
        one_rate: bool = True,
        unmasked_view: bool = True,
        n_prototypes: int = 256,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        center_momentum: float = 0.9,
        ema_decay: float = 0.999,
        dropout_rate: float = 0.0,
        standardize: bool = True,
        represent_with: Literal["student", "teacher"] = "student",
        covariate_dropout: float = 0.1,
        batch_weight: float | Mapping[str, float] = 0.0,
        marker_dropout_rate: float = 0.5,
        modality_dropout_rate: float = 0.2,
        random_state: int | None = None,
    ) -> None:
        super().__init__(adata, registry)
        require_choice("masking", masking, MASKINGS)
        require_choice("decoder", decoder, DECODERS)
        require_choice("reconstruct", reconstruct, ("masked", "all"))
        require_choice("distillation", distillation, ("relational", "prototypes"))
        require_choice("represent_with", represent_with, ("student", "teacher"))
        for view in views:
            require_choice("views", view, VIEWS)
        covariates = self._covariates
        weights = weights_of(batch_weight, covariates)
        require_sound(
            mask_rates,
            reconstruction_weight,
            distillation_weight,
            represent_with=represent_with,
            covariates=[c.name for c in covariates],
            batch_weights=weights,
        )
        mean, scale = batch_moments(self, standardize=standardize)
        with self._seeded(random_state):
            self.module = self._module_cls(
                mean,
                scale,
                n_hidden=n_hidden,
                n_latent=n_latent,
                n_inducing=n_inducing,
                n_heads=n_heads,
                n_layers=n_layers,
                n_cells=n_cells,
                mask_rates=mask_rates,
                masking=masking,
                views=tuple(views),
                decoder=decoder,
                reconstruct=reconstruct,
                reconstruction_weight=reconstruction_weight,
                distillation_weight=distillation_weight,
                distillation=distillation,
                n_tokens=n_tokens,
                token_weight=token_weight,
                whitening=whitening,
                standardize_latent=standardize_latent,
                one_rate=one_rate,
                unmasked_view=unmasked_view,
                n_prototypes=n_prototypes,
                student_temperature=student_temperature,
                teacher_temperature=teacher_temperature,
                center_momentum=center_momentum,
                ema_decay=ema_decay,
                dropout_rate=dropout_rate,
                represent_with=represent_with,
                covariates=[c.in_batch for c in covariates],
                moments=self._moments_of_covariates(),
                covariate_dropout=covariate_dropout,
                batch_weights=weights,
                is_open=self._is_open,
                marker_dropout_rate=marker_dropout_rate,
                modality_dropout_rate=modality_dropout_rate,
                **self._modality_arguments,
            )
        told = f" Told: {', '.join(c.name for c in covariates)}." if covariates else ""
        self._model_summary_string = (
            f"MAESTRO with n_hidden: {n_hidden}, n_latent: {n_latent}, n_inducing: {n_inducing}, masking: {masking} at "
            f"{tuple(mask_rates)}, loss: {reconstruction_weight} x reconstruction + {distillation_weight} x distillation; "
            f"{self.summary_stats['n_sample']} samples, {self._n_input} features.{told}"
        )

    @with_arguments_of(SampleModelClass.train)
    def train(
        self,
        max_epochs: int | None = None,
        *,
        n_cells: int | None = 1000,
        gradient_clip_val: float | None = 1.0,
        **kwargs: Any,
    ) -> None:
        """Train the model.

        Parameters
        ----------
        max_epochs
            Most passes over the training samples. Default: what makes 120 steps, or 10 passes where these are more.
        n_cells
            Most cells of a sample that the teacher sees, and that the student's crop is taken from, drawn anew each epoch.
            None: the full set, as in the paper.
        %(others)s

        """
        if n_cells is not None and n_cells < self.module.n_cells:
            msg = (
                f"n_cells={n_cells} is less than the {self.module.n_cells} cells of a student's crop: the teacher must see at "
                "least as many. Raise it, or build the model with fewer n_cells."
            )
            raise ValueError(msg)
        super().train(max_epochs, n_cells=n_cells, gradient_clip_val=gradient_clip_val, **kwargs)

    def _before_training(self, module: MAESTROModule, splitter: SampleDataSplitter) -> None:
        """Fit the kinds of cells to the training samples, once: a model that is trained further keeps them."""
        fit_tokens_once(module.tokens, splitter, module.standardize, parts=module.modality_parts)

    def _after_training(self, splitter: SampleDataSplitter) -> None:
        """Whiten the vectors in part, as the training samples now lie."""
        fit_whitening(self, splitter.names()[0], seed=splitter.seed)

    def _default_steps(self, splitter: SampleDataSplitter) -> int:
        """120 steps, or 10 passes over the samples where these are more, and 10,000 at most."""
        return min(10_000, max(120, 10 * splitter.n_batches()))

    @docs.dedent
    def reconstruct(
        self,
        samples: Sequence[str] | str | None = None,
        *,
        adata: AnnData | None = None,
        mask_rate: float = 0.5,
        masking: Literal["block", "random"] | None = None,
        covariates: Asked | None = None,
        seed: int = 0,
    ) -> AnnData:
        """Hide cells of samples and predict them from the rest (the paper's Figure 2).

        Parameters
        ----------
        %(param_samples)s
        adata
            Cells of the samples. Default: the registered AnnData.
        mask_rate
            Share of the cells that is hidden.
        masking
            How they are chosen. Default: as in training.
        covariates
            What the decoder is told in the place of what the samples have (``setup_anndata(covariate_keys=)``): values by covariate, one for
            all samples or one for each, or a table indexed by sample; None, for a covariate, leaves it unsaid. The vector, read from the
            visible cells, stays as it is.
        seed
            Seed of the crop and of what is hidden.

        Returns
        -------
        AnnData of input, hidden and predicted cells in the units of the data: ``obs["role"]`` (``"input"``, ``"hidden"``,
        ``"predicted"``) and ``obs["sample"]``.

        Raises
        ------
        ValueError
            If there is no decoder, or a covariate has a value that no training sample has.
        KeyError
            If there is no such sample or covariate.
        """
        if self.module.decoder is None:
            msg = "This MAESTRO has no decoder: it was built with reconstruction_weight=0."
            raise ValueError(msg)
        self._warn_if_untrained("what it reconstructs comes from random weights")
        chosen = self.module.masking if masking is None else masking
        require_choice("masking", chosen, MASKINGS)
        with self._reading(adata) as cells:
            dataset = self._dataset(cells)
            positions = dataset.index.positions([samples] if isinstance(samples, str) else samples)
            names = as_text(dataset.index.names[positions])
            own = values_of_samples(self._manager_of(cells), self._covariates, names)
            told, _ = asked_values(covariates, self._covariates, own, ranges=self._covariate_ranges)
            return reconstruct_samples(
                self.module,
                dataset,
                positions,
                told=told.to_numpy(),
                mask_rate=mask_rate,
                masking=chosen,
                seed=seed,
                var_names=self.get_var_names(),
            )
