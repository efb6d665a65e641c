"""Writes: whole or not at all, with the umask's permissions, on file systems that cannot do everything."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from aim_sdk.errors import ArtifactWriteError, ImageError
from aim_sdk.files.atomic import atomic, sync_folder, write_atomic, writing
from aim_sdk.files.jobs import alone, differences, kept_settings


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a" / "b", b"x")
        with alone(tmp_path / "lock"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == mode


def test_a_file_system_without_permissions_and_syncs_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    fsync = os.fsync

    def only_files(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(os, "fsync", only_files)
    write_atomic(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"before")
    script = f"""
import resource, signal
from pathlib import Path
from aim_sdk.errors import ArtifactWriteError
from aim_sdk.files.atomic import atomic, write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda p: write_atomic(p, bytes(5000)), lambda p: write_atomic(p, bytes(50_000_000))):
    try:
        write(Path({str(tmp_path / "a")!r}))
    except ArtifactWriteError as error:
        print(error.errno, error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines() == [f"27 {tmp_path / 'a'}: cannot be written (File too large)."] * 2
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


def test_a_block_that_fails_leaves_nothing_and_its_own_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ImageError), atomic(tmp_path / "a"):
        raise ImageError("not an image")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    message = r"x: cannot be written \(No space left on device\)\. The rest"
    with pytest.raises(ArtifactWriteError, match=message), writing(Path("x"), "The rest is safe."):
        raise full
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtifactWriteError, match=r"file/a: cannot be written \((Not a directory|File exists)\)"):
        write_atomic(tmp_path / "file" / "a", b"")
    assert os.listdir(tmp_path) == ["file"]


def test_the_longest_name_that_a_folder_takes(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("n" * 255), b"x")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"x"


def test_one_job_at_a_time(tmp_path: Path) -> None:
    lock, busy = tmp_path / "x" / ".lock", pytest.raises(ArtifactWriteError, match="another job is writing there")
    with alone(lock), busy, alone(lock):
        pass
    with alone(lock):
        pass


def test_differences_name_the_setting_and_not_its_whole_group(tmp_path: Path) -> None:
    kept = {"shots": 4, "task": {"name": "a", "files": {"x": "y" * 500}}, "gone": 1}
    wanted = {"shots": 8, "task": {"name": "a", "files": {"x": "z"}}, "gone": 1}
    shots, files = differences(kept, wanted)
    assert shots == "  shots: 4 there, 8 now"
    assert files.startswith('  task.files.x: "yyy')
    assert files.endswith('… there, "z" now')
    assert kept_settings(tmp_path / "none") is None
