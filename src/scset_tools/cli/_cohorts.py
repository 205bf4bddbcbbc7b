"""Commands on whole cohorts: many files to one store, and one page on what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scset_tools.cli import _methods
from scset_tools.cli import _options as o
from scset_tools.cli._session import session


def prepare(
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="h5ad or zarr files of cells.", readable=False)
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="ZARR", help="Folder of the store to write.")],
    sample_key: Annotated[
        list[str],
        typer.Option(
            "--sample-key",
            "-s",
            metavar="COLUMN",
            help="Column with the sample of each cell; several name it together.",
        ),
    ],
    join: Annotated[str, typer.Option(help="Features of all files (inner) or of any (outer).")] = "inner",
    layer: o.Layer = None,
    panel: Annotated[
        str, typer.Option(help="fixed, or open: samples may lack markers, whose values are NaN (see setup_anndata).")
    ] = "fixed",
    merge: Annotated[
        bool, typer.Option("--merge", help="Join the cells of samples of one name in several files.")
    ] = False,
    config: o.Config = None,
    log: o.Log = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write the cells of any number of files to one zarr store, sample by sample, in bounded memory.

    `fit`, `embed` and `benchmark` take the store in place of an h5ad file and leave its values on disk. A run that was
    stopped goes on where it was.

    Example: scset-tools prepare site1.h5ad site2.h5ad -s sample -o cohort.zarr
    """
    arguments = dict(locals())
    with session("prepare", arguments, log=log, quiet=quiet, debug=debug) as run:
        from scset_tools.cli import _commands

        _commands.prepare(
            sources,
            session=run,
            out=output,
            sample_key=sample_key,
            join=join,
            layer=layer,
            panel=panel,
            merge=merge,
        )


def report(
    cells: Annotated[
        Path, typer.Argument(metavar="CELLS.H5AD", help="Cells of the cohort.", readable=False, show_default=False)
    ],
    *,
    sample_key: o.SampleKey,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="HTML", help="Page to write.")],
    label_key: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Label of each sample to predict.", show_default="a page without scores"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="Model or profile; may be repeated.",
            show_default="maestro; mean, kmeans_fractions, number_of_cells, and with cell types fractions",
            autocompletion=_methods.starting_with_method,
        ),
    ] = None,
    event_key: o.EventKey = None,
    groups_key: o.GroupsKey = None,
    batch_key: o.BatchKey = None,
    cell_type_key: o.CellTypeKey = None,
    modality: o.Modality = None,
    use_rep: o.UseRep = None,
    layer: o.Layer = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Class to explain.", show_default="the second of two, else the largest"),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.", show_default="after the columns")] = None,
    cv: o.Folding = 5,
    n_repeats: o.Repeats = 1,
    n_seeds: Annotated[int, typer.Option(min=2, help="Trainings that attributions are compared over.")] = 3,
    n_permutations: Annotated[int, typer.Option(min=3, help="Permuted labelings of attributions.")] = 10,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Passes over the training samples.", show_default="about 50 steps, as brief as a report"
        ),
    ] = None,
    full_training: Annotated[
        bool,
        typer.Option("--full-training", help="Train models by their own defaults, which takes several times as long."),
    ] = False,
    accelerator: o.Accelerator = "auto",
    build: o.Build = None,
    train: o.Train = None,
    seed: o.Seed = 0,
    backed: o.Backed = False,
    overwrite: o.Overwrite = False,
    config: o.Config = None,
    log: o.Log = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write one HTML page on a cohort: what is in it, scores with intervals, maps, checks, and what may be published.

    The page needs no network, and prints. A run that was stopped goes on from HTML.parts, the folder beside it.

    Example: scset-tools report cohort.h5ad -s sample --label-key disease --groups-key donor -o report.html
    """
    arguments = dict(locals())
    with session("report", arguments, log=log, quiet=quiet, debug=debug) as run:
        from scset_tools.cli import _report

        named: dict[str, Any] = {
            "max_epochs": max_epochs,
            "accelerator": None if accelerator == "auto" else accelerator,
        }
        _report.report(
            cells,
            session=run,
            out=output,
            methods=method,
            modalities=modality,
            is_backed=backed,
            overwrite=overwrite,
            build=_methods.settings_of(build, "--build"),
            train={**{k: v for k, v in named.items() if v is not None}, **_methods.settings_of(train, "--train")},
            sample_key=sample_key,
            label_key=label_key,
            event_key=event_key,
            groups_key=groups_key,
            batch_key=batch_key,
            cell_type_key=cell_type_key,
            use_rep=use_rep,
            layer=layer,
            target=target,
            title=title,
            cv=cv,
            n_repeats=n_repeats,
            n_seeds=n_seeds,
            n_permutations=n_permutations,
            seed=seed,
            full_training=full_training,
        )
