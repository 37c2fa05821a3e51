"""The one hierarchy of errors that the plant raises on purpose.

Every message names the file, key or setting at fault and what to do about it. A class is added here when a caller needs
to tell one failure from another; a new wording alone needs no class.
"""

import errno
from collections.abc import Mapping

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the operating system's errors that mean `NoSpaceError`."""

DISK_BUSY = (errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)
"""Numbers of errors after which the same file may be read or written a little later."""


class SkyScriptError(Exception):
    """Base of every error raised on purpose; its message is fit to be shown to a user as it stands."""


class StoppedError(Exception):
    """The process was asked to end, by the signal `signum`; raised where whatever is finished stays."""

    def __init__(self, signum: int) -> None:
        super().__init__("stopped; finished parts are kept: the same command continues")
        self.signum = signum


class SettingsError(SkyScriptError):
    """A settings folder or one of its files is missing, unreadable or wrong."""


class MissingInputError(SkyScriptError):
    """A file that the settings name does not exist or cannot be opened."""


class CorruptInputError(SkyScriptError):
    """A file was found but is truncated, of another format, or inconsistent."""


class DigestMismatchError(SkyScriptError):
    """A file's digest is not the one that was promised."""


class NotCoveredError(SkyScriptError):
    """An extract or a source does not reach the region that was asked for."""


class SceneError(SkyScriptError):
    """A scene cannot be used: no CRS, no georeference, too few bands, too large."""


class TooManyFailuresError(SkyScriptError):
    """More items of a stage could not be read than its settings allow."""


class UnreachableError(SkyScriptError):
    """A server gave no usable answer after every try; a later run may succeed."""


class RefusedError(CorruptInputError):
    """A server refuses a file, or does not have it: no later try will do, and what depends on it is unreadable.

    `status` is the HTTP status, 0 where there is none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class UpstreamMissingError(SkyScriptError):
    """An output was asked for before the outputs it is made from exist."""


class OutputSchemaError(SkyScriptError):
    """A stored output was written by another schema and cannot be read."""


class CheckFailedError(SkyScriptError):
    """What a stage made breaks a rule that later stages rely on: `check`, by name, with `evidence` as JSON values."""

    def __init__(self, message: str, check: str, evidence: Mapping[str, object]) -> None:
        super().__init__(message)
        self.check, self.evidence = check, evidence


class OutputBusyError(SkyScriptError):
    """Another process is writing the same output."""


class PoolBusyError(SkyScriptError):
    """No slot of a pool became free in the time that a run may wait."""


class NoSpaceError(SkyScriptError):
    """The disk is full, or would be."""


class StorageError(SkyScriptError):
    """The data folder cannot be read or written."""


class TooLittleDataError(SkyScriptError):
    """There are too few pairs, captions or cells to train or to score."""


class DivergedError(SkyScriptError):
    """Training came to a loss or a gradient that is no finite number."""


class PretrainedWeightsError(SkyScriptError):
    """Pretrained weights are not installed, not readable or not the expected ones."""


def no_space(error: BaseException) -> bool:
    """Whether an error says that a disk is full; DuckDB and others say it in words alone."""
    words = ("No space left on device", "Disk quota exceeded")
    return getattr(error, "errno", None) in DISK_FULL or any(word in str(error) for word in words)


def may_pass(error: BaseException) -> bool:
    """Whether the same may go well a little later, though nobody changed anything: server, lock, disk."""
    busy = isinstance(error, StorageError) and getattr(error.__cause__, "errno", None) in DISK_BUSY
    return busy or isinstance(error, UnreachableError | OutputBusyError | NoSpaceError)
