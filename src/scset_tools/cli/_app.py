"""The commands and their options. Nothing heavy is imported before a command runs, so that ``--help`` is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import scset_tools
from scset_tools.cli import _cohorts, _methods
from scset_tools.cli import _options as o
from scset_tools.cli._exit import ExitCode
from scset_tools.cli._session import session

if TYPE_CHECKING:
    import pandas as pd

EPILOG = (
    "Exit codes: 0 done, 1 unexpected error, 2 wrong command line, 3 the data do not fit the request, 4 an input cannot be "
    "read, 5 an output cannot be written, 129 hung up, 130 interrupted, 143 terminated. Outputs appear whole, at the end, or not at all."
)
MODELS = ", ".join(sorted(_methods.models()))
PROFILES = ", ".join(_methods.PROFILES)

app = typer.Typer(
    name="scset-tools",
    help="Samples as sets of cells: one vector per sample from an h5ad or h5mu file of cells, and what that vector knows.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def main() -> None:
    """Run ``scset-tools``; exits with one of the codes that ``scset-tools --help`` lists."""
    app(prog_name="scset-tools")


def _version(is_asked: bool) -> None:  # noqa: FBT001  (typer's signature)
    if is_asked:
        typer.echo(f"scset-tools {scset_tools.__version__}")
        raise typer.Exit


@app.callback()
def _top(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


@app.command(
    epilog=EPILOG,
    help=f"Fit a method to a cohort and write one vector per sample.\n\nMETHOD is a model ({MODELS}) or a "
    f"profile, which needs no training ({PROFILES}).\n\n"
    "Example: scset-tools fit maestro cohort.h5ad --sample-key sample -o samples.h5ad --save-model maestro_model",
)
def fit(
    method: Annotated[
        str,
        typer.Argument(
            help="Name of a model or profile.", show_default=False, autocompletion=_methods.starting_with_method
        ),
    ],
    cells: Annotated[
        Path, typer.Argument(metavar="CELLS.H5AD", help="Cells of the cohort.", readable=False, show_default=False)
    ],
    *,
    sample_key: o.SampleKey,
    output: o.Out,
    save_model: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Save the model here, for `scset-tools embed`.")
    ] = None,
    modality: o.Modality = None,
    use_rep: o.UseRep = None,
    layer: o.Layer = None,
    labels_key: o.LabelsKey = None,
    batch_key: o.BatchKey = None,
    cell_type_key: o.CellTypeKey = None,
    max_epochs: o.MaxEpochs = None,
    batch_size: o.BatchSize = None,
    train_size: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of samples to train on.", show_default="all; 0.9 with --early-stopping"),
    ] = None,
    groups_key: o.GroupsKey = None,
    early_stopping: Annotated[
        bool, typer.Option("--early-stopping", help="Stop when the loss of the other samples no longer falls.")
    ] = False,
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Save the state of training each epoch; go on from it if it is there."),
    ] = None,
    accelerator: o.Accelerator = "auto",
    preset: Annotated[str | None, typer.Option(help="Sizes and schedule of the model by name, as paper.")] = None,
    build: o.Build = None,
    train: o.Train = None,
    setup: o.Setup = None,
    seed: o.Seed = 0,
    backed: o.Backed = False,
    overwrite: o.Overwrite = False,
    config: o.Config = None,
    log: o.Log = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    arguments = dict(locals())
    with session("fit", arguments, log=log, quiet=quiet, debug=debug) as run:
        from scset_tools.cli import _commands

        named: dict[str, Any] = {
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "train_size": train_size,
            "groups_key": groups_key,
        }
        named |= {"early_stopping": early_stopping or None, "checkpoint_dir": checkpoint_dir}
        named |= {"accelerator": None if method in _methods.PROFILES else accelerator}
        reads = {"use_rep": use_rep, "layer": layer, "labels_key": labels_key, "batch_key": batch_key}
        is_profile = method in _methods.PROFILES
        _commands.fit(
            method,
            cells,
            session=run,
            sample_key=sample_key,
            out=output,
            save_model=save_model,
            is_backed=backed,
            overwrite=overwrite,
            modalities=modality,
            setup={
                **reads,
                **({"cell_type_key": cell_type_key} if cell_type_key is not None or is_profile else {}),
                **_methods.settings_of(setup, "--setup"),
            },
            build=_methods.settings_of(build, "--build"),
            train={**_given(named), **_methods.settings_of(train, "--train")},
            preset=preset,
            seed=seed,
        )


@app.command(epilog=EPILOG)
def embed(
    model: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of a saved model.", readable=False, show_default=False)
    ],
    cells: Annotated[
        Path, typer.Argument(metavar="CELLS.H5AD", help="Cells to embed.", readable=False, show_default=False)
    ],
    *,
    output: o.Out,
    modality: o.Modality = None,
    n_cells: Annotated[
        int | None, typer.Option(min=1, help="Cells drawn from each sample.", show_default="all")
    ] = None,
    batch_size: o.BatchSize = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Read a model that holds code, which runs it: only from whom you trust.")
    ] = False,
    backed: o.Backed = False,
    overwrite: o.Overwrite = False,
    config: o.Config = None,
    log: o.Log = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Embed new samples by a saved model; labels are not needed.

    A saved model is a pickle, as in scvi-tools, and a pickle can hold any code. What scset-tools saves holds none and is read
    without running anything; other files are refused unless you pass --trust.

    Example: scset-tools embed maestro_model new_cells.h5ad -o new_samples.h5ad
    """
    arguments = dict(locals())
    with session("embed", arguments, log=log, quiet=quiet, debug=debug) as run:
        from scset_tools.cli import _commands

        how: dict[str, Any] = {"is_backed": backed, "overwrite": overwrite, "trust": trust, "modalities": modality}
        _commands.embed(model, cells, session=run, out=output, **how, n_cells=n_cells, batch_size=batch_size)


@app.command(epilog=EPILOG)
def probe(
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES.H5AD", readable=False, help="One row per sample, whoever wrote it.", show_default=False
        ),
    ],
    label: Annotated[str, typer.Argument(help="Column of obs to predict.", show_default=False)],
    *,
    use_rep: o.UseRep = None,
    obsp_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Distances in obsp instead of vectors; probes knn and svc.")
    ] = None,
    groups_key: o.GroupsKey = None,
    probe: Annotated[str, typer.Option(help="auto (after the label), logistic, ridge, mlp, knn, svc or cox.")] = "auto",
    target: Annotated[str, typer.Option(help="auto, class, ordinal, continuous or time_to_event.")] = "auto",
    event_key: o.EventKey = None,
    cv: o.Folding = 5,
    n_repeats: o.Repeats = 5,
    no_tune: o.NoTune = False,
    n_permutations: Annotated[int, typer.Option(min=0, help="Permuted labels, for a p-value.")] = 0,
    seed: o.Seed = 0,
    n_jobs: o.Jobs = 1,
    output: o.Table = None,
    folds: o.Folds = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Out-of-fold predictions: .csv, .tsv or .json.")
    ] = None,
    overwrite: o.Overwrite = False,
    config: o.Config = None,
    log: o.Log = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Predict a label from sample vectors by nested, grouped cross-validation.

    The summary goes to standard output as a table, and to --output.

    Example: scset-tools probe samples.h5ad disease --groups-key donor -o scores.csv
    """
    arguments = dict(locals())
    with session("probe", arguments, log=log, quiet=quiet, debug=debug) as run:
        from scset_tools.cli import _commands

        table = _commands.probe(
            samples,
            label,
            session=run,
            out=output,
            folds=folds,
            predictions=predictions,
            overwrite=overwrite,
            use_rep=use_rep,
            obsp_key=obsp_key,
            groups_key=groups_key,
            probe=probe,
            target=target,
            event_key=event_key,
            cv=cv,
            n_repeats=n_repeats,
            tune=not no_tune,
            n_permutations=n_permutations,
            rng=seed,
            n_jobs=n_jobs,
        )
    _show(table)


@app.command(
    epilog=EPILOG,
    help="Compare representations on identical folds.\n\nWith --sample-key the file holds cells, and each --method is fitted "
    f"anew on the training samples of each fold: a profile ({PROFILES}), a model ({MODELS}), or NAME{_methods.UNTRAINED} "
    "for a model with random weights. Without, the file holds sample vectors, and each --method is X or a key of obsm "
    "or obsp.\n\nExample: scset-tools benchmark cohort.h5ad disease --sample-key sample --groups-key donor --method mean "
    "--method kmeans_fractions --method maestro -o table.csv",
)
def benchmark(
    data: Annotated[
        Path,
        typer.Argument(metavar="FILE.H5AD", readable=False, help="Cells, or one row per sample.", show_default=False),
    ],
    labels: Annotated[list[str], typer.Argument(help="Columns of obs to predict.", show_default=False)],
    *,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="What to compare; may be repeated.",
            show_default=f"{', '.join(_methods.BENCHMARKED)}; of sample vectors X and all of obsm",
            autocompletion=_methods.starting_with_compared,
        ),
    ] = None,
    sample_key: o.MaybeSampleKey = None,
    groups_key: o.GroupsKey = None,
    modality: o.Modality = None,
    use_rep: o.UseRep = None,
    layer: o.Layer = None,
    labels_key: o.LabelsKey = None,
    batch_key: o.BatchKey = None,
    cell_type_key: o.CellTypeKey = None,
    probe: Annotated[
        list[str],
        typer.Option(
            "--probe", help="auto (after each label), logistic, ridge, mlp, knn, svc or cox; may be repeated."
        ),
    ] = ["auto"],  # noqa: B006  (typer copies it)
    event_key: o.EventKey = None,
    baseline: Annotated[str | None, typer.Option(metavar="METHOD", help="What the others are compared with.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric of the summary.", show_default="after the label")] = None,
    cv: o.Folding = 5,
    n_repeats: o.Repeats = 5,
    no_tune: o.NoTune = False,
    max_epochs: o.MaxEpochs = None,
    accelerator: o.Accelerator = "auto",
    build: o.Build = None,
    train: o.Train = None,
    seed: o.Seed = 0,
    n_jobs: o.Jobs = 1,
    output: o.Table = None,
    folds: o.Folds = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bars with intervals: .png, .pdf or .svg.")
    ] = None,
    overwrite: o.Overwrite = False,
    config: o.Config = None,
    log: o.Log = None,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    arguments = dict(locals())
    with session("benchmark", arguments, log=log, quiet=quiet, debug=debug) as run:
        from scset_tools.cli import _commands

        reads = {"use_rep": use_rep, "layer": layer, "labels_key": labels_key, "batch_key": batch_key}
        named = _given({"max_epochs": max_epochs, "accelerator": accelerator})
        table = _commands.benchmark(
            data,
            labels,
            session=run,
            methods=method,
            sample_key=sample_key,
            modalities=modality,
            setup={**reads, "cell_type_key": cell_type_key},
            build=_methods.settings_of(build, "--build"),
            train={**named, **_methods.settings_of(train, "--train")},
            seed=seed,
            out=output,
            folds=folds,
            figure=figure,
            overwrite=overwrite,
            groups_key=groups_key,
            event_key=event_key,
            probes=probe,
            baseline=baseline,
            metric=metric,
            cv=cv,
            n_repeats=n_repeats,
            tune=not no_tune,
            n_jobs=n_jobs,
        )
    _show(table)


for command in (_cohorts.prepare, _cohorts.report):
    app.command(epilog=EPILOG)(command)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _show(table: pd.DataFrame) -> None:
    try:
        sys.stdout.write(table.to_string(index=False, float_format=lambda value: f"{value:.3f}") + "\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try again when it ends
        typer.secho(f"error: standard output cannot be written: {error.strerror or error}.", err=True)
        raise typer.Exit(int(ExitCode.UNWRITABLE)) from error
