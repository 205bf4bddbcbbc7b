"""What each command does, apart from its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scset_tools import _checks
from scset_tools._modalities import is_mudata
from scset_tools._unreadable import why_no_cells
from scset_tools.cli import _methods, _modalities
from scset_tools.cli._exit import CommandError, ExitCode
from scset_tools.cli._files import for_spreadsheet, output, place_beside, read_cells, writing

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scset_tools.cli._session import Session


READS = ("use_rep", "layer", "labels_key", "batch_key")
"""What every model and profile may be told to read."""
SAMPLES, TABLE, FIGURE = (".h5ad",), (".csv", ".tsv", ".txt", ".json"), (".png", ".pdf", ".svg")
"""Endings of outputs: a file that is something else than its name says would be found out later, by another program."""


N_CONFLICTS = 10
"""How many channels that disagree are told of."""


def read(path: Path, session: Session, *, is_backed: bool = False) -> Any:
    """Read a file and say what is in it."""
    session.say(f"reading {path}")
    adata = read_cells(path, is_backed=is_backed)
    session.event("read", path=path, n_obs=int(adata.n_obs), n_vars=int(adata.n_vars))
    if "fcs_panels" in adata.uns and path.is_dir():
        _say_panels(adata.uns["fcs_panels"], session)
    return adata


def _say_panels(table: pd.DataFrame, session: Session) -> None:
    """Say where the panels of FCS files disagree."""
    told = table[table["conflict"] != ""]
    n_files, n_markers = table["file"].nunique(), table.loc[table["kind"] == "marker", "marker"].nunique()
    session.event("panels", n_files=int(n_files), n_markers=int(n_markers), n_conflicts=len(told))
    session.say(f"{n_files} FCS files, {n_markers} markers, {len(told)} channels that disagree")
    for _, row in told.head(N_CONFLICTS).iterrows():
        name = row["marker"] or row["description"] or row["channel"]
        session.say(f"  {row['file']}, {row['channel']}, {name}: {row['conflict']}")
    if len(told) > N_CONFLICTS:
        session.say(f"  and {len(told) - N_CONFLICTS} more: scset_tools.pp.fcs_panels shows all")


def write_samples(samples: AnnData, place: Path | None, path: Path, *, session: Session) -> None:
    """Write sample vectors to the place that becomes ``path``."""
    if place is None:
        return
    with writing(path):
        samples.write_h5ad(place)
    session.event("write", path=path, n_samples=int(samples.n_obs), n_latent=int(samples.n_vars))
    session.say(f"writing {path}: {samples.n_obs} samples x {samples.n_vars}")


def write_table(table: pd.DataFrame, place: Path | None, path: Path | None, *, session: Session) -> None:
    """Write a table: CSV, TSV or JSON (a list of rows), after the ending of the name."""
    if place is None or path is None:
        return
    with writing(path):
        if path.suffix == ".json":
            table.to_json(place, orient="records", indent=1)
        else:
            sep = "\t" if path.suffix in (".tsv", ".txt") else ","
            for_spreadsheet(table).to_csv(place, index=False, sep=sep)
    session.event("write", path=path, n_rows=len(table))


def fit(
    method: str,
    cells: Path,
    *,
    session: Session,
    sample_key: str,
    out: Path,
    save_model: Path | None,
    is_backed: bool,
    overwrite: bool,
    modalities: Sequence[str] | None,
    setup: dict[str, Any],
    build: dict[str, Any],
    train: dict[str, Any],
    preset: str | None,
    seed: int,
) -> None:
    """Fit a method to all samples of a file and write their vectors."""
    _methods.require_method(method)
    if method in _methods.models():
        _methods.require_labels(method, setup, build)
        _methods.require_accelerator(train.get("accelerator", "auto"))
        _methods.require_arguments(method, build, train)
        _preset(_methods.model_class(method), preset)  # a wrong name is told before the cohort is read
    with (
        output(out, overwrite=overwrite, endings=SAMPLES) as place,
        output(save_model, overwrite=overwrite, is_folder=True) as folder,
    ):
        adata, names = read(cells, session, is_backed=is_backed), _modalities.chosen(modalities)
        _modalities.require_fitting(adata, cells, names)
        if method in _methods.PROFILES:
            _require_no_training(method, build, train, save_model=save_model, preset=preset)
            adata = _modalities.as_cells(adata, cells, names, sample_key=sample_key, reads=setup)
        if is_mudata(adata):
            if len(names) == 1:
                _modalities.with_columns(adata, names[0])
            setup |= {"modality": names[0]} if len(names) == 1 else {"modalities": names}
            setup |= {key: _modalities.by_modality(setup.get(key), names) for key in ("use_rep", "layer")}
        else:
            _checks.require_obs(adata, sample_key)
        if method in _methods.PROFILES:
            samples = _methods.profile(method, sample_key=sample_key, rng=seed, **setup).fit_transform(adata)
        else:
            from scset_tools.cli._train import fit_model

            cls = _methods.model_class(method)
            named = _preset(cls, preset)
            model = fit_model(
                cls,
                adata,
                session=session,
                setup={"sample_key": sample_key, **{k: v for k, v in setup.items() if v is not None}},
                build={"random_state": seed, **named.get("model", {}), **build},
                train={"seed": seed, **named.get("train", {}), **train},
            )
            samples = model.to_sample_adata()
            if folder is not None:
                with writing(save_model):
                    model.save(folder)
                session.event("write", path=save_model)
        write_samples(samples, place, out, session=session)


def embed(
    model: Path,
    cells: Path,
    *,
    session: Session,
    out: Path,
    is_backed: bool,
    overwrite: bool,
    trust: bool = False,
    modalities: Sequence[str] | None = None,
    **arguments: Any,
) -> None:
    """Embed the samples of a file by a saved model."""
    with output(out, overwrite=overwrite, endings=SAMPLES) as place:
        fitted = load(model, trust=trust)
        adata, names = read(cells, session, is_backed=is_backed), _modalities.chosen(modalities)
        knows = fitted.modality_ is not None or fitted.joined_ is not None
        _modalities.require_fitting(adata, cells, names, knows=knows)
        if is_mudata(adata) and not knows:
            reads = {key: fitted.registry["setup_args"].get(key) for key in ("use_rep", "layer")}
            key = fitted.registry["setup_args"]["sample_key"]
            adata = _modalities.as_cells(adata, cells, names, sample_key=key, reads=reads, keep_incomplete=True)
        if is_mudata(adata) and fitted.modality_ in adata.mod:
            _modalities.with_columns(adata, fitted.modality_)
        session.say(f"embedding the samples by the {type(fitted).__name__} of {model}")
        samples = fitted.to_sample_adata(adata, **{k: v for k, v in arguments.items() if v is not None})
        write_samples(samples, place, out, session=session)


def load(folder: Path, *, trust: bool = False) -> Any:
    """A model saved by any class of the package; a file that holds code is read only if its author is trusted."""
    path = folder / "model.pt"
    if not path.is_file():
        msg = f"{folder} is no folder of a saved model: there is no {path}."
        raise CommandError(msg, ExitCode.UNREADABLE)
    from scset_tools.model._saved_file import model_name, read

    try:
        name = model_name(read(path, trust=trust))
    except ValueError as error:
        raise CommandError(str(error), ExitCode.UNREADABLE) from error
    except Exception as error:  # a broken pickle raises whatever its bytes lead to
        msg = f"{path} cannot be read as a saved model: {error}"
        raise CommandError(msg, ExitCode.UNREADABLE) from error
    if name.lower() not in _methods.models():
        msg = f"{path} holds a model of class {name}; there are {_checks.first(sorted(_methods.models().values()))}."
        raise CommandError(msg, ExitCode.UNREADABLE)
    return _methods.model_class(name.lower()).load(str(folder), adata=False, trust=trust)


def probe(
    samples: Path,
    label_key: str,
    *,
    session: Session,
    out: Path | None,
    folds: Path | None,
    predictions: Path | None,
    overwrite: bool,
    **arguments: Any,
) -> pd.DataFrame:
    """Predict a label by cross-validation; the summary, also written to ``out``."""
    with (
        output(out, overwrite=overwrite, endings=TABLE) as place,
        output(folds, overwrite=overwrite, endings=TABLE) as folds_place,
        output(predictions, overwrite=overwrite, endings=TABLE) as predictions_place,
    ):
        adata = read(samples, session)
        if is_mudata(adata):
            msg = f"{samples} is an h5mu file: probe takes the vectors of samples in an h5ad file, as fit and embed write them."
            raise CommandError(msg, ExitCode.USAGE)
        from scset_tools import tl

        session.say(f"each of the {adata.n_obs} rows is taken for a sample")
        result = tl.probe(adata, label_key, **arguments)
        summary = result.summary().reset_index()
        if result.p_value is not None:
            summary["p_value"] = [result.p_value if m == result.metric else None for m in summary["metric"]]
        session.say(repr(result))
        session.event("result", target=result.target, probe=result.probe, n_samples=result.n_samples, **_means(summary))
        write_table(summary, place, out, session=session)
        write_table(result.folds, folds_place, folds, session=session)
        write_table(result.predictions, predictions_place, predictions, session=session)
    return summary


def benchmark(
    data: Path,
    labels: Sequence[str],
    *,
    session: Session,
    methods: Sequence[str] | None,
    sample_key: str | None,
    modalities: Sequence[str] | None,
    setup: dict[str, Any],
    build: dict[str, Any],
    train: dict[str, Any],
    seed: int,
    out: Path | None,
    folds: Path | None,
    figure: Path | None,
    overwrite: bool,
    **arguments: Any,
) -> pd.DataFrame:
    """Compare representations on the same folds: keys of sample vectors, or methods that are fitted in each fold."""
    if sample_key is not None:
        methods = methods or list(_methods.BENCHMARKED)
        for name in methods:
            _methods.require_method(name.removesuffix(_methods.UNTRAINED))
            if name.removesuffix(_methods.UNTRAINED) in _methods.models():
                _methods.require_arguments(name, build, train)
            if name in _methods.models():
                _methods.require_labels(name, setup, build)
                _methods.require_accelerator(train.get("accelerator", "auto"))
        _require_used(methods, setup)
    with (
        output(out, overwrite=overwrite, endings=TABLE) as place,
        output(folds, overwrite=overwrite, endings=TABLE) as folds_place,
        output(figure, overwrite=overwrite, endings=FIGURE) as figure_place,
    ):
        adata, names = read(data, session), _modalities.chosen(modalities)
        adata = _modalities.as_cells(adata, data, names, sample_key=sample_key, reads=setup)
        from scset_tools import tl

        methods = methods or ["X", *adata.obsm]
        session.say(f"comparing {', '.join(methods)}")
        entries: Any = list(methods)
        if sample_key is not None:
            _checks.require_obs(adata, sample_key)
            entries = {n: _entry(n, sample_key, setup=setup, build=build, train=train, seed=seed) for n in methods}
        result = tl.benchmark(
            adata, entries, labels, sample_key=sample_key, rng=seed, progress=session.shows_progress, **arguments
        )
        for row in result.skipped.to_dict("records"):
            session.say(f"left out: {row['representation']} for {row['label']} ({row['reason']})")
        summary = result.summary()
        session.event("result", rows=summary.to_dict("records"))
        write_table(summary, place, out, session=session)
        write_table(result.results, folds_place, folds, session=session)
        if figure_place is not None:
            with writing(figure):
                drawn: Any = result.plot().figure
                drawn.savefig(figure_place, dpi=150, bbox_inches="tight")
    return summary


def _entry(name: str, sample_key: str, *, setup: dict, build: dict, train: dict, seed: int) -> Any:
    if name in _methods.PROFILES:
        return _methods.profile(name, sample_key=sample_key, rng=seed, **setup)
    from scset_tools.model import ModelProfile

    quiet = {"enable_progress_bar": False, "seed": seed, **train}
    cls = _methods.model_class(name.removesuffix(_methods.UNTRAINED))
    reads = [*READS, *(["cell_type_key"] if _methods.takes_cell_types(name) else [])]
    return ModelProfile(
        cls,
        sample_key=sample_key,
        setup={key: setup[key] for key in reads if setup.get(key) is not None},
        build={"random_state": seed, **build},
        train=None if name.endswith(_methods.UNTRAINED) else quiet,
    )


def _require_used(methods: Sequence[str], setup: dict[str, Any]) -> None:
    """Raise if cell types are given and no method reads them."""
    if setup.get("cell_type_key") is not None and not any(_methods.takes_cell_types(name) for name in methods):
        msg = f"--cell-type-key: none of {_checks.first(methods, 40)} reads cell types. Leave it out, or add -m fractions."
        raise CommandError(msg, ExitCode.USAGE)


def _preset(cls: Any, name: str | None) -> dict[str, dict[str, Any]]:
    if name is None:
        return {}
    if not hasattr(cls, "preset"):
        msg = f"{cls.__name__} has no presets."
        raise CommandError(msg, ExitCode.REQUEST)
    try:
        found = cls.preset(name)
    except ValueError as error:
        msg = f"--preset {str(error).removeprefix('name=')}"
        raise CommandError(msg, ExitCode.USAGE) from error
    return {"model": found.model, "train": found.train}


def _require_no_training(
    method: str, build: dict[str, Any], train: dict[str, Any], *, save_model: Path | None, preset: str | None
) -> None:
    if build or train or save_model is not None or preset is not None:
        given = [*build, *train, *(["--save-model"] if save_model else []), *(["--preset"] if preset else [])]
        msg = f"{method} is a profile, nothing is trained and no model saved: leave out {', '.join(given)}."
        raise CommandError(msg, ExitCode.REQUEST)


def _means(summary: pd.DataFrame) -> dict[str, float]:
    return {str(m): float(v) for m, v in zip(summary["metric"], summary["mean"], strict=True)}


def prepare(
    sources: Sequence[Path],
    *,
    session: Session,
    out: Path,
    sample_key: Sequence[str],
    join: str,
    layer: str | None,
    panel: str,
    merge: bool,
) -> None:
    """Write the cells of several files to one store."""
    from scset_tools.pp import write_store

    for source in sources:
        msg = why_no_cells(source)
        if msg is not None:
            raise CommandError(msg, ExitCode.UNREADABLE)
    if out.exists():
        msg = f"{out} is there already. Take another name, or remove it."
        raise CommandError(msg, ExitCode.UNWRITABLE)
    place_beside(out).rmdir()
    session.say(f"preparing {len(sources)} files")
    write_store(
        sources,
        out,
        sample_key=sample_key[0] if len(sample_key) == 1 else sample_key,
        join=join,  # type: ignore[arg-type]
        layer=layer,
        panel=panel,  # type: ignore[arg-type]
        same_names="merge" if merge else "raise",
        progress=session.shows_progress,
    )
    session.event("write", path=out)
    session.say(f"writing {out}")
