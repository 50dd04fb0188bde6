"""Where means are kept: what a process can still take, under limits on a part of the machine."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from embvar_kit.moments import memory

GB = 10**9


def version_2(group: str, limit: int | str, used: int, cached: int) -> dict[str, int | str]:
    stat = f"anon {used - cached}\nfile {cached}\ninactive_file {cached}"
    names = ("memory.max", "memory.current", "memory.stat")
    return dict(zip((f"{group}{name}" for name in names), (limit, used, stat), strict=True))


def version_1(group: str, limit: int, used: int, cached: int) -> dict[str, int | str]:
    stat = f"cache {cached}\ninactive_file 0\ntotal_inactive_file {cached}"
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    return dict(zip((f"memory/{group}{name}" for name in names), (limit, used, stat), strict=True))


JOB = "system.slice/slurmstepd.scope/job_7/"


@pytest.mark.parametrize(
    ("cgroup", "files", "left"),
    [
        # SLURM limits the job, and the step inside it has no limit of its own.
        (
            f"0::/{JOB}step_0\n",
            version_2(JOB, 8 * GB, 5 * GB, GB)
            | version_2(f"{JOB}step_0/", "max", 5 * GB, GB)
            | version_2("system.slice/", "max", 9 * GB, GB),
            [4 * GB],
        ),
        # Of two limits, both count; a container sees its own group at the top.
        (
            f"0::/{JOB}step_0\n",
            version_2(JOB, 8 * GB, 5 * GB, 0) | version_2(f"{JOB}step_0/", 2 * GB, GB, 0),
            [GB, 3 * GB],
        ),
        ("0::/../../elsewhere\n", version_2("", 2 * GB, GB, 0), [GB]),
        (
            "9:name=systemd:/\n5:cpu,cpuacct:/slurm\n4:memory:/slurm/job_7\n0::/\n",
            version_1("slurm/job_7/", 6 * GB, 5 * GB, 2 * GB)
            | version_1("slurm/", 2**63 - 4096, 20 * GB, 0),
            [3 * GB, 2**63 - 4096 - 20 * GB],
        ),
        ("0::/\n", {}, []),
    ],
    ids=["a job's", "two", "a container's", "version 1", "none"],
)
def test_limits_of_control_groups_are_read(system, cgroup, files, left):
    assert sorted(memory._left_in_groups(system(cgroup, files))) == left


def test_without_control_groups_the_machine_decides(tmp_path, monkeypatch):
    assert list(memory._left_in_groups(tmp_path)) == []
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    assert memory.available() == 1000


def test_a_limit_that_is_less_than_the_free_memory_sends_means_to_a_file(monkeypatch):
    free = psutil.virtual_memory().available
    assert memory.fit_into_memory(free // 100)
    monkeypatch.setattr(memory, "_left_in_groups", lambda: iter([free // 100]))
    assert memory.available() == free // 100 and not memory.fit_into_memory(free // 100)
    monkeypatch.setattr(memory, "_left_in_groups", lambda: iter([-5]))
    assert memory.available() == 0 and memory.fit_into_memory(0)


def test_a_worker_of_dask_knows_its_limit():
    distributed = pytest.importorskip("distributed")
    held = psutil.Process().memory_info().rss
    limit = 2 * held  # a worker that holds most of its limit pauses
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, memory_limit=limit, dashboard_address=":0"
        ) as local,
        distributed.Client(local) as client,
    ):
        told = client.submit(lambda: list(memory._left_to_worker())).result()
        within = client.submit(memory.available).result()
    assert len(told) == 1 and held / 2 < told[0] < 1.5 * held
    assert within <= told[0] + held / 2
    assert list(memory._left_to_worker()) == []
