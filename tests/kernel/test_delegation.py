from __future__ import annotations

from pathlib import Path

import pytest

from blackhole_cg.kernel.delegation import MARK, Manager, find_manager, scope_command
from blackhole_cg.kernel.facts import CgroupPlace

OWN = Path("/sys/fs/cgroup/user.slice/session-1.scope")
UNDELEGATED = CgroupPlace(OWN.parents[1], OWN, None, None, "not delegated")
SYSTEM = Manager("/usr/bin/systemd-run", user=False)
COMMAND = ["blackhole-cg", "run"]


def test_a_shell_of_root_gets_a_scope_of_the_system():
    command = scope_command(UNDELEGATED, SYSTEM, {}, COMMAND)
    assert command is not None
    assert command[0] == "/usr/bin/systemd-run"
    assert "--user" not in command
    assert {"--scope", "--property=Delegate=yes"} <= set(command)
    assert command[-3:] == ["--", *COMMAND]


def test_an_ordinary_user_gets_one_of_their_own_manager():
    command = scope_command(UNDELEGATED, Manager("/usr/bin/systemd-run", user=True), {}, COMMAND)
    assert command is not None
    assert command[1] == "--user"


@pytest.mark.parametrize(
    ("place", "manager", "environ"),
    [
        (CgroupPlace(OWN.parent, OWN, OWN, OWN, None), SYSTEM, {}),  # it is delegated
        (CgroupPlace(None, None, None, None, "cgroup v2 is not mounted"), SYSTEM, {}),
        (UNDELEGATED, None, {}),
        (UNDELEGATED, SYSTEM, {MARK: "1"}),  # it was tried, and did not help
    ],
)
def test_no_scope_where_it_is_not_called_for(place, manager, environ):
    assert scope_command(place, manager, environ, COMMAND) is None


def test_which_systemd_there_is(tmp_path):
    launcher = tmp_path / "bin" / "systemd-run"
    launcher.parent.mkdir()
    launcher.write_text("")
    launcher.chmod(0o755)
    environ = {"PATH": str(launcher.parent), "XDG_RUNTIME_DIR": str(tmp_path / "run/user/7")}
    assert find_manager(environ, 0, tmp_path) is None
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert find_manager(environ, 0, tmp_path) is None, "there is no bus to ask over"
    (tmp_path / "run/dbus").mkdir()
    (tmp_path / "run/dbus/system_bus_socket").write_text("")
    assert find_manager(environ, 0, tmp_path) == Manager(str(launcher), user=False)
    assert find_manager(environ, 7, tmp_path) is None
    (tmp_path / "run/user/7").mkdir(parents=True)
    (tmp_path / "run/user/7/bus").write_text("")
    assert find_manager(environ, 7, tmp_path) == Manager(str(launcher), user=True)
    assert find_manager({**environ, "PATH": "/nonexistent"}, 0, tmp_path) is None
