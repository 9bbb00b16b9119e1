"""Build the guest's disk, kernel and initial file system: a Debian that is what a docking station runs, no more.

Everything is kept in a directory named after what it was made of, and made anew when that changes. Needs root, since
Debian's packages are unpacked with their owners; nothing is mounted.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("DOCKD_RIG_CACHE") or Path(__file__).parents[3] / ".cache" / "rig")
SUITE = "bookworm"
DISK_BYTES = 3 << 30  # sparse
_KEPT_S = 3600
_PACKAGES = [
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "procps",
    "iproute2",
    "nftables",
    "util-linux",
    "ca-certificates",
    "python3",
    "python3-venv",
    "libudev1",
    "dosfstools",
    "exfatprogs",
    "e2fsprogs",
    "qemu-guest-agent",
    "busybox-static",
    "strace",
    "usbutils",
]
_DRIVERS = ["usb", "scsi", "hid", "block", "md", "virtio", "char", "cdrom", "nls"]
_KERNEL_PARTS = ["block", "crypto", "lib", "fs", "mm", "net"]
_REACH_ROOT = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")  # what the root disk is behind
_MASKED = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-networkd-wait-online.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "getty@tty1.service",
    "console-getty.service",
    "serial-getty@ttyS0.service",
]

_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
while read -r module; do $b insmod "/modules/$module"; done </modules/order
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 200 ]; do $b sleep 0.05; tries=$((tries + 1)); done
$b mount -t ext4 -o rw,noatime /dev/vda /new || exec $b sh
$b umount /proc /sys
$b mount --move /dev /new/dev
exec $b switch_root /new /sbin/init
"""
_FILES = {
    "etc/hostname": "dock\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 dock\n10.0.2.2 receiver\n",
    "etc/machine-id": "d0c0d0c0d0c0d0c0d0c0d0c0d0c0d0c0\n",
    "etc/systemd/network/10-wire.network": "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n"
    "LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    "etc/systemd/journald.conf.d/rig.conf": "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n",
    # Nobody types here; what counts is in the image, not on the clock of an emulated processor.
    "etc/systemd/system.conf.d/rig.conf": "[Manager]\nDefaultTimeoutStartSec=180s\n",
}


def base() -> Path:
    """The directory with `root.ext4`, `vmlinuz` and `initrd`, built unless it is there."""
    key = _key()
    made = CACHE / f"base-{key}"
    with _alone(CACHE / "lock"):
        if not (made / "done").exists():
            forget("base-*")
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            _build(made)
            (made / "done").touch()
        os.utime(made)
    return made


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


alone = _alone


def forget(pattern: str) -> None:
    """Remove what nothing was made from for a while. What another run uses at this moment stays."""
    for old in CACHE.glob(pattern):
        if time.time() - old.stat().st_mtime > _KEPT_S:
            shutil.rmtree(old, ignore_errors=True)


def _key() -> str:
    made_of = (SUITE, DISK_BYTES, _PACKAGES, _DRIVERS, _KERNEL_PARTS, _REACH_ROOT, _MASKED, _INIT, _FILES)
    made_by = [inspect.getsource(step) for step in (_build, _add_kernel, _make_initrd)]
    return hashlib.sha256(repr((made_of, made_by)).encode()).hexdigest()[:16]


def _build(directory: Path) -> None:
    root = directory / "root"
    _run(
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(_PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
        SUITE,
        str(root),
    )
    release = _add_kernel(directory, root)
    _make_initrd(directory, root, release)
    for name, content in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "var/lib/dockd").mkdir(parents=True)
    _run("systemctl", f"--root={root}", "-q", "enable", "systemd-networkd.service")
    _run("systemctl", f"--root={root}", "-q", "mask", *_MASKED)
    disk = directory / "root.ext4"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    _run("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", str(root), str(disk))
    shutil.rmtree(root)


def _add_kernel(directory: Path, root: Path) -> str:
    """The generic kernel, since Debian's for clouds knows no USB. Unpacked, so that nothing else comes with it."""
    unpacked = directory / "kernel"
    unpacked.mkdir()
    depends = _output("apt-cache", "depends", "linux-image-amd64").splitlines()
    package = next(line.split()[-1] for line in depends if "Depends: linux-image-" in line)
    _run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package, cwd=unpacked)
    _run("dpkg-deb", "-x", str(next(unpacked.glob("*.deb"))), str(unpacked))
    release = next((unpacked / "lib/modules").iterdir()).name
    shutil.copy(unpacked / "boot" / f"vmlinuz-{release}", directory / "vmlinuz")
    source, target = unpacked / "lib/modules" / release, root / "lib/modules" / release
    parts = [*(f"kernel/{part}" for part in _KERNEL_PARTS), *(f"kernel/drivers/{part}" for part in _DRIVERS)]
    for part in (*parts, "kernel/arch/x86/crypto"):
        if (source / part).exists():
            shutil.copytree(source / part, target / part)
    (target / "kernel/drivers/net").mkdir()
    for module in source.glob("kernel/drivers/net/*.ko"):
        shutil.copy(module, target / "kernel/drivers/net")
    for index in (*source.glob("modules.builtin*"), source / "modules.order"):
        shutil.copy(index, target)
    subprocess.run(["depmod", "-b", str(root), release], check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(unpacked)
    return release


def _make_initrd(directory: Path, root: Path, release: str) -> None:
    tree = directory / "initrd.tree"
    for name in ("bin", "modules", "proc", "sys", "dev", "new"):
        (tree / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "bin/busybox")
    wanted: dict[str, None] = {}
    for module in _REACH_ROOT:
        for line in _output("modprobe", "-d", str(root), "-S", release, "--show-depends", module).splitlines():
            if line.startswith("insmod "):
                wanted[line.split()[1]] = None
    for path in wanted:
        shutil.copy(path, tree / "modules")
    (tree / "modules/order").write_text("".join(f"{Path(path).name}\n" for path in wanted))
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    names = "\0".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o0", "-H", "newc", "--quiet"], input=names.encode(), cwd=tree, check=True, capture_output=True
    )
    (directory / "initrd").write_bytes(packed.stdout)
    shutil.rmtree(tree)


def _run(*words: str, cwd: Path | None = None) -> None:
    done = subprocess.run(words, cwd=cwd, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{words[0]}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
