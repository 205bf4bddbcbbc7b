"""The options that several commands share, described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scset_tools.cli._config import read_config

SampleKey = Annotated[
    str, typer.Option("--sample-key", "-s", metavar="COLUMN", help="Column of obs with the sample of each cell.")
]
MaybeSampleKey = Annotated[
    str | None,
    typer.Option(
        "--sample-key",
        "-s",
        metavar="COLUMN",
        help="Column of obs with the sample of each cell. Leave it out for a file of sample vectors.",
    ),
]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="H5AD", help="File of sample vectors to write.")]
Table = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Summary to write: .csv, .tsv or .json.")
]
Folds = Annotated[Path | None, typer.Option("--folds", metavar="FILE", help="One row per fold: .csv, .tsv or .json.")]
UseRep = Annotated[
    str | None,
    typer.Option(
        "--use-rep", metavar="KEY", help="Key of obsm to read instead of X; of modalities also rna=X_pca,adt=X_pca."
    ),
]
Layer = Annotated[
    str | None, typer.Option("--layer", metavar="KEY", help="Layer to read instead of X; of modalities also adt=clr.")
]
Modality = Annotated[
    list[str] | None,
    typer.Option(
        "--modality",
        "--modalities",
        metavar="NAME",
        help="Modality of an h5mu file; repeated (or rna,adt), several are joined.",
    ),
]
LabelsKey = Annotated[
    str | None,
    typer.Option("--labels-key", metavar="COLUMN", help="Label of each sample, for methods that learn from labels."),
]
BatchKey = Annotated[str | None, typer.Option("--batch-key", metavar="COLUMN", help="Technical batch of each cell.")]
CellTypeKey = Annotated[
    str | None, typer.Option("--cell-type-key", metavar="COLUMN", help="Cell types, for profiles that need them.")
]
GroupsKey = Annotated[
    str | None,
    typer.Option("--groups-key", metavar="COLUMN", help="Donor or study of each sample: never cut by a split."),
]
EventKey = Annotated[
    str | None,
    typer.Option("--event-key", metavar="COLUMN", help="For a label that is a time: whether its event was seen."),
]
MaxEpochs = Annotated[
    int | None, typer.Option(min=1, help="Passes over the training samples.", show_default="about 400 steps")
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Samples in a batch.", show_default="the model's default, 16")
]
Accelerator = Annotated[str, typer.Option(help="cpu, gpu, or auto: a GPU if there is one.")]
Build = Annotated[
    list[str] | None,
    typer.Option("--build", metavar="NAME=VALUE", help="Argument of the model, as n_latent=32; may be repeated."),
]
Train = Annotated[
    list[str] | None,
    typer.Option("--train", metavar="NAME=VALUE", help="Argument of train(), as n_cells=2000; may be repeated."),
]
Setup = Annotated[
    list[str] | None,
    typer.Option("--setup", metavar="NAME=VALUE", help="Further argument of setup_anndata(); may be repeated."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")]
Jobs = Annotated[int, typer.Option("--n-jobs", help="Processes, over folds. Results do not depend on it.")]
Folding = Annotated[int, typer.Option("--cv", min=2, help="Folds, stratified by the label.")]
Repeats = Annotated[int, typer.Option("--n-repeats", min=1, help="Times that the samples are split anew.")]
NoTune = Annotated[bool, typer.Option("--no-tune", help="Take default hyperparameters of the probe.")]
Backed = Annotated[bool, typer.Option("--backed", help="Leave X on disk: for cohorts larger than memory.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there already.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=read_config,
        help="Options from a .toml or .json file; what is on the command line wins.",
    ),
]
Log = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="Append events to this file, one JSON object per line.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No messages and no progress bars, errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
