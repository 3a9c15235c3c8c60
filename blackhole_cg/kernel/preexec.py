"""The preexec stage: everything between fork and exec, as one ordered table of named steps.

The table is made before the fork, with every value ready; the child only performs it: system calls, no
logging, no look-ups, no imports. Each step's phrase is what a user reads after "cannot start 'NAME': ".
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

import prctl

from blackhole_cg.core.spec import SecuritySpec
from blackhole_cg.kernel.identity import Identity
from blackhole_cg.kernel.inherited import FIRST_FD
from blackhole_cg.kernel.rlimits import Rlimit
from blackhole_cg.kernel.verified import NotThatProgramError, VerifiedProgram

PR_CAPBSET_DROP: Final = 24
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_RAISE: Final = 2
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
# Capabilities that python-prctl may not have a name for yet. Source: include/uapi/linux/capability.h.
NEW_CAPABILITIES: Final = {"PERFMON": 38, "BPF": 39, "CHECKPOINT_RESTORE": 40}
ALL_CAPABILITY_SETS: Final = (prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED, prctl.CAP_INHERITABLE)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the child does. `phrase` says it as an order: "set RLIMIT_NOFILE to 10000"."""

    phrase: str
    action: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What the child needs open; all are close-on-exec, only their copies at 0, 1 and 2 survive."""

    stdin: int
    stdout: int
    stderr: int
    cgroup_procs: int | None  # cgroup.procs of the service's cgroup, for writing
    announce: Callable[[], object] = bool  # says "exec is next" to the parent
    sockets: tuple[int, ...] = ()  # from 3 on; everything else here has a number past theirs
    wait: Callable[[], object] = bool  # returns when the parent has stored who the child is
    mark: int | None = None  # the file to empty when the run begins


@dataclass(frozen=True, slots=True)
class Preparation:
    """Everything the child will be, as plain values."""

    name: str
    program: bytes
    argv: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    working_directory: str
    umask: int
    own: Identity
    identity: Identity
    user_label: str
    rlimits: tuple[Rlimit, ...]
    restored_nofile: tuple[int, int] | None  # the supervisor raised its own; a service gets what was before
    oom_score_adj: int | None  # None: it is already right
    security: SecuritySpec
    may_limit_capabilities: bool  # CAP_SETPCAP
    last_capability: int
    caught_signals: tuple[int, ...]  # those with a handler, or ignored
    verified: VerifiedProgram | None = None  # the program, where its sum is to be verified


def preexec_steps(prepared: Preparation, descriptors: Descriptors) -> tuple[Step, ...]:
    """The table, in the order in which the child performs it; the last step is exec."""
    return (
        Step("begin a session and process group of its own", os.setsid),
        Step("name the process", partial(prctl.set_name, f"bh:{prepared.name}")),
        Step("connect stdin, stdout and stderr", partial(_connect, descriptors)),
        *_cgroup_steps(descriptors),
        Step("wait until it is recorded", partial(_begin, descriptors)),
        *_socket_steps(prepared, descriptors),  # from here on their numbers are not those of anything else
        *_verification_steps(prepared),
        *_rlimit_and_oom_steps(prepared),
        *_bounding_steps(prepared),
        *_no_new_privileges_steps(prepared.security),
        *_identity_steps(prepared),
        *_capability_steps(prepared),
        Step(f"set umask to {prepared.umask:04o}", partial(os.umask, prepared.umask)),
        Step(f"enter working directory {prepared.working_directory}",
             partial(os.chdir, prepared.working_directory)),
        Step("reset signals", partial(_reset_signals, prepared.caught_signals)),
        Step(f"execute {os.fsdecode(prepared.program)}", partial(_execute, prepared, descriptors.announce)),
    )  # fmt: skip


def perform(steps: Sequence[Step], report: Callable[..., object]) -> NoReturn:
    """Child side: perform the steps; on the first that fails report (index, errno[, detail]) and end.

    Never returns and never lets an exception out: above us is the parent's code.
    """
    index = 0
    try:
        for index, step in enumerate(steps):  # noqa: B007  (read in the handlers)
            step.action()
    except OSError as cause:
        report(index, cause.errno or errno.EINVAL)
    except NotThatProgramError as refusal:
        report(index, 0, str(refusal))
    except MemoryError:
        report(index, errno.ENOMEM)
    except BaseException:
        report(index, errno.EINVAL)
    finally:
        os._exit(127)


def capability_number(name: str) -> int:
    """The number of "NET_BIND_SERVICE". Raises ValueError when there is no such capability."""
    number = getattr(prctl, f"CAP_{name}", NEW_CAPABILITIES.get(name))
    if number is None or name in ("EFFECTIVE", "PERMITTED", "INHERITABLE"):
        raise ValueError(f"no capability is named {name}")
    return int(number)


def _cgroup_steps(descriptors: Descriptors) -> list[Step]:
    if descriptors.cgroup_procs is None:
        return []
    return [Step("join its cgroup", partial(os.write, descriptors.cgroup_procs, b"0"))]


def _verification_steps(prepared: Preparation) -> list[Step]:
    """As ourselves, and before the rlimits: whoever runs the program need not be able to read it."""
    if prepared.verified is None:
        return []
    phrase = f"verify the SHA-256 of {os.fsdecode(prepared.program)}"
    return [Step(phrase, prepared.verified.verify)]


def _socket_steps(prepared: Preparation, descriptors: Descriptors) -> list[Step]:
    """Before the rlimits: a low RLIMIT_NOFILE would forbid the numbers. Source: sd_listen_fds(3)."""
    if not descriptors.sockets:
        return []
    return [Step("pass its sockets", partial(_pass_sockets, descriptors.sockets, prepared.environment))]


def _rlimit_and_oom_steps(prepared: Preparation) -> list[Step]:
    """The file of oom_score_adj is opened first: a low RLIMIT_NOFILE would forbid it afterwards."""
    rlimits = [
        Step(f"set RLIMIT_{rlimit.name.upper()} to {rlimit.requested}",
             partial(_set_rlimit, rlimit.number, (rlimit.value, rlimit.value)))
        for rlimit in prepared.rlimits
    ]  # fmt: skip
    if prepared.restored_nofile is not None:
        restore = partial(_set_rlimit, resource.RLIMIT_NOFILE, prepared.restored_nofile)
        rlimits.insert(0, Step("restore RLIMIT_NOFILE", restore))
    if prepared.oom_score_adj is None:
        return rlimits
    phrase = f"set oom_score_adj to {prepared.oom_score_adj}"
    score = _OomScore(str(prepared.oom_score_adj).encode())
    return [Step(phrase, score.open), *rlimits, Step(phrase, score.write)]


def _bounding_steps(prepared: Preparation) -> list[Step]:
    """Limit what any later exec can gain, and keep what must outlast the change of user."""
    kept = prepared.security.capabilities
    if kept is None:
        return []
    nothing_to_gain = not kept and prepared.security.no_new_privileges and prepared.identity.uid != 0
    if nothing_to_gain and not prepared.may_limit_capabilities:
        return []  # an ordinary user cannot shrink the bounding set, and here it does not matter
    numbers = [capability_number(name) for name in kept]
    dropped = [number for number in range(prepared.last_capability + 1) if number not in numbers]
    carry = bool(kept) and prepared.identity.uid != prepared.own.uid
    return [Step(f"limit capabilities to {_listed(kept)}", partial(_limit_capabilities, dropped, carry))]


def _no_new_privileges_steps(security: SecuritySpec) -> list[Step]:
    if not security.no_new_privileges:
        return []
    return [Step("set no_new_privs", partial(prctl.set_no_new_privs, 1))]


def _identity_steps(prepared: Preparation) -> list[Step]:
    """Groups, group, user: each is left out when it is so already, which needs no privilege."""
    own, target = prepared.own, prepared.identity
    steps = []
    if own.groups != target.groups:
        phrase = f"set groups to {' '.join(map(str, target.groups))}"
        steps.append(Step(phrase, partial(os.setgroups, list(target.groups))))
    if own.gid != target.gid:
        action = partial(os.setresgid, target.gid, target.gid, target.gid)
        steps.append(Step(f"change to group {target.gid}", action))
    if own.uid != target.uid:
        action = partial(os.setresuid, target.uid, target.uid, target.uid)
        steps.append(Step(f"change to user {prepared.user_label}", action))
    return steps


def _capability_steps(prepared: Preparation) -> list[Step]:
    """For users other than root, what is kept must be in the ambient set to outlast exec.

    Source: capabilities(7), "Transformation of capabilities during execve()".
    """
    kept = prepared.security.capabilities
    if kept is None or prepared.identity.uid == 0:
        return []
    numbers = [capability_number(name) for name in kept]
    dropped = [number for number in prctl.ALL_CAPS if number not in numbers]
    phrase = f"keep capabilities {_listed(kept)}" if kept else "drop all capabilities"
    return [Step(phrase, partial(_set_capabilities, numbers, dropped))]


def _connect(descriptors: Descriptors) -> None:
    os.dup2(descriptors.stdin, 0)
    os.dup2(descriptors.stdout, 1)
    os.dup2(descriptors.stderr, 2)


def _pass_sockets(sockets: Sequence[int], environment: dict[bytes, bytes]) -> None:
    """Only the child knows the number that says whom they are for."""
    for number, descriptor in enumerate(sockets, FIRST_FD):
        os.dup2(descriptor, number)
    environment[b"LISTEN_PID"] = str(os.getpid()).encode()


def _begin(descriptors: Descriptors) -> None:
    """Before the limits and the user of the service hold, which may forbid to touch the mark."""
    descriptors.wait()
    if descriptors.mark is not None:
        os.ftruncate(descriptors.mark, 0)


def _set_rlimit(number: int, limits: tuple[int, int]) -> None:
    """By prlimit on ourselves: setrlimit of the standard library hides the error number of a refusal."""
    resource.prlimit(0, number, limits)


def _limit_capabilities(dropped: Sequence[int], carry_over_user: bool) -> None:
    """The inheritable set too: root keeps across exec what is in it, whatever the bounding set says."""
    for number in dropped:
        if number <= prctl.CAP_LAST_CAP:
            prctl.capbset_drop(number)
        else:
            _prctl(PR_CAPBSET_DROP, number)
    known = [number for number in dropped if number <= prctl.CAP_LAST_CAP]
    prctl.set_caps((known, (prctl.CAP_INHERITABLE,), False))
    if carry_over_user:
        prctl.set_keepcaps(True)


def _set_capabilities(kept: Sequence[int], dropped: Sequence[int]) -> None:
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    prctl.set_caps((kept, ALL_CAPABILITY_SETS, True), (dropped, ALL_CAPABILITY_SETS, False))
    for number in kept:
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def _reset_signals(caught: Sequence[int]) -> None:
    """Handlers first, then the mask: what is pending must end this child, not run the parent's handler."""
    signal.set_wakeup_fd(-1)
    for number in caught:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(prepared: Preparation, announce: Callable[[], object]) -> None:
    announce()
    if prepared.verified is not None:
        prepared.verified.execute(prepared.argv, prepared.environment)
    os.execve(prepared.program, prepared.argv, prepared.environment)


class _OomScore:
    """/proc/self/oom_score_adj of the child, held open between two steps."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._descriptor = -1

    def open(self) -> None:
        self._descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)

    def write(self) -> None:
        os.write(self._descriptor, self._text)


def _prctl(option: int, first: int, second: int = 0) -> None:
    """python-prctl knows neither the ambient set nor capabilities newer than itself."""
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), zero, zero):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _listed(names: Sequence[str]) -> str:
    return " ".join(names) or "none"
