"""Results of a report that is being made, kept on disk, so that one that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone

from scset_tools import _whole
from scset_tools.tl import get_representation

if TYPE_CHECKING:
    from typing import Self

    from anndata import AnnData

FRAME = "__frame__"

Say = Callable[[str], None]


class Parts:
    """A folder of named results of one request. What is read back is what was written, to the last bit.

    Parameters
    ----------
    root
        Folder beside the report; made if it is not there.
    fingerprint
        Checksum of the request: each has a folder of its own within `root`, so that none goes on from another.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self._root, self._folder = root, root / fingerprint
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _whole.unwritable(root, error) from error

    def __len__(self) -> int:
        return sum(1 for path in self._folder.iterdir() if path.suffix in (".json", ".npy"))

    def get(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A result: read, or made and written.

        Parameters
        ----------
        name
            Name of the result.
        make
            Computes it: plain values and tables.
        """
        path = self._path(name, ".json")
        if not path.is_file():
            text = json.dumps(_plain(make()))
            self._write(path, lambda place: place.write_text(text, encoding="utf-8"))
        return _restored(json.loads(path.read_text(encoding="utf-8")))

    def vectors(self, name: str) -> np.ndarray | None:
        """Vectors that were kept; None if there are none.

        Parameters
        ----------
        name
            Name of the result.
        """
        path = self._path(name, ".npy")
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def keep(self, name: str, vectors: np.ndarray) -> None:
        """Keep vectors.

        Parameters
        ----------
        name
            Name of the result.
        vectors
            Array of numbers.
        """
        self._write(self._path(name, ".npy"), lambda place: np.save(place, vectors, allow_pickle=False))

    def drop(self) -> None:
        """Remove the results of this request, and the folder if it holds no others."""
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            self._root.rmdir()
        except OSError:  # others are in it
            pass

    def _path(self, name: str, suffix: str) -> Path:
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:60]
        return self._folder / f"{plain}-{_digest([name])}{suffix}"

    def _write(self, path: Path, write: Callable[[Path], Any]) -> None:
        place = path.with_name(f".{path.name}.part{path.suffix}")
        try:
            write(place)
            _whole.replace(place, path)
        except OSError as error:
            raise _whole.unwritable(path, error) from error
        finally:
            place.unlink(missing_ok=True)


class KeptProfile:
    """A profile for `tl.benchmark` whose vectors of each fold are kept: a fold that was done is not fitted again.

    Parameters
    ----------
    profile
        Unfitted profile.
    name
        Its name among the parts.
    parts
        Where to keep vectors.
    say
        Told of every fold that is fitted.
    """

    def __init__(self, profile: Any, *, name: str, parts: Parts, say: Say) -> None:
        self.profile, self.name, self.parts, self.say = profile, name, parts, say

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptProfile:
        profile = clone(self.profile) if isinstance(self.profile, BaseEstimator) else deepcopy(self.profile, memo)
        return KeptProfile(profile, name=self.name, parts=self.parts, say=self.say)

    def fit(self, adata: AnnData, *, samples: Sequence[str] | None = None) -> Self:
        """Fit, unless the vectors are known.

        Parameters
        ----------
        adata
            Cells.
        samples
            Names of the training samples.
        """
        self._part = f"{self.name} {_digest(sorted(map(str, samples or ())))}"
        if self.parts.vectors(self._part) is None:
            self.say(self.name)
            self.profile.fit(adata, samples=samples)
            self._vectors = get_representation(self.profile.transform(adata))
            self.parts.keep(self._part, self._vectors)
        return self

    def transform(self, adata: AnnData) -> AnnData:
        """Vectors of all samples, by name.

        Parameters
        ----------
        adata
            The cells of ``fit``.
        """
        from anndata import AnnData

        from scset_tools._samples import sample_obs

        kept = self.parts.vectors(self._part)
        names = sample_obs(adata, self.profile.sample_key).index
        return AnnData(np.asarray(kept), obs=pd.DataFrame(index=names))


def _digest(names: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _plain(value: Any) -> Any:
    """The value in types of JSON; tables under a key of their own."""
    if isinstance(value, pd.DataFrame):
        split = value.to_dict(orient="split")
        return {FRAME: _plain({k: split[k] for k in ("columns", "index", "data")})}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | pd.Series | pd.Index):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return None if value is pd.NA or value is pd.NaT else str(value)


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {FRAME}:
            return pd.DataFrame(**value[FRAME])
        return {k: _restored(v) for k, v in value.items()}
    return [_restored(v) for v in value] if isinstance(value, list) else value
