"""How a command ends: one exit code and one message for each way."""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """What a pipeline can tell apart."""

    DONE = 0
    BUG = 1
    """Something unexpected; the traceback is shown."""
    USAGE = 2
    """The command line itself is wrong: an unknown option, a missing argument."""
    REQUEST = 3
    """The data do not fit the request: a key that is not there, one sample only, values that are not finite."""
    UNREADABLE = 4
    """An input is missing or cannot be read."""
    UNWRITABLE = 5
    """An output cannot be written, or is there already."""
    HUNG_UP = 129
    """The terminal is gone (SIGHUP)."""
    INTERRUPTED = 130
    """Interrupted from the keyboard (SIGINT)."""
    TERMINATED = 143
    """Terminated, as by a scheduler (SIGTERM)."""


class CommandError(Exception):
    """A message for the user and the code to exit with."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(BaseException):
    """A signal arrived. Not a KeyboardInterrupt, for which Lightning would exit with code 1."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.code = ExitCode(128 + signum)


def message_of(error: BaseException) -> str:
    """The text of an error; of a KeyError without the quotation marks that it adds."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
