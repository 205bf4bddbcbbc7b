"""Options of a command from a file: what is written once need not be typed again, and can be kept with the results."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import typer

from scset_tools import _checks
from scset_tools.cli._exit import ExitCode


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options of a TOML or JSON file as defaults of the command that is run.

    Keys are names of options or arguments, with ``-`` or ``_``. A table named after a command (``[fit]``) holds for that command
    alone and wins over the keys outside it. ``build``, ``train`` and ``setup`` are tables of their own.

    Parameters
    ----------
    context
        Of the command.
    path
        File; None: none was given.
    """
    if path is None or context.resilient_parsing:
        return path
    settings = _read(path)
    command = str(context.command.name)
    tables = set(getattr(context.parent.command, "commands", {})) if context.parent else set()  # of all commands
    chosen = {k: v for k, v in settings.items() if k not in tables} | dict(settings.get(command, {}))
    parameters = {str(p.name): p for p in context.command.params if p.name != "config"}
    defaults: dict[str, Any] = {}
    for key, value in chosen.items():
        name = key.replace("-", "_")
        if name not in parameters:
            known = _checks.first([n.replace("_", "-") for n in parameters], 50)
            _leave(f"{path}: {command} has no option {key!r}. There are: {known}.", ExitCode.USAGE)
        is_list = getattr(parameters[name], "multiple", False) or parameters[name].nargs == -1
        if isinstance(value, dict):
            if name not in ("build", "train", "setup"):
                _leave(f"{path}: {key} takes one value, not a table.", ExitCode.USAGE)
            value = [f"{k}={json.dumps(v)}" for k, v in value.items()]
        elif isinstance(value, list) != is_list:
            if not is_list:
                _leave(f"{path}: {key} takes one value, not a list.", ExitCode.USAGE)
            value = [value]
        defaults[name] = value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        _leave(f"{path} cannot be read: {error.strerror or error}.", ExitCode.UNREADABLE)
    except ValueError as error:  # of both parsers, and of bytes that are no text
        _leave(f"{path} is no valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}.", ExitCode.UNREADABLE)
    if not isinstance(settings, dict):
        _leave(f"{path} must hold options by name, but holds a {type(settings).__name__}.", ExitCode.USAGE)
    return settings


def _leave(message: str, code: ExitCode) -> Any:
    """End before the command begins; there is no log yet."""
    typer.secho(f"error: {message}", err=True)
    raise typer.Exit(int(code))
