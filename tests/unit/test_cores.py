"""Threads that prepare, and threads that hand over, have no helpers of OpenMP."""

import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info

SCRIPT = """
import threading, time
import psutil, torch
from aim_sdk.support.cores import hand_over_cores, leave_cores

def threads():
    return {thread.id for thread in psutil.Process().threads()}

def compute():
    torch.randn(64, 64, 64).add_(1).mul_(2).sum()

def helpers(*work):
    found = []
    def run():
        before = threads()
        for one in work:
            one()
        time.sleep(1)  # helpers end a little later
        found.append(len(threads() - before))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]

torch.set_num_threads(3)
print(helpers(compute), helpers(leave_cores, compute))
print(helpers(compute, hand_over_cores), helpers(compute, hand_over_cores, compute))
"""


@pytest.mark.skipif(
    not any(found["prefix"] == "libgomp" for found in threadpool_info()), reason="another OpenMP than GNU's"
)
def test_helpers_of_a_thread() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    computing, preparing, handed_over, again = map(int, done.stdout.split())
    assert computing == again == 2
    assert preparing == handed_over == 0
