"""seccomp(2): a program gives up system calls for good. What this forbids answers EPERM; everything else goes on.

It is a list of what is refused, on top of the unit's own list of what is allowed (systemd/dockd.service): a reader that
is started by hand has this one alone. Numbers are those of x86-64 and of the table that younger architectures share;
tests compare them with the kernel's headers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)  # the handle of a library, not state of ours

_PR_SET_SECCOMP, _FILTER = 22, 2
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000  # the x32 calls have this bit

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
_NONE = -1

_REFUSED = {
    "the network, and sockets of this machine": """
        socket:41:198 socketpair:53:199 connect:42:203 bind:49:200 listen:50:201 accept:43:202 accept4:288:242
    """,
    "programs": """
        fork:57:- vfork:58:- clone:56:220 clone3:435:435 execve:59:221 execveat:322:281
    """,
    "other processes": """
        ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271 kcmp:312:272 process_madvise:440:440
        process_mrelease:448:448 migrate_pages:256:238 move_pages:279:239 pidfd_open:434:434 pidfd_getfd:438:438
        pidfd_send_signal:424:424 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 setpgid:109:154
        setsid:112:157 setpriority:141:140 ioprio_set:251:30
    """,
    "memory and queues that processes of one user share": """
        shmget:29:194 shmat:30:196 shmctl:31:195 msgget:68:186 msgctl:71:187 msgsnd:69:189 msgrcv:70:188
        semget:64:190 semop:65:193 semctl:66:191 semtimedop:220:192 mq_open:240:180 mq_unlink:241:181
    """,
    "files by their paths, where Landlock is silent": """
        truncate:76:45 chmod:90:- fchmodat:268:53 fchmodat2:452:452 chown:92:- lchown:94:- fchownat:260:54
        utime:132:- utimes:235:- futimesat:261:- utimensat:280:88 setxattr:188:5 lsetxattr:189:6
        removexattr:197:14 lremovexattr:198:15 inotify_init:253:- inotify_init1:294:26 inotify_add_watch:254:27
        fanotify_init:300:262 fanotify_mark:301:263 name_to_handle_at:303:264 open_by_handle_at:304:265
    """,
    "name spaces and mounts": """
        mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 unshare:272:97 setns:308:268
        open_tree:428:428 move_mount:429:429 fsopen:430:430 fsconfig:431:431 fsmount:432:432 fspick:433:433
        mount_setattr:442:442 quotactl:179:60 quotactl_fd:443:443
    """,
    "parts of the kernel that a reader has no use for": """
        bpf:321:280 perf_event_open:298:241 userfaultfd:323:282 io_uring_setup:425:425 io_uring_enter:426:426
        io_uring_register:427:427 add_key:248:217 request_key:249:218 keyctl:250:219 personality:135:92
        modify_ldt:154:- syslog:103:116 memfd_secret:447:447
    """,
    "what needs privilege, for a reader that is started with it": """
        swapon:167:224 swapoff:168:225 reboot:169:142 sethostname:170:161 setdomainname:171:162
        init_module:175:105 finit_module:313:273 delete_module:176:106 kexec_load:246:104
        kexec_file_load:320:294 settimeofday:164:170 clock_settime:227:112 clock_adjtime:305:266
        adjtimex:159:171 acct:163:89 vhangup:153:58 iopl:172:- ioperm:173:-
    """,
}
"""Why, and what: name, number on x86-64, number in the common table."""

_TO_ITSELF = "kill:62:129 tkill:200:130 tgkill:234:131"
_ON_ITSELF = "prlimit64:302:261 sched_setparam:142:118 sched_setscheduler:144:119 sched_setattr:314:274"
_ON_ITSELF += " sched_setaffinity:203:122"
_SELECTIVE = "fcntl:72:25 ioctl:16:29 prctl:157:167"
_VALUES = {
    # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY: the kernel sends any signal to any process of this user by them.
    "fcntl": (1, (8, 10, 15, 1026)),
    # FIOSETOWN, SIOCSPGRP: the same; TIOCSTI: typing on a terminal.
    "ioctl": (1, (0x8901, 0x8902, 0x5412)),
    # PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_MM, PR_SET_PTRACER: what was given up stays so.
    "prctl": (0, (1, 4, 35, 0x59616D61)),
}


def _table(text: str) -> dict[str, tuple[int, int]]:
    """Names with their numbers; _NONE where the table has no such call."""
    numbers = {}
    for word in text.split():
        name, ours, common = word.split(":")
        numbers[name] = int(ours), _NONE if common == "-" else int(common)
    return numbers


REFUSED = _table(" ".join(_REFUSED.values()))
TO_ITSELF = _table(_TO_ITSELF)  # it may be done to this process alone
ON_ITSELF = _table(_ON_ITSELF)  # the same, which 0 stands for as well
NUMBERS = REFUSED | TO_ITSELF | ON_ITSELF | _table(_SELECTIVE)


def forbid() -> None:
    """For this thread, for good, and for nothing that it forks: that it can no longer do either.

    Raises OSError where the kernel cannot, or this architecture's numbers are not known. Needs PR_SET_NO_NEW_PRIVS.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES or sys.maxsize <= 2**32:
        raise OSError(errno.ENOSYS, f"the system calls of {machine} are not known")
    code = program(machine, os.getpid())
    steps = ctypes.create_string_buffer(code)
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(steps))  # struct sock_fprog
    if _libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(head), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def program(machine: str, pid: int) -> bytes:
    """The filter, for the process of this number: struct sock_filter after struct sock_filter."""
    column = 0 if machine == "x86_64" else 1
    refused = _step(_RETURN, _ERRNO | errno.EPERM)
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        steps += [_step(_AT_LEAST, _X32, 0, 1), refused]
    for name, numbers in NUMBERS.items():
        number = numbers[column]
        if number == _NONE:
            continue
        match = [refused] if name in REFUSED else _by_argument(name, pid)
        steps += [_step(_EQUAL, number, 0, len(match)), *match]
    return b"".join([*steps, _step(_RETURN, _ALLOW)])


def _by_argument(name: str, pid: int) -> list[bytes]:
    """What follows where the call is this one; it always returns."""
    allowed, refused = _step(_RETURN, _ALLOW), _step(_RETURN, _ERRNO | errno.EPERM)
    if name in _VALUES:
        at, values = _VALUES[name]
        tests = [_step(_EQUAL, value, len(values) - number, 0) for number, value in enumerate(values)]
        return [_step(_LOAD, _ARGUMENTS + 8 * at), *tests, allowed, refused]
    own = (pid,) if name in TO_ITSELF else (pid, 0)
    tests = [_step(_EQUAL, value, len(own) - number, 0) for number, value in enumerate(own)]
    return [_step(_LOAD, _ARGUMENTS), *tests, refused, allowed]


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    """One struct sock_filter, little-endian as all the architectures are."""
    return struct.pack("<HBBI", code, if_so, if_not, value)
