"""Threads: no more than a container may run, and none that waits busily."""

from __future__ import annotations

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
        ("0::/\n", {"cpu.max": "max 100000"}, []),
        ("0::/\n", {}, []),
    ],
    ids=["a job's", "of its parent", "a container's", "version 1", "unlimited", "none"],
)
def test_quotas_of_control_groups_are_read(system, cgroup, files, quotas):
    root = system(cgroup, files)
    assert list(threads._quotas(root)) == quotas
    assert threads.cores(root) == max(1, min([VISIBLE, *(-(-quota // 1) for quota in quotas)]))


def test_a_quota_below_the_cores_in_sight_sets_the_number_of_threads(system, monkeypatch):
    monkeypatch.setattr(threads, "_visible", lambda: 16)
    root = system("0::/\n", {"cpu.max": "200000 100000"})
    environment = {"NUMBA_NUM_THREADS": "3"}
    threads.prepare(environment, root)
    assert environment == {
        "OMP_NUM_THREADS": "2",
        "NUMBA_NUM_THREADS": "3",
        "GOMP_SPINCOUNT": threads.SPINS,
    }


def test_what_the_environment_says_of_waiting_stands(system):
    root = system("0::/\n", {})
    for said in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}):
        environment = dict(said)
        threads.prepare(environment, root)
        assert environment == said


TORCH_FIRST = """
import torch
torch.set_num_threads(16)
from embvar_kit import threads
threads._visible, threads._quotas = (lambda: 16), (lambda root: iter([2.0]))
threads.limit_threads()
print(torch.get_num_threads())
"""


@pytest.mark.parametrize(("given", "used"), [(None, "2"), ("16", "16")])
def test_pytorch_that_was_loaded_first_is_limited_too(given, used):
    environment = {name: said for name, said in os.environ.items() if name != "OMP_NUM_THREADS"}
    if given:
        environment["OMP_NUM_THREADS"] = given
    assert run(TORCH_FIRST, environment).strip() == used


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


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP")
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
