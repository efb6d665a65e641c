"""Atomic writes: a reader never sees a half-written file, even after a power loss."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aim_sdk.errors import AIMError, ArtifactWriteError, InputError

_NO_SUCH_OPERATION = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
"""Errors of file systems that cannot sync a folder (FUSE, some network ones); nothing more can be done there."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file, or nothing.

    Raises:
        ArtifactWriteError: it cannot be written; what was there before is untouched.
    """
    with atomic(path) as file:
        file.write(data)


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbour for writing; when the block ends, sync it and rename it over ``path``, a link too.

    The file gets the permissions that the umask leaves, as any new file.

    Raises:
        ArtifactWriteError: it cannot be written; what was there before is untouched.
    """
    with writing(path):
        if path.exists() and not path.is_file():
            raise ArtifactWriteError(f"{path}: a folder, a device or a pipe; expected a file to write, or no file yet.")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".aim-{secrets.token_hex(8)}.tmp"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def writing(path: Path, kept: str = "") -> Iterator[None]:
    """Say what could not be written if the block meets a system error; ``kept`` says what is safe.

    Raises:
        ArtifactWriteError: it names the path and the reason.
    """
    try:
        yield
    except AIMError:
        raise
    except OSError as error:
        failed = ArtifactWriteError(f"{path}: cannot be written ({error.strerror or error}).{kept and ' ' + kept}")
        failed.errno, failed.strerror = error.errno, error.strerror
        raise failed from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, if its file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SUCH_OPERATION:
            raise
    finally:
        os.close(handle)


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` expanded; an unknown user's home stays as written, and is then not found."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{path!r} is not the name of a file or folder; expected a string or a path.")
    return Path(os.path.expanduser(path))
