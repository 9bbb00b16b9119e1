"""Tries, as a reader that somebody took over would, each thing that docs/threat-model.md says it is kept from.

A program: `python -I confinement_probe.py PLAN`, where PLAN is JSON: "state", a directory to work in; "files" and
"sockets" of the station, by what they are; "uid", whom to become. It plays the daemon. A reader is forked as the fork
server does it, and confined by the very calls; beside it a child that is not confined tries the same, since what that
cannot do either shows nothing. Prints a line of JSON: of each attempt, what came of it for both.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import signal
import socket
import sys
import traceback
from pathlib import Path

from dockd.model import Medium, MediumKind, Volume
from dockd.reader import confine, kernel, landlock, syscalls

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
COLUMN = 0 if platform.machine() == "x86_64" else 1


def call(name, *arguments):
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]  # else half a register is noise
    result = libc.syscall(syscalls.NUMBERS[name][COLUMN], *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def opens(path, flags=os.O_RDONLY, directory=None):
    os.close(os.open(path, flags | os.O_CLOEXEC, dir_fd=directory))


def connects(family, address):
    with socket.socket(family, socket.SOCK_STREAM if family != socket.AF_UNIX else socket.SOCK_SEQPACKET) as made:
        made.connect(address)


def asks(path):
    """Connect to a Unix socket of either type."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as made:
            try:
                made.connect(path)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
            else:
                return


def sends(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", address)


def becomes(program):
    os.execv(program, [program])  # noqa: S606  it is tried


def forks(then=lambda: None):
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            then()
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code > 0:
        raise OSError(code, "in a child")


def signals_by_descriptor(pid):
    """The kernel sends it, as soon as something comes through a pipe."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, pid)
    fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writing, b"x")


def traces(pid):
    call("ptrace", 0x4206, pid, 0, 0)  # PTRACE_SEIZE; it ends with this child


def reads_memory(pid, address):
    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    into = ctypes.create_string_buffer(8)
    ours, theirs = Vector(ctypes.addressof(into), 8), Vector(address, 8)
    call("process_vm_readv", pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)


def attempts(plan, incoming, camera, daemon, secret):
    """By name, in the order of the table in docs/threat-model.md."""
    state, files, sockets = Path(plan["state"]), plan["files"], plan["sockets"]
    victim = state / "victim"
    port = plan["port"]
    return {
        "another camera's files": lambda: opens(state / "bays/2/CAM-2/A.MP4"),
        "another camera's files, from its own bay": lambda: opens("../../2/CAM-2/A.MP4", directory=camera),
        "another docking's corner of the spool": lambda: opens(state / "spool/incoming/two/x.part", os.O_WRONLY),
        "the same, from its own corner": lambda: opens("../two/x.part", os.O_WRONLY, incoming),
        "sealed clips in the spool": lambda: opens(state / "spool/a.age"),
        "the station's keys": lambda: opens(files["key"]),
        "the journal, to read": lambda: opens(files["journal"]),
        "the journal, to write": lambda: opens(files["journal"], os.O_WRONLY),
        "the station's configuration": lambda: opens(files["config"]),
        "cutting a file by its name": lambda: os.truncate(victim, 1),
        "changing a file's mode by its name": lambda: os.chmod(victim, 0o640),
        "setting a file's times by its name": lambda: os.utime(victim, (1, 1)),
        "renaming a file": lambda: os.rename(victim, victim.with_name("victim2")),
        "removing a file": lambda: os.unlink(state / "doomed"),
        "making a file": lambda: opens(state / f"made-{os.getpid()}", os.O_WRONLY | os.O_CREAT),
        "listing a directory": lambda: os.listdir("/"),
        "programs and libraries, as files": lambda: opens("/bin/sh"),
        "the control socket": lambda: asks(sockets["control"]),
        "the write blocker": lambda: asks(sockets["blocker"]),
        "TCP": lambda: connects(socket.AF_INET, ("127.0.0.1", port)),
        "UDP": lambda: sends(socket.AF_INET, ("127.0.0.1", port)),
        "IPv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close(),
        "abstract Unix sockets": lambda: asks(plan["abstract"]),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "a pair of sockets": lambda: [one.close() for one in socket.socketpair()],
        "starting a program": lambda: forks(lambda: becomes("/bin/true")),
        "becoming a program": lambda: becomes("/nowhere"),
        "processes of its own": forks,
        "a user namespace": lambda: forks(lambda: call("unshare", 0x10000000)),
        "signals to the daemon": lambda: os.kill(daemon, 0),
        "signals to the daemon, by a descriptor": lambda: signals_by_descriptor(daemon),
        "a handle on the daemon": lambda: os.close(os.pidfd_open(daemon)),
        "the daemon's memory, in /proc": lambda: opens(f"/proc/{daemon}/mem"),
        "the daemon's memory, by a call": lambda: reads_memory(daemon, secret),
        "tracing the daemon": lambda: traces(daemon),
        "the daemon's environment": lambda: opens(f"/proc/{daemon}/environ"),
        "the daemon's descriptors": lambda: os.listdir(f"/proc/{daemon}/fd"),
        "the daemon's limits": lambda: call("prlimit64", daemon, 7, None, None),
        "io_uring": lambda: call("io_uring_setup", 1, ctypes.create_string_buffer(256)),
        "BPF": lambda: call("bpf", 0, None, 0),
        "userfaultfd": lambda: call("userfaultfd", 1),
        "performance counters": lambda: call("perf_event_open", None, 0, -1, -1, 0),
        "being looked at by its own user": becomes_dumpable,
    }


def becomes_dumpable():
    """Stands for what others of the same user may do to it: ptrace, /proc/PID/mem."""
    libc.prctl(4, 1, 0, 0, 0)
    if not kernel.may_dump():
        raise OSError(errno.EPERM, "it stays as it is")


def needed(incoming, camera):
    """What a reader has to be able to do after all that."""

    def seals():
        fd = os.open("mine.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=incoming)
        os.write(fd, b"sealed")
        os.fsync(fd)
        os.close(fd)
        os.rename("mine.part", "mine.age", src_dir_fd=incoming, dst_dir_fd=incoming)
        os.fsync(incoming)

    def erases():
        fd = os.open("A.MP4", os.O_RDWR, dir_fd=camera)
        os.rename("A.MP4", "remnant", src_dir_fd=camera, dst_dir_fd=camera)
        os.write(fd, bytes(4))
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, 0)
        os.close(fd)
        os.unlink("remnant", dir_fd=camera)

    return {
        "listing its camera": lambda: os.listdir(camera),
        "looking whether its camera is in its bay": lambda: os.listdir(os.open("..", os.O_RDONLY, dir_fd=camera)),
        "reading its camera": lambda: opens("A.MP4", directory=camera),
        "sealing into its corner of the spool": seals,
        "erasing from its camera": erases,
        "ending itself": lambda: os.kill(os.getpid(), 0),
    }


def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    except Exception:  # noqa: BLE001  shown to whoever reads the test's result
        return traceback.format_exc()
    return "done"


def make(state):
    """A little of what a station has."""
    for place in ("bays/1/CAM-1", "bays/2/CAM-2", "spool/incoming/one", "spool/incoming/two"):
        (state / place).mkdir(parents=True)
    for file in (
        "bays/1/CAM-1/A.MP4",
        "bays/2/CAM-2/A.MP4",
        "spool/incoming/two/x.part",
        "spool/a.age",
        "victim",
        "doomed",
    ):
        (state / file).write_bytes(b"its content")


def in_child(work):
    """What `work` returns, from a child: JSON through a pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(work(writing)).encode())
        except BaseException:  # noqa: BLE001  as above
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        told = file.read()
    os.waitpid(pid, 0)
    return json.loads(told)


def main():
    plan = json.loads(sys.argv[1])
    if plan.get("uid"):
        os.setgroups([])
        os.setresgid(plan["uid"], plan["uid"], plan["uid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
        libc.prctl(4, 1, 0, 0, 0)  # it was cleared by that; a daemon that starts as its own user has it
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    state = Path(plan["state"])
    make(state)
    listener = socket.create_server(("127.0.0.1", 0))
    plan["port"] = listener.getsockname()[1]
    abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plan["abstract"] = f"\0dockd-probe-{os.getpid()}"
    abstract.bind(plan["abstract"])
    abstract.listen()
    secret = ctypes.create_string_buffer(b"secret!!")
    daemon, address = os.getpid(), ctypes.addressof(secret)
    incoming = os.open(state / "spool/incoming/one", os.O_RDONLY | os.O_DIRECTORY)
    camera = os.open(state / "bays/1/CAM-1", os.O_RDONLY | os.O_DIRECTORY)
    volume = Volume(name="", filesystem="folder", volume_id="x", root_fd=camera)

    def tries(_):
        return {name: outcome(one) for name, one in attempts(plan, incoming, camera, daemon, address).items()}

    def as_server(pipe):
        confine.confine_server()
        server = os.getpid()

        def as_reader(inner):
            confine.confine_reader(server, (incoming, camera, inner))
            unmet = confine.seal_off(incoming, Medium(kind=MediumKind.FOLDER, volumes=(volume,)))
            told = tries(None)
            can = {name: outcome(one) for name, one in needed(incoming, camera).items()}
            return {"unmet": unmet, "told": told, "needed": can, "landlock": landlock.version()}

        return in_child(as_reader)

    reader = in_child(as_server)
    free = in_child(tries)
    print("PROBE " + json.dumps({"reader": reader, "free": free}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
