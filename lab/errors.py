"""Errors that a user sees: one line (what, where, what to do) and an exit code."""


class LabError(Exception):
    """Something a user can mend. `lab.study` prints the message as one line and exits with `exit_code`."""

    exit_code = 1


class SpecError(LabError, ValueError):
    """The command line or the study file asks for something impossible."""

    exit_code = 2


class TooManyFailures(LabError):
    """The study ended, but so many trials failed that its conclusions are not to be trusted."""

    exit_code = 3


class StudyInUse(LabError):
    """Another coordinator holds the study."""

    exit_code = 4


class StorageError(LabError):
    """A database, the disk or a file of the run history cannot be used."""

    exit_code = 5


class DataError(LabError, ValueError):
    """A data set is missing, truncated or not what it claims to be."""

    exit_code = 6


class SpecChanged(LabError):
    """The study file differs from the study that is stored under its name."""

    exit_code = 7


def one_line(error: BaseException | str) -> str:
    """Return the text of an error, or any text, without line breaks."""
    return " ".join(str(error).split())
