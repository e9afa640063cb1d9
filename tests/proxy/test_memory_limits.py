"""The memory limit a process is under, read from files as kernels and container runtimes write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshproxy.proxy.memory import cgroup_limit, limit_files, parse_limit, resident_bytes

V1_MOUNT = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
V1_CPU = "33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu"
V2_MOUNT = "31 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"

FILES = {
    "v2, a systemd service": (
        "0::/system.slice/mesh.service\n",
        V2_MOUNT,
        [
            "/sys/fs/cgroup/system.slice/mesh.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ],
    ),
    "v2, a container with a cgroup namespace": ("0::/\n", V2_MOUNT, ["/sys/fs/cgroup/memory.max"]),
    "v2, a container that sees its part of the host's tree": (
        "0::/kubepods/pod1/c1\n",
        "31 23 0:26 /kubepods/pod1/c1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw",
        ["/sys/fs/cgroup/memory.max"],
    ),
    "v2, another namespace's path": ("0::/../other\n", V2_MOUNT, ["/sys/fs/cgroup/memory.max"]),
    "v1": (
        "9:name=systemd:/\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n",
        f"{V1_CPU}\n{V1_MOUNT}",
        [
            "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ],
    ),
    "v1, the container's part mounted": (
        "4:memory:/docker/abc\n",
        V1_MOUNT.replace(" / /sys", " /docker/abc /sys"),
        ["/sys/fs/cgroup/memory/memory.limit_in_bytes"],
    ),
    "both, memory in v1": (
        "4:memory:/a\n0::/b\n",
        f"{V1_MOUNT}\n{UNIFIED}",
        [
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/unified/b/memory.max",
            "/sys/fs/cgroup/unified/memory.max",
        ],
    ),
    "a mount point with a space": (
        "0::/\n",
        "31 23 0:26 / /mnt/c\\040g rw - cgroup2 cgroup2 rw",
        ["/mnt/c g/memory.max"],
    ),
    "no cgroups": ("", "22 1 8:1 / / rw - ext4 /dev/sda rw", []),
    "nonsense": ("what\n::\n", "and\nthis - \n", []),
}


@pytest.mark.parametrize("case", FILES)
def test_limits_stand_in_the_files_of_every_group_on_the_way_up(case: str) -> None:
    cgroup, mountinfo, files = FILES[case]
    assert limit_files(cgroup, mountinfo) == files


@pytest.mark.parametrize(
    ("text", "limit"),
    [("134217728\n", 134217728), ("max\n", 0), ("9223372036854771712\n", 0), ("", 0), ("-1", 0), ("lots", 0)],
)
def test_a_limit_is_a_number_of_bytes_or_none(text: str, limit: int) -> None:
    assert parse_limit(text) == limit


def written(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_tightest_limit_counts_wherever_it_is_set(tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "/proc/self/cgroup": "0::/pods/one/proxy\n",
            "/proc/self/mountinfo": V2_MOUNT + "\n",
            "/sys/fs/cgroup/pods/one/proxy/memory.max": "max\n",
            "/sys/fs/cgroup/pods/one/memory.max": "134217728\n",
            "/sys/fs/cgroup/pods/memory.max": "8589934592\n",  # and the topmost group has no file
        },
    )
    assert cgroup_limit(f"{tmp_path}/proc/self", str(tmp_path)) == 128 << 20


def test_a_limit_of_cgroups_v1_is_read_too(tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "/proc/self/cgroup": "4:memory:/docker/abc\n0::/\n",
            "/proc/self/mountinfo": f"{V1_MOUNT}\n{UNIFIED}\n",
            "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "100663296\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert cgroup_limit(f"{tmp_path}/proc/self", str(tmp_path)) == 96 << 20


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup_limit(f"{tmp_path}/proc/self", str(tmp_path)) == 0


def test_resident_bytes_follow_what_is_allocated() -> None:
    before = resident_bytes()
    ballast = bytearray(b"x" * (32 << 20))
    assert resident_bytes() - before > 16 << 20
    assert len(ballast) == 32 << 20
