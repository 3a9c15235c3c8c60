"""Who a service runs as: names turned into numbers, before the fork, where looking them up is still safe."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from blackhole_cg.core.spec import ServiceSpec
from blackhole_cg.errors import SpawnError


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, a group and supplementary groups, as numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def of_this_process(cls) -> Identity:
        """Who we are, in effect."""
        return cls(os.geteuid(), os.getegid(), tuple(sorted(os.getgroups())))


def resolve_identity(spec: ServiceSpec, own: Identity) -> Identity:
    """Who `spec` asks to run as; `own` where it does not say.

    A user brings their groups; a group alone replaces all groups.

    Raises:
        SpawnError: no such user or group, or a numeric user without an entry and without a group.
    """
    gid = None if spec.group is None else _group(spec)
    if spec.user is None:
        return own if gid is None else Identity(own.uid, gid, (gid,))
    entry = _user_entry(spec.user)
    if entry is None:
        if not spec.user.isdecimal():
            raise SpawnError(spec.name, f"find user {spec.user!r}", detail="no such user")
        if gid is None:
            detail = "no entry for this number, so `group` must be set"
            raise SpawnError(spec.name, f"find user {spec.user!r}", detail=detail)
        return Identity(int(spec.user), gid, (gid,))
    primary = entry.pw_gid if gid is None else gid
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, primary))))
    return Identity(entry.pw_uid, primary, groups)


def _user_entry(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return None


def _group(spec: ServiceSpec) -> int:
    assert spec.group is not None
    try:
        return grp.getgrnam(spec.group).gr_gid
    except KeyError:
        if spec.group.isdecimal():
            return int(spec.group)
        raise SpawnError(spec.name, f"find group {spec.group!r}", detail="no such group") from None
