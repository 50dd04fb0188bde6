"""Threads: no more than a container may run, and none that waits busily."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from embvar_kit import threads

VISIBLE = threads._visible()
JOB = "slurm/job_7/"


@pytest.mark.parametrize(
    ("cgroup", "files", "quotas"),
    [
        (f"0::/{JOB}step_0\n", {f"{JOB}cpu.max": "200000 100000"}, [2]),
        # The step may use all that the job may.
        (
            f"0::/{JOB}step_0\n",
            {f"{JOB}cpu.max": "150000 100000", f"{JOB}step_0/cpu.max": "max 100000"},
            [1.5],
        ),
        # A container sees its own group at the top.
        ("0::/../../elsewhere\n", {"cpu.max": "50000 100000"}, [0.5]),
        (
            "9:name=systemd:/\n5:cpu,cpuacct:/slurm\n4:memory:/\n0::/\n",
            {
                "cpu/slurm/cpu.cfs_quota_us": 400000,
                "cpu/slurm/cpu.cfs_period_us": 100000,
                "cpu/cpu.cfs_quota_us": -1,
                "cpu/cpu.cfs_period_us": 100000,
            },
            [4],
        ),
        # Mounted under the names of both controllers alone.
        (
            "5:cpu,cpuacct:/slurm\n",
            {
                "cpu,cpuacct/slurm/cpu.cfs_quota_us": 250000,
                "cpu,cpuacct/slurm/cpu.cfs_period_us": 100000,
            },
            [2.5],
        ),
        ("0::/\n", {"cpu.max": "max 100000"}, []),
        ("0::/\n", {}, []),
    ],
    ids=[
        "a job's",
        "of its parent",
        "a container's",
        "version 1",
        "two at once",
        "unlimited",
        "none",
    ],
)
def test_quotas_of_control_groups_are_read(system, cgroup, files, quotas):
    root = system(cgroup, files)
    assert list(threads._quotas(root)) == quotas
    assert threads.quota(root) == (math.ceil(min(quotas)) if quotas else None)
    assert threads.cores(root) == min([VISIBLE, *map(math.ceil, quotas)])


@pytest.mark.parametrize("text", ["no group\n", "0::/a\udcff\n"])
def test_what_no_kernel_writes_is_passed_over(tmp_path, text):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(text.encode(errors="surrogateescape"))
    assert threads.quota(tmp_path) is None


def test_what_the_environment_says_of_waiting_stands():
    for said in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}):
        environment = dict(said)
        threads.sleep_soon(environment)
        assert environment == said
    threads.sleep_soon(environment := {})
    assert environment == {"GOMP_SPINCOUNT": threads.SPINS}


LOADS = """
import torch
from embvar_kit import threads
threads.granted = lambda: {quota}
torch.set_num_threads(16)
threads.limit_threads()
print(torch.get_num_threads())
torch.set_num_threads(5)
threads.limit_threads()
print(torch.get_num_threads())
"""


@pytest.mark.parametrize(
    ("quota", "given", "used"),
    [(2, None, "2"), (2, "16", "16"), (32, None, "16"), (None, None, "16")],
)
def test_pytorch_has_no_more_threads_than_a_quota_unless_told_so(quota, given, used):
    environment = {name: said for name, said in os.environ.items() if name != "OMP_NUM_THREADS"}
    if given:
        environment["OMP_NUM_THREADS"] = given
    assert run(LOADS.format(quota=quota), environment).split() == [used, "5"]


def test_numba_takes_the_number_that_openmp_was_given():
    for said, number in (("1", "1"), (" 4,2", "4"), ("0", None), ("many", None), (None, None)):
        environment = {} if said is None else {"OMP_NUM_THREADS": said}
        threads.agree(environment)
        assert environment.get("NUMBA_NUM_THREADS") == number
    threads.agree(environment := {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "3"})
    assert environment["NUMBA_NUM_THREADS"] == "3"


STARTS = """
import numpy as np
import torch
torch.set_num_threads(3)
torch.ones(2**20).add_(1)  # a thread's first work with PyTorch sets its number once more
from embvar_kit.moments.grouped import GroupedMoments
GroupedMoments(2, 4).update(np.ones((8, 4), np.float32), np.zeros(8, int))
print(torch.get_num_threads())
"""


def test_pytorch_keeps_its_threads_when_numbas_start():
    """They share OpenMP, whose number of threads Numba sets to its own."""
    assert run(STARTS, {**os.environ, "NUMBA_NUM_THREADS": "16"}).split() == ["3"]


LATER = """
import numpy as np
from embvar_kit.moments.grouped import GroupedMoments
GroupedMoments(2, 4).update(np.ones((8, 4), np.float32), np.zeros(8, int))
import torch
print(torch.get_num_threads())
"""


def test_pytorch_loaded_after_numbas_start_has_the_number_that_openmp_was_given():
    environment = {name: said for name, said in os.environ.items() if "NUM_THREADS" not in name}
    assert run(LATER, {**environment, "OMP_NUM_THREADS": "1"}).split() == ["1"]


NESTS = """
import ctypes
import numba
import numpy as np
import torch
from embvar_kit.moments.grouped import GroupedMoments

openmp, start = ctypes.CDLL(None), numba.get_num_threads

def start_as_some_releases():
    numba.get_num_threads = start
    openmp.omp_set_nested(1)
    return start()

numba.get_num_threads = start_as_some_releases
GroupedMoments(2, 4).update(np.ones((8, 4), np.float32), np.zeros(8, int))
print(openmp.omp_get_nested())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU's OpenMP")
@pytest.mark.parametrize(("asked", "nested"), [({}, "0"), ({"OMP_NESTED": "true"}, "1")])
def test_no_thread_of_pytorch_starts_a_team_of_its_own_unless_asked_to(asked, nested):
    """Whatever Numba allows as it starts."""
    names = ("OMP_NESTED", "OMP_MAX_ACTIVE_LEVELS")
    environment = {name: said for name, said in os.environ.items() if name not in names}
    assert run(NESTS, {**environment, **asked}).split() == [nested]


def test_kernels_are_shared_out_among_as_many_threads_as_a_quota_grants(monkeypatch):
    import numba

    from embvar_kit.moments import kernels

    most = numba.get_num_threads()
    for quota, wanted in ((1, 1), (most + 1, most), (None, most)):
        monkeypatch.setattr(threads, "granted", lambda quota=quota: quota)
        with kernels.sharing_out() as number:
            assert number == numba.get_num_threads() == wanted
        assert numba.get_num_threads() == most


WAITS = """
import time
import embvar_kit
import torch
torch.set_num_threads(2)
x = torch.ones(2**20)
x.add_(1)
before = time.process_time()
for _ in range(300):
    x[: 2**17].add_(1)
    time.sleep(0.003)
print(time.process_time() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU's OpenMP")
@pytest.mark.skipif(VISIBLE < 2, reason="needs two cores: on one, OpenMP lets no thread spin long")
def test_a_thread_that_waits_does_not_take_the_time_of_others():
    """300 small sums, three milliseconds apart, as they wait without the kit and with it."""
    unset = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    environment = {name: said for name, said in os.environ.items() if name not in unset}
    busily = float(run(WAITS, {**environment, "GOMP_SPINCOUNT": "300000"}))
    assert float(run(WAITS, environment)) < busily / 2


def run(code: str, environment: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
