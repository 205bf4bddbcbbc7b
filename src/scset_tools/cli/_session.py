"""What surrounds every command: messages, the JSON log, signals, and how errors become exit codes."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import IO, Any

import typer

from scset_tools.cli._exit import CommandError, ExitCode, Interrupted, message_of

LIBRARIES = ("scset-tools", "scvi-tools", "torch", "anndata", "numpy")


class Session:
    """Messages to the terminal and events to the log of one command.

    Parameters
    ----------
    command
        Name of the command.
    log
        File that events are appended to, one JSON object per line; None: no log.
    quiet
        Whether to keep messages and progress bars back.
    """

    def __init__(self, command: str, log: Path | None, *, quiet: bool) -> None:
        self.command, self.is_quiet, self._started = command, quiet, time.monotonic()
        self.shows_progress = not quiet and sys.stderr.isatty()
        self._log: IO[str] | None = None
        if log is not None:
            try:
                self._log = log.open("a", encoding="utf-8")
            except OSError as error:
                msg = f"The log {log} cannot be written: {error.strerror or error}."
                raise CommandError(msg, ExitCode.UNWRITABLE) from error

    def say(self, message: str) -> None:
        """A line for whoever watches; to standard error, so that standard output holds results alone."""
        if not self.is_quiet:
            typer.echo(message, err=True)

    def event(self, event: str, **fields: Any) -> None:
        """One line of the log, written at once: what happened before an interruption is kept."""
        if self._log is not None:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
            try:
                self._log.write(json.dumps(line, default=str) + "\n")
                self._log.flush()
            except OSError as error:
                name, self._log = self._log.name, None
                msg = f"The log {name} cannot be written: {error.strerror or error}."
                raise CommandError(msg, ExitCode.UNWRITABLE) from error

    def end(self, code: ExitCode, message: str | None = None) -> None:
        """The last line of the log, and the message of an error."""
        self.event(
            "end",
            command=self.command,
            status=code.name.lower(),
            exit_code=int(code),
            message=message,
            seconds=round(time.monotonic() - self._started, 3),
            processor_seconds=round(time.process_time(), 3),
            peak_memory_mb=_peak_memory_mb(),
        )
        if self._log is not None:
            self._log.close()


@contextmanager
def session(
    command: str, arguments: dict[str, Any], *, log: Path | None, quiet: bool, debug: bool
) -> Iterator[Session]:
    """Run the body of a command; leaves through :class:`typer.Exit` with the code of what went wrong.

    Parameters
    ----------
    command
        Name of the command.
    arguments
        Arguments for the log.
    log
        File of the log.
    quiet
        Whether to keep messages back.
    debug
        Whether to show the traceback of every error.
    """
    handlers = {number: signal.signal(number, _raise) for number in _stopping()}
    state: Session | None = None
    code, message, trace = ExitCode.DONE, None, ""
    try:
        if sys.stdout is None or sys.stdout.closed:
            msg = "Standard output is closed: results have nowhere to go."
            raise CommandError(msg, ExitCode.UNWRITABLE)
        state = Session(command, log, quiet=quiet)
        state.event("start", command=command, arguments=arguments, **_surroundings())
        with _tamed(state), redirect_stdout(sys.stderr):  # training libraries print; standard output is for results
            yield state
    except Interrupted as error:
        code, message = error.code, f"{command} was stopped by {error}; nothing was written."
    except Exception as error:  # noqa: BLE001  (every error gets its message and its code)
        code, message = _outcome(error)
        trace = traceback.format_exc() if debug or code is ExitCode.BUG else ""
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if code is not ExitCode.DONE:
            if trace:
                typer.echo(trace, err=True)
            typer.secho(f"error: {message}", err=True, fg="red" if sys.stderr.isatty() else None)
        if state is not None:
            state.end(code, message)
    if code is not ExitCode.DONE:
        raise typer.Exit(int(code))


def _outcome(error: Exception) -> tuple[ExitCode, str]:
    if isinstance(error, CommandError):
        return error.code, str(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return ExitCode.UNWRITABLE, str(error.strerror or error)
    if isinstance(error, KeyError | ValueError | TypeError):  # what the library says of data that do not fit
        return ExitCode.REQUEST, message_of(error)
    return ExitCode.BUG, f"{type(error).__name__}: {error}"


UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EISDIR,
)
"""What the system says of an output that cannot be written, as the folder of checkpoints."""


def _stopping() -> list[signal.Signals]:
    """Signals that end a command; a SIGHUP that is ignored stays so, as nohup asks."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    is_wanted = hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([hangup] if hangup is not None and is_wanted else [])]


def _raise(signum: int, frame: FrameType | None) -> None:
    del frame
    raise Interrupted(signum)


@contextmanager
def _tamed(state: Session) -> Iterator[None]:
    """Warnings as one line each, in the log as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", module="lightning")
        seen: set[str] = set()

        def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            del args, kwargs
            text = str(message)
            if text not in seen:
                seen.add(text)
                state.say(f"warning: {text}")
                state.event("warning", message=text)

        warnings.showwarning = show  # restored by catch_warnings
        yield


def _surroundings() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "host": platform.node(),
        "pid": os.getpid(),
        "folder": str(Path.cwd()),
    }


def _peak_memory_mb() -> float | None:
    """Largest resident memory of this process, in MB: Linux counts in kB, macOS in bytes, Windows not at all."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
