"""What becomes of the settings of other supervisors: value by value, note by note."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.importers import IMPORTERS, Draft, Source, render
from blackhole_cg.errors import ConfigError

Example = tuple[str, Any]


def imported(kind: str, text: str, name: str = "file", siblings: frozenset[str] = frozenset()) -> Draft:
    return IMPORTERS[kind]([Source(name, text, "/srv/app", siblings)])


def only(draft: Draft) -> dict[str, Any]:
    (service,) = draft.services.values()
    return service


def value_at(service: dict[str, Any], path: str) -> Any:
    value: Any = service
    for key in path.split("."):
        value = value[key]
    return value


def noted(draft: Draft) -> dict[str, int]:
    return {note.setting: note.line for note in draft.notes}


SUPERVISORD: list[Example] = [
    ("directory=/srv", ("data_dir", "/srv")),
    ("directory=%(here)s/x", ("data_dir", "/srv/app/x")),
    ("user=www-data", ("user", "www-data")),
    ("umask=22", ("umask", "022")),
    ("autostart=false", ("enabled", False)),
    ("autorestart=true", ("restart.policy", "always")),
    ("autorestart=unexpected", ("restart.policy", "on_failure")),
    ("autorestart=false", ("restart", {"policy": "never"})),
    ("startretries=7", ("restart.max_restarts", 7)),
    ("startsecs=15", ("restart.reset_after", "15s")),
    ("startsecs=0", ("restart.reset_after", "1s")),
    ("stopsignal=quit", ("stop.signal", "QUIT")),
    ("stopwaitsecs=3600", ("stop.timeout", "3600s")),
    ("stdout_logfile_maxbytes=10MB", ("logs.max_size", "10MB")),
    ("stdout_logfile_backups=4", ("logs.max_files", 5)),
    ('environment=A="x,y",B=%(ENV_HOME)s', ("environment", {"A": "x,y", "B": "${HOME}"})),
    ("environment=C='$1 ${2}'", ("environment", {"C": "$1 $${2}"})),
    ("environment=\n  A=1,\n  B=2 ; said why", ("environment", {"A": "1", "B": "2"})),
]  # fmt: skip


@pytest.mark.parametrize(("line", "wanted"), SUPERVISORD, ids=[line for line, _ in SUPERVISORD])
def test_supervisord(line: str, wanted: Example) -> None:
    draft = imported("supervisord", f"; first\n[program:web]\ncommand = /bin/cat '-u' a\\ b ; why\n{line}\n")
    service = only(draft)
    assert service["command"] == ["/bin/cat", "-u", "a b"]
    assert value_at(service, wanted[0]) == wanted[1]
    assert not draft.notes


def test_supervisord_makes_a_service_of_each_process() -> None:
    text = (
        "[program:q]\ncommand=w --n %(process_num)d --of %(numprocs)d 100%%\nnumprocs=2\nnumprocs_start=3\n"
    )
    draft = imported("supervisord", text)
    commands = {name: service["command"] for name, service in draft.services.items()}
    assert commands == {
        "q-03": ["w", "--n", "3", "--of", "2", "100%"],
        "q-04": ["w", "--n", "4", "--of", "2", "100%"],
    }


def test_supervisord_keeps_a_variable_that_may_be_several_words() -> None:
    assert only(imported("supervisord", "[program:q]\ncommand=%(ENV_RUN)s -v\n"))["command"] == "${RUN} -v"


def test_supervisord_lists_what_has_no_counterpart() -> None:
    text = (
        "[unix_http_server]\nfile=/run/s.sock\n[program:web]\ncommand=a\nstdout_logfile=/x\npriority=1\n"
        "exitcodes=0,2\nnew_key=1\n[eventlistener:e]\ncommand=b\n[group:g]\nprograms=web\n[include]\nfiles=*.c\n"
    )
    assert noted(imported("supervisord", text)) == {
        "[unix_http_server] file": 2,
        "stdout_logfile": 5,
        "priority": 6,
        "exitcodes": 7,
        "new_key": 8,
        "[eventlistener:e]": 10,
        "[group:g]": 12,
        "[include]": 14,
    }


SYSTEMD: list[Example] = [
    ("User=web\nGroup=www", ("group", "www")),
    ("WorkingDirectory=-/srv", ("data_dir", "/srv")),
    ("Type=notify\nWatchdogSec=1min 30s", ("watchdog", "90s")),
    ("Environment=A=1 'B=two words'", ("environment", {"A": "1", "B": "two words"})),
    ("Environment=A=1\nEnvironment=C=${x}", ("environment", {"A": "1", "C": "$${x}"})),
    ("Environment=A=1\nEnvironment=\nEnvironment=B=2", ("environment", {"B": "2"})),
    ("EnvironmentFile=/etc/web", ("env_file", "/etc/web")),
    ("UMask=0027", ("umask", "0027")),
    ("OOMScoreAdjust=-500", ("oom_score_adj", -500)),
    ("Restart=always", ("restart.initial_delay", "100ms")),
    ("Restart=on-failure\nRestartSec=5", ("restart.max_delay", "5s")),
    ("Restart=always\nStartLimitIntervalSec=0", ("restart.max_restarts", "max")),
    ("Restart=always\nStartLimitBurst=3\nStartLimitIntervalSec=1h", ("restart.restart_window", "3600s")),
    ("TimeoutStartSec=2min", ("start_timeout", "120s")),
    ("TimeoutStopSec=1.5", ("stop.timeout", "1500ms")),
    ("KillSignal=SIGQUIT\nKillMode=mixed", ("stop.signal", "SIGQUIT")),
    ("NoNewPrivileges=yes", ("security.no_new_privileges", True)),
    ("CapabilityBoundingSet=CAP_CHOWN CAP_KILL", ("security.capabilities", ["CHOWN", "KILL"])),
    ("CPUQuota=150%", ("resources.cpu_percent", 150)),
    ("CPUWeight=50", ("resources.cpu_weight", 50)),
    ("AllowedCPUs=0-1 3", ("resources.cpuset_cpus", "0-1,3")),
    ("MemoryMax=1G", ("resources.memory_max", "1G")),
    ("MemoryHigh=infinity", ("resources.memory_high", "max")),
    ("TasksMax=100", ("resources.pids_max", 100)),
    ("IOWeight=200", ("resources.io_weight", 200)),
    ("IOReadBandwidthMax=/dev/sda 5M", ("resources.io_max", {"/dev/sda": {"rbps": "5M"}})),
    ("LimitNOFILE=65536", ("resources.open_files", 65536)),
    ("LimitCORE=infinity", ("resources.rlimits.core", "max")),
    ("StandardOutput=journal", ("command", ["/usr/bin/web", "-p", "a b", "-s"])),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "wanted"), SYSTEMD, ids=[lines for lines, _ in SYSTEMD])
def test_systemd(lines: str, wanted: Example) -> None:
    text = f"[Unit]\nDescription=it\n\n[Service]\nExecStart=/usr/bin/web -p 'a b' \\\n# why\n   -s\n{lines}\n"
    draft = imported("systemd", text, "dir/web.service")
    assert list(draft.services) == ["web"]
    assert value_at(only(draft), wanted[0]) == wanted[1]
    assert not draft.notes


def test_systemd_lists_what_has_no_counterpart() -> None:
    text = (
        "[Unit]\nAfter=network.target\n[Service]\nType=forking\n"
        "ExecStartPre=/bin/true\nExecStart=-/bin/a $OPTS %i\n"
        "Restart=on-abnormal\nWatchdogSec=5\nPrivateTmp=yes\nLimitNOFILE=1:2\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    draft = imported("systemd", text, "web@.service")
    assert list(draft.services) == ["web"]
    settings = [note.setting for note in draft.notes]
    assert settings == [
        "After=network.target",
        "Type=forking",
        "ExecStartPre=/bin/true",
        "ExecStart=-/bin/a $OPTS %i",
        "ExecStart=-/bin/a $OPTS %i",
        "ExecStart=-/bin/a $OPTS %i",
        "Restart=on-abnormal",
        "PrivateTmp=yes",
        "LimitNOFILE=1:2",
        "WantedBy=multi-user.target",
        "WatchdogSec",
    ]


def test_systemd_units_depend_on_each_other() -> None:
    web = Source(
        "web.service", "[Unit]\nRequires=Db.service\nAfter=Db.service x.target\n[Service]\nExecStart=/a\n"
    )
    db = Source("Db.service", "[Service]\nExecStart=/b\n")
    draft = IMPORTERS["systemd"]([web, db])
    assert draft.services["web"]["depends_on"] == ["db"]
    assert noted(draft) == {"After=x.target": 3, "Db": 1}


PROCFILE: list[Example] = [
    ("web: gunicorn app", ["gunicorn", "app"]),
    ("web: gunicorn -b :$PORT", ["gunicorn", "-b", ":{tcp_port}"]),
    ("web: exec app --say '$5 | x'", ["app", "--say", "$5 | x"]),
    ('web: python -c "print(1)"', ["python", "-c", "print(1)"]),
    ("web: a && b", ["/bin/sh", "-c", "a && b"]),
    ("web: a $HOME ${x}", ["/bin/sh", "-c", "a $HOME $${x}"]),
    ("web: cd x", ["/bin/sh", "-c", "cd x"]),
]


@pytest.mark.parametrize(("line", "command"), PROCFILE, ids=[line for line, _ in PROCFILE])
def test_procfile(line: str, command: list[str]) -> None:
    draft = imported("procfile", f"# types\n{line}\n", siblings=frozenset({".env"}))
    service = only(draft)
    assert service["command"] == command
    assert service["tcp_port"] == 5000
    assert service["environment"]["PORT"] == "{tcp_port}"
    assert (service["data_dir"], service["env_file"]) == ("/srv/app", "/srv/app/.env")
    assert noted(draft) == ({"web": 2} if command[0] == "/bin/sh" else {})


def test_procfile_counts_ports_and_sets_variables() -> None:
    draft = imported("procfile", "release:migrate\nweb: a\nworker: N=1 b -p $PORT\n")
    assert draft.services["release"]["type"] == "oneshot"
    assert draft.services["web"]["tcp_port"] == 5100
    assert draft.services["worker"]["environment"] == {"N": "1", "PORT": "{tcp_port}"}
    assert noted(draft) == {"release": 1}


COMPOSE: list[Example] = [
    ("entrypoint: /run\ncommand: [serve, -v]", ("command", ["/run", "serve", "-v"])),
    ("command: run 'a b' $$HOME $B", ("command", ["run", "a b", "$$HOME", "${B}"])),
    ("command: [run, '${A:?set}', '${C:-c}']", ("command", ["run", "${A}", "${C:-c}"])),
    ("environment: [A=1, B]", ("environment", {"A": "1", "B": "${B:-}"})),
    ("environment: {A: true, B: }", ("environment", {"A": "true", "B": "${B:-}"})),
    ("env_file: [.env]", ("env_file", ".env")),
    ("working_dir: /srv", ("data_dir", "/srv")),
    ('user: "1000:1000"', ("group", "1000")),
    ("restart: unless-stopped", ("restart", {"policy": "always", "max_restarts": "max"})),
    ("restart: on-failure:3", ("restart", {"policy": "on_failure", "max_restarts": 3})),
    ('restart: "no"', ("restart", {"policy": "never"})),
    ("stop_signal: SIGINT\nstop_grace_period: 1m30s", ("stop", {"signal": "SIGINT", "timeout": "90s"})),
    ("mem_limit: 512m\ncpus: 0.5", ("resources", {"memory_max": "512m", "cpu_percent": 50})),
    ("deploy: {resources: {limits: {cpus: 2, pids: 9}}}", ("resources", {"cpu_percent": 200, "pids_max": 9})),
    ("deploy: {resources: {reservations: {memory: 1G}}}", ("resources", {"memory_low": "1G"})),
    ("cpu_shares: 2", ("resources.cpu_weight", 1)),
    ("cpu_shares: 262144", ("resources.cpu_weight", 10000)),
    ("ulimits: {nofile: 2048, core: -1}", ("resources", {"open_files": 2048, "rlimits": {"core": "max"}})),
    ("cap_drop: [ALL]\ncap_add: [CAP_CHOWN, NET_RAW]", ("security.capabilities", ["CHOWN", "NET_RAW"])),
    ("security_opt: ['no-new-privileges:true']", ("command", ["run"])),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "wanted"), COMPOSE, ids=[lines for lines, _ in COMPOSE])
def test_compose(lines: str, wanted: Example) -> None:
    lines = lines if "command:" in lines else f"command: run\n{lines}"
    text = "services:\n  web:\n" + "".join(f"    {line}\n" for line in lines.splitlines())
    draft = imported("compose", text)
    assert value_at(only(draft), wanted[0]) == wanted[1]
    assert not draft.notes


def test_compose_asks_for_health() -> None:
    check = "{test: [CMD-SHELL, 'true || false'], interval: 10s, retries: 5, start_period: 1m}"
    draft = imported("compose", f"services:\n  db:\n    command: run\n    healthcheck: {check}\n")
    assert only(draft)["health_check"] == {
        "exec": {"command": ["/bin/sh", "-c", "true || false"]},
        "interval": "10s",
        "timeout": "30s",
        "retries": 5,
        "start_timeout": "110s",
    }
    assert noted(draft) == {"db.healthcheck": 4}


def test_compose_keeps_only_dependencies_that_can_be_met() -> None:
    text = (
        "services:\n  web:\n    command: a\n    depends_on:\n      one: {condition: service_healthy}\n"
        "      two: {condition: service_completed_successfully}\n      image: {condition: service_started}\n"
        "  other: {command: a, depends_on: [gone, one]}\n"
        "  one: {command: b}\n  two: {command: c}\n  image: {image: x}\n"
    )
    draft = imported("compose", text)
    assert draft.services["web"]["depends_on"] == {
        "one": {"condition": "started"},
        "two": {"condition": "completed"},
    }
    assert draft.services["two"]["type"] == "oneshot"
    assert draft.services["other"]["depends_on"] == ["one"]
    assert draft.services["image"] == {"enabled": False, "restart": {"policy": "never"}}
    assert {"web.depends_on.one", "web.depends_on.image", "other.depends_on.gone"} <= noted(draft).keys()


def test_compose_gives_a_port_once() -> None:
    text = (
        "services:\n  a: {command: x, ports: ['8080:80', '81:81']}\n  b: {command: x, ports: ['8081:80']}\n"
        "  c: {command: x, ports: [{target: 9000}]}\n  d: {command: x, ports: ['${P:-1}:${P:-1}/tcp']}\n"
    )
    services = imported("compose", text).services
    ports = {name: service.get("tcp_port") for name, service in services.items()}
    assert ports == {"a": 80, "b": None, "c": 9000, "d": "${P:-1}"}


def test_compose_lists_what_has_no_counterpart() -> None:
    service = "    image: x\n    privileged: true\n    x-mine: 1\n    volumes: [v]\n"
    text = f"services:\n  a:\n{service}volumes: {{v: {{}}}}\n"
    notes = noted(imported("compose", text))
    assert notes == {"volumes": 7, "a.image": 3, "a.privileged": 4, "a.volumes": 6, "a": 2}


WRONG = [
    ("supervisord", "", "file: has no settings"),
    ("supervisord", "[program:a]\nnonsense\n", "file:2:1: is neither"),
    ("supervisord", "[program:a]\nuser=x\n", "file:2:1: [program:a] has no command"),
    ("supervisord", "[program:a]\ncommand='\n", "file:2:1: command has a quote"),
    ("supervisord", "[program:a]\ncommand=a\nstopwaitsecs=soon\n", "file:3:1: stopwaitsecs 'soon'"),
    ("supervisord", "[program:a]\ncommand=a\nnumprocs=0\n", "file:3:1: numprocs is 0"),
    ("supervisord", "[program:a]\ncommand=%(x)s\n", "file:2:1: %(x)s is not known"),
    ("systemd", "[Unit]\nDescription=x\n", "file: is not a service"),
    ("systemd", "[Service]\nExecStart=/a\nTimeoutStopSec=soon\n", "file:3:1: TimeoutStopSec= 'soon'"),
    ("procfile", "\n", "file: has no process types"),
    ("procfile", "web: a\nno colon\n", "file:2:1: is not NAME: COMMAND"),
    ("compose", "services: [a]\n", "file:1:1: has no `services:`"),
    ("compose", "services:\n  a:\n    restart: maybe\n", "file:3:5: services.a.restart is 'maybe'"),
    (
        "compose",
        "services:\n  a:\n    environment: A=1 B=2\n",
        "file:3:5: services.a.environment is one text",
    ),
    ("compose", "a: [\n", "is not valid YAML"),
]


@pytest.mark.parametrize(("kind", "text", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_what_cannot_be_read_is_told_with_its_place(kind: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        imported(kind, text)
    assert message in str(error.value)


def test_a_literal_that_would_be_replaced_is_told() -> None:
    draft = imported("procfile", "worker: echo '{name}' {other}\n")
    assert noted(draft) == {"{name}": 1}


@given(st.sampled_from(sorted(IMPORTERS)), st.text(max_size=200))
def test_no_text_is_a_crash(kind: str, text: str) -> None:
    try:
        draft = imported(kind, text)
    except ConfigError:
        return
    assert "services:" in render(draft, ["file"])


LINES = st.lists(
    st.sampled_from(
        """[program:a]|[Service]|command=x|ExecStart=/x|services:|  a:|    command: x|web: x|environment=A=1
        |numprocs=2|RestartSec=1|Restart=always|    ports: ['1:2']|LimitNOFILE=1|    healthcheck: {test: x}
        |    environment: [A]|umask=0|CPUQuota=5%|    deploy: {}|x: $y""".replace("\n        ", "").split("|")
    ),
    max_size=8,
)


@given(st.sampled_from(sorted(IMPORTERS)), LINES)
def test_no_order_of_settings_is_a_crash(kind: str, lines: list[str]) -> None:
    try:
        draft = imported(kind, "\n".join(lines))
    except ConfigError:
        return
    assert "services:" in render(draft, ["file"])
