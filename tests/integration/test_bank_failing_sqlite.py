"""Calls of SQLite's own that fail, or at which the process is killed, by a library that is loaded before it."""

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from aim_sdk.bank.disk import segments
from aim_sdk.errors import AIMError
from tests.bank_acts import acts, check, prepared
from tests.bank_attacks import SMALL


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", SMALL)
    return prepared(tmp_path)


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int count, nth, code, sticky;
static char said[4096];

void fail_at(int the_nth, int the_code, int is_sticky, const char *where) {
    count = 0;
    nth = the_nth;
    code = the_code;
    sticky = is_sticky;
    strncpy(said, where, sizeof said - 1);
}

static int failing(int handle, const char *name) {
    if (!nth) return 0;
    char link[64], path[4096];
    if (!nth) {
        nth = atoi(getenv("SHIM_NTH"));
        code = atoi(getenv("SHIM_ERROR"));
        sticky = atoi(getenv("SHIM_STICKY"));
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "/bank")) return 0;
    count++;
    if (count != nth && !(sticky && count > nth)) return 0;
    if (!code) raise(SIGKILL);
    FILE *file = fopen(said, "a");
    fprintf(file, "%s %s\n", name, strrchr(path, '/') + 1);
    fclose(file);
    errno = code;
    return 1;
}

#define FAILS(name, type, declared, given)                          \
    type name declared {                                            \
        static type (*real) declared;                               \
        if (!real) real = dlsym(RTLD_NEXT, #name);                  \
        return failing(handle, #name) ? -1 : real given;            \
    }

FAILS(pwrite, ssize_t, (int handle, const void *data, size_t size, off_t at), (handle, data, size, at))
FAILS(pwrite64, ssize_t, (int handle, const void *data, size_t size, off64_t at), (handle, data, size, at))
FAILS(write, ssize_t, (int handle, const void *data, size_t size), (handle, data, size))
FAILS(fsync, int, (int handle), (handle))
FAILS(fdatasync, int, (int handle), (handle))
FAILS(ftruncate, int, (int handle, off_t size), (handle, size))
FAILS(ftruncate64, int, (int handle, off64_t size), (handle, size))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (compiler := shutil.which("gcc")):
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder / "shim.so"


def server(path: str, shim: str) -> None:
    """Fork a child per line of stdin, which does one act on a copy of the bank while a call of its fails."""
    kept, fail_at = Path(path).with_name("kept"), ctypes.CDLL(shim).fail_at
    for line in sys.stdin:
        act, nth, error, sticky, said = json.loads(line)
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(kept, path)
        child = os.fork()
        if child == 0:
            code = 3
            try:
                fail_at(nth, error, sticky, said.encode())
                acts(Path(path))[act]()
                code = 0
            except AIMError:
                code = 1
            except BaseException as raised:
                Path(said + " raw").write_text(repr(raised))
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


FEW = (("add", "compact", "rebuild"), (1, 3, 8, 13))
ALL = (("add", "tag", "replace", "remove", "compact", "import", "verify", "rebuild"), range(1, 2000, 3))


@pytest.mark.parametrize(("named", "nths"), [FEW, pytest.param(*ALL, marks=pytest.mark.slow)], ids=["few", "all"])
@pytest.mark.parametrize(
    ("error", "sticky"),
    [(errno.EIO, False), (errno.ENOSPC, True), (0, False)],
    ids=["EIO once", "ENOSPC from then on", "killed"],
)
def test_failing_calls_of_sqlite_lose_nothing(
    path: Path, shim: Path, named: Sequence[str], nths: Sequence[int], error: int, sticky: bool
) -> None:
    shutil.copytree(path, path.with_name("kept"))
    said = path.with_name("said")
    program = f"""
from aim_sdk.bank.disk import segments
from tests.integration.test_bank_failing_sqlite import server
segments.SEGMENT_BYTES = {SMALL}
server({str(path)!r}, {str(shim)!r})
"""
    env = {**os.environ, "LD_PRELOAD": str(shim)}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdin
    assert process.stdout
    try:
        for act in named:
            for nth in nths:
                said.write_text("")
                process.stdin.write(json.dumps([act, nth, error, int(sticky), str(said)]) + "\n")
                process.stdin.flush()
                code, failed = int(process.stdout.readline()), said.read_text()
                raw = Path(f"{said} raw")
                assert code in (0, 1, -signal.SIGKILL), (act, nth, failed, raw.exists() and raw.read_text())
                check(path, act, (act, nth, failed), acknowledged=code == 0)
                if not failed and code == 0:
                    break
    finally:
        process.kill()
        process.wait()
