"""Saving and loading of models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from anndata import read_h5ad
from scvi.model.base._constants import SAVE_KEYS

from scset_tools import _whole
from scset_tools._modalities import is_mudata
from scset_tools.model._registered import RegisteredModel
from scset_tools.model._saved_file import decoded, encoded, own_files, require_loadable

if TYPE_CHECKING:
    from anndata import AnnData


class SavedModel(RegisteredModel):
    """``save`` and ``load`` of every model."""

    frozen_: list[str] | None = None
    """Parts of the network that do not learn."""

    def save(
        self,
        dir_path: str | os.PathLike,
        prefix: str | None = None,
        overwrite: bool = False,  # noqa: FBT001, FBT002  (scvi's signature)
        save_anndata: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> None:
        """Save the model: all of it or, after an error, nothing; a model that was there before stays whole until the last step.

        Parameters
        ----------
        dir_path
            Directory to make.
        prefix
            Begin of the names of the files.
        overwrite
            Whether the directory may be there already. A model of the same prefix in it is replaced with its cells; other files stay.
        save_anndata
            Whether to save the cells too.
        **kwargs
            Further arguments of :meth:`scvi.model.base.BaseModelClass.save`.

        Raises
        ------
        ValueError
            If the directory is there and ``overwrite`` is False.
        OSError
            If it cannot be written.
        """
        if os.path.exists(dir_path) and not overwrite:
            msg = f"{dir_path} already exists. Save to another directory, or pass overwrite=True."
            raise ValueError(msg)
        with _whole.folder(Path(dir_path), own=own_files(prefix)) as place:
            super().save(str(place), prefix=prefix, overwrite=True, save_anndata=save_anndata, **kwargs)

    def _get_user_attributes(self) -> list[tuple[str, Any]]:
        """In plain types, as they are saved."""
        return [(k, encoded(v) if k.endswith("_") else v) for k, v in super()._get_user_attributes()]

    def _decode(self) -> Self:
        for name in [k for k in vars(self) if k.endswith("_") and not k.startswith("_")]:
            setattr(self, name, decoded(getattr(self, name)))
        if self.frozen_:
            self.module.freeze(self.frozen_)
        return self

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike,
        adata: AnnData | bool | None = None,  # noqa: FBT001  (scvi's)
        *,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Load a saved model.

        Nothing in the file is run, unless you say that you trust whoever wrote it: scvi-tools' format is a pickle, which can
        hold any code. What this package saves loads without.

        Parameters
        ----------
        dir_path
            Directory given to ``save``.
        adata
            Cells to attach, of the samples of training or of others. None takes those saved with the model
            (``save_anndata=True``); False attaches none, and the model embeds any AnnData given to it.
        trust
            Whether to read a file that holds more than weights, numbers and text, which runs code of its author.
        **kwargs
            Further arguments of :meth:`scvi.model.base.BaseModelClass.load`.

        Raises
        ------
        ValueError
            If there is no model, it cannot be read, is of another class, or holds code and is not trusted.
        """
        require_loadable(cls, dir_path, kwargs, trust=trust)
        saved = Path(dir_path) / f"{kwargs.get('prefix') or ''}{SAVE_KEYS.ADATA_FNAME}"
        if adata is None and not saved.is_file():  # scvi says that there is none
            return super().load(dir_path, **kwargs)._decode()
        # scvi compares adata.var_names even if the model reads obsm, and takes an all-zero X for a minified object: load
        # without data, and let the fields check what they read
        model = super().load(dir_path, adata=False, **kwargs)._decode()
        if adata is not False:
            model._attach(read_h5ad(saved) if adata is None else adata)
        return model

    def _attach(self, adata: AnnData) -> None:
        given = adata
        self._adata = adata = self._cells_of(adata)
        self._adata_manager = self._register_as_in_training(adata)
        if is_mudata(given) and self.joined_ is not None:
            self._remember(given)
        self.registry_ = self._adata_manager._registry
        self.summary_stats = self._adata_manager.summary_stats
