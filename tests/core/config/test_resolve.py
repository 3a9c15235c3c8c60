"""From models to specs: defaults, merging, command lines, environments, limits, hashes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from blackhole_cg.core.config import Context, resolve
from blackhole_cg.core.spec import (
    DiscoverySpec,
    IoMax,
    LogPolicy,
    RestartPolicy,
    RuntimeSpec,
    SecuritySpec,
    TcpAddress,
)
from blackhole_cg.core.words import Condition, Isolation, RestartWhen, ServiceType
from tests.core.config.files import CONTEXT, load, service

MIB = 2**20
FOUND = DiscoverySpec("/opt/blackhole/services")


def test_a_service_without_any_key_has_the_defaults_of_the_contract() -> None:
    spec = service("services: {web: }")
    assert spec.argv == (*("/opt/blackhole/services/web/web", "--service", "web", "--log-level", "info"),)
    assert spec.data_dir == "/var/lib/blackhole/web"
    assert spec.environment == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/var/lib/blackhole/web",
        "TEMP": "/tmp",
        "TMP": "/tmp",
        "LANG": "C.UTF-8",
        "BLACKHOLE_SERVICE": "web",
        "BLACKHOLE_DATA_DIR": "/var/lib/blackhole/web",
        "BLACKHOLE_LOG_LEVEL": "info",
        "GOMEMLIMIT": str(int(spec.environment["GOMEMLIMIT"])),
    }
    assert (spec.enabled, spec.required, spec.type) == (True, True, ServiceType.SIMPLE)
    assert spec.limits.cpu_percent == 10
    assert spec.limits.memory_max_bytes == 512 * MIB
    assert spec.limits.memory_oom_group is True
    assert spec.limits.io_weight == 100
    assert spec.limits.pids_max is None and spec.limits.rlimits == {}
    assert spec.restart == RestartPolicy()
    assert spec.logs == LogPolicy()
    assert spec.security == SecuritySpec()
    assert (spec.stop.signal, spec.stop.timeout_seconds, spec.umask) == (15, 10.0, 0o022)
    assert spec.handed_config is None and spec.config_path is None
    assert resolve(load("services: {web: }"), CONTEXT).runtime == RuntimeSpec(discovery=FOUND)


def test_memory_high_and_gomemlimit_lie_below_the_limit() -> None:
    spec = service("services: {web: {resources: {memory_mb: 1000}}}")
    high = spec.limits.memory_high_bytes
    assert isinstance(high, int) and high % 4096 == 0
    assert 0.899 * 1000 * MIB < high <= 0.9 * 1000 * MIB
    assert int(spec.environment["GOMEMLIMIT"]) == high * 95 // 100
    unlimited = service("services: {web: {resources: {memory_max: max, cpu_percent: max}}}")
    assert unlimited.limits.memory_max_bytes == "max" and unlimited.limits.cpu_percent == "max"
    assert unlimited.limits.memory_high_bytes is None
    assert "GOMEMLIMIT" not in unlimited.environment
    own = service("services: {web: {environment: {GOMEMLIMIT: off}}}")
    assert own.environment["GOMEMLIMIT"] == "off"


def test_only_a_service_of_type_notify_is_told_where_to_say_so() -> None:
    spec = service("services: {web: {type: notify, watchdog: 1500ms}}")
    assert (spec.notify_socket, spec.watchdog_seconds) == ("/run/bh/notify/web", 1.5)
    assert spec.environment["NOTIFY_SOCKET"] == spec.notify_socket
    assert spec.environment["WATCHDOG_USEC"] == "1500000"
    silent = service("services: {web: {type: notify}}")
    assert "WATCHDOG_USEC" not in silent.environment
    assert service("services: {web: }").notify_socket is None


def test_the_default_command_line_tells_all_that_is_set() -> None:
    spec = service("""\
        services:
          web:
            binary_path: bin/web
            args: [--fast, "{name}"]
            config: {a: 1}
            unix_socket: run/web.sock
            tcp_port: 8080
            log_level: debug
        """)
    assert spec.argv == (
        *("/etc/bh/bin/web", "--service", "web", "--log-level", "debug"),
        *("--config", "/run/bh/config/web.json", "--socket", "/etc/bh/run/web.sock", "--port", "8080"),
        *("--fast", "web"),
    )
    assert spec.handed_config is not None and json.loads(spec.handed_config) == {"a": 1}
    assert spec.config_path == "/run/bh/config/web.json"
    assert spec.environment["BLACKHOLE_CONFIG"] == spec.config_path
    assert spec.environment["BLACKHOLE_SOCKET"] == spec.unix_socket == "/etc/bh/run/web.sock"
    assert spec.environment["BLACKHOLE_PORT"] == "8080"


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("[web, '{tcp_port}', '{other}']", ("web", "80", "{other}")),
        ("./run --in '{data_dir}'", ("/etc/bh/run", "--in", "/var/lib/blackhole/web")),
        ("bin/run", ("/etc/bh/bin/run",)),
        ("../bin/run", ("/etc/bh/../bin/run",)),
        ("/bin/run 'two words' $HOME *", ("/bin/run", "two words", "$HOME", "*")),
        ("sh -c 'echo $${name} {name}'", ("sh", "-c", "echo ${name} web")),
        ("'{data_dir}/run'", ("/var/lib/blackhole/web/run",)),
        ("[a, 8080, yes, 1.10]", ("a", "8080", "yes", "1.10")),
    ],
)
def test_commands(command: str, argv: tuple[str, ...]) -> None:
    assert service(f"services:\n  web:\n    tcp_port: 80\n    command: {command}\n").argv == argv


def test_relative_paths_begin_at_the_file_they_are_written_in() -> None:
    main = """\
        include: conf/*.yaml
        runtime: {orchestrator: {services_dir: bins}}
        services: {web: {data_dir: data}}
        """
    included = "services: {api: {command: ./api, data_dir: data, env_file: api.env, unix_socket: s}, job: {}}"
    files = {"conf/api__yaml": included, "conf/api__env": "A=1\nB=2\n"}
    specs = resolve(load(main, **files), CONTEXT).services
    assert list(specs) == ["web", "api", "job"]
    assert specs["web"].data_dir == "/etc/bh/data"
    assert specs["web"].argv[0] == "/etc/bh/bins/web/web"
    assert specs["job"].argv[0] == "/etc/bh/bins/job/job"
    assert specs["api"].argv == ("/etc/bh/conf/api",)
    assert specs["api"].data_dir == "/etc/bh/conf/data"
    assert specs["api"].unix_socket == "/etc/bh/conf/s"
    assert specs["api"].environment["B"] == "2"


def test_environment_wins_over_env_file_and_both_over_the_base() -> None:
    text = """\
        services:
          web:
            env_file: web.env
            environment: {B: "own {name}", LANG: C, URL: "http://x/${P:-p}"}
        """
    environment = service(text, {}, web__env="A='{name}'\nB=file\nPATH=/bin\n").environment
    assert (environment["A"], environment["B"], environment["PATH"]) == ("{name}", "own web", "/bin")
    assert (environment["LANG"], environment["URL"]) == ("C", "http://x/p")


def test_all_limits() -> None:
    limits = service("""\
        services:
          web:
            resources:
              cpu_percent: 150.5
              cpu_weight: 200
              cpuset_cpus: 0-1,3
              memory_max: 1G
              memory_high: max
              memory_low: 10M
              memory_swap_max: 0
              memory_oom_group: off
              io_weight: 500
              io_max: {/dev/sda: {rbps: 1M, wiops: 100}}
              open_files: 10000
              processes: 100
              rlimits: {core: 0, as: 1G, cpu: 1.5s, stack: max, nice: 20, rttime: 5}
        """).limits
    assert (limits.cpu_percent, limits.cpu_weight, limits.cpuset_cpus) == (150.5, 200, "0-1,3")
    assert (limits.memory_max_bytes, limits.memory_high_bytes) == (1024 * MIB, "max")
    assert (limits.memory_low_bytes, limits.memory_swap_max_bytes) == (10 * MIB, 0)
    assert (limits.memory_oom_group, limits.io_weight, limits.pids_max) == (False, 500, 100)
    assert limits.io_max == (IoMax("/dev/sda", MIB, "max", "max", 100),)
    assert limits.rlimits == {
        **{"nofile": 10000, "nproc": 100, "core": 0, "cpu": 2},
        **{"nice": 20, "rttime": 5, "stack": "max", "as": 1024 * MIB},
    }


def test_pids_max_can_differ_from_processes() -> None:
    limits = service("services: {web: {resources: {processes: 100, pids_max: 500}}}").limits
    assert (limits.pids_max, limits.rlimits["nproc"]) == (500, 100)


ORCHESTRATOR = """\
        control: {group: ops}
        runtime:
          orchestrator:
            log_level: warn
            shutdown_timeout: 1m
            max_processes: 7
            isolation: best_effort
            restart_policy: {max_attempts: 9, initial_delay: 2s, backoff_multiplier: 3, max_backoff: 50s,
                             jitter: 0.2, window: 10m, reset_after: 5s}
            resource_limits: {default_cpu_percent: 50, default_memory_mb: max, default_io_weight: 7}
            logs: {max_size: 1M, max_files: 2}
"""


def test_a_service_overrides_the_orchestrator_and_inherits_the_rest() -> None:
    spec = resolve(
        load(
            ORCHESTRATOR
            + """\
        services:
          web: {log_level: debug, restart: {max_restarts: max, jitter: 0}, logs: {max_files: 3}}
          job: {type: oneshot, resources: {memory_mb: 32}, restart: {backoff_factor: 1.5}}
        """
        ),
        CONTEXT,
    )
    assert spec.runtime == RuntimeSpec("warning", 60.0, 7, Isolation.BEST_EFFORT, "ops", discovery=FOUND)
    expected = RestartPolicy(RestartWhen.ALWAYS, "max", 600.0, 2.0, 50.0, 3.0, 0.0, 5.0)
    web, job = spec.services["web"], spec.services["job"]
    assert web.restart == expected
    assert job.restart == replace(
        expected, when=RestartWhen.NEVER, max_restarts=9, jitter=0.2, backoff_factor=1.5
    )
    assert (web.log_level, job.log_level) == ("debug", "warn")
    assert (web.logs, job.logs) == (LogPolicy(MIB, 3), LogPolicy(MIB, 2))
    assert (web.limits.memory_max_bytes, job.limits.memory_max_bytes) == ("max", 32 * MIB)
    assert (web.limits.cpu_percent, web.limits.io_weight) == (50, 7)


def test_auto_restart_off_means_never() -> None:
    text = "runtime: {orchestrator: {auto_restart: off}}\nservices: {web: {restart: {policy: always}}}"
    assert service(text).restart.when is RestartWhen.NEVER


def test_dependencies_security_stop_and_the_rest() -> None:
    text = """\
        services:
          web:
            depends_on: {job: {condition: completed}, db: {}}
            user: www
            group: www-data
            umask: 077
            oom_score_adj: -5
            required: no
            stop: {signal: SIGINT, timeout: 1m}
            security: {no_new_privileges: false, capabilities: [cap_net_raw, CHOWN]}
          job: {type: oneshot}
          db: {depends_on: [job], security: {capabilities: []}}
        """
    spec = service(text)
    assert spec.depends_on == {"job": Condition.COMPLETED, "db": Condition.STARTED}
    assert (spec.user, spec.group, spec.umask, spec.oom_score_adj) == ("www", "www-data", 0o077, -5)
    assert spec.required is False
    assert (spec.stop.signal, spec.stop.timeout_seconds) == (2, 60.0)
    assert spec.security == SecuritySpec(False, ("NET_RAW", "CHOWN"))
    db = resolve(load(text), CONTEXT).services["db"]
    assert db.depends_on == {"job": Condition.STARTED}
    assert db.security.capabilities == ()


def test_the_hash_changes_with_what_a_run_is_started_with_and_only_then() -> None:
    def hash_of(keys: str, environ: dict[str, str] | None = None) -> str:
        return service(f"services: {{web: {{{keys}}}}}", environ).config_hash

    base = hash_of("")
    assert base == hash_of("enabled: false")
    assert base == hash_of("restart: {max_restarts: 1}, stop: {timeout: 1s}, logs: {max_files: 1}")
    for limit in ("memory_mb: 100", "memory_mb: max", "io_max: {'8:0': {rbps: 1M}}", "pids_max: 9"):
        assert base == hash_of(f"resources: {{{limit}}}"), "the limits of a cgroup are changed while it runs"
    changed = [
        hash_of("args: [x]"),
        hash_of("environment: {A: b}"),
        hash_of("environment: {GOMEMLIMIT: '1'}"),
        hash_of("resources: {open_files: 100}"),
        hash_of("user: www"),
        hash_of("umask: 077"),
        hash_of("config: {a: 1}"),
        hash_of("config: {a: 2}"),
        hash_of('config: {a: "${V}"}', {"V": "1"}),
        hash_of('config: {a: "${V}"}', {"V": "2"}),
        hash_of("security: {capabilities: []}"),
    ]
    assert len({base, *changed}) == len(changed) + 1


def test_the_context_says_where_things_are() -> None:
    context = Context("/home/ann/app", "/run/user/1000/bh", "/home/ann/.local/share/blackhole")
    spec = resolve(load("services: {web: {command: ./web, config: {}}}"), context).services["web"]
    assert spec.argv == ("/home/ann/app/web",)
    assert spec.data_dir == "/home/ann/.local/share/blackhole/web"
    assert spec.config_path == "/run/user/1000/bh/config/web.json"
    assert spec.handed_config == "{}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("critical", (400, 400, -500)),
        ("normal", (None, 100, 0)),
        ("background", (25, 25, 500)),
        ("critical, resources: {cpu_weight: 7, io_weight: 9}, oom_score_adj: 1", (7, 9, 1)),
    ],
)
def test_priority_sets_defaults_and_nothing_that_is_written(text, expected):
    spec = service(f"services: {{web: {{command: /bin/true, priority: {text}}}}}")
    assert (spec.limits.cpu_weight, spec.limits.io_weight, spec.oom_score_adj) == expected


def test_metrics_listen_on_the_loopback_interface_or_nowhere() -> None:
    def listen(text: str) -> TcpAddress | None:
        orchestrator = f"runtime: {{orchestrator: {{metrics: {{{text}}}}}}}\n"
        return resolve(load(orchestrator + "services: {web: {}}"), CONTEXT).runtime.metrics_listen

    assert listen("") is None
    assert listen("listen: '127.0.0.1:9464'") == TcpAddress("127.0.0.1", 9464)
    assert listen("listen: '127.1.2.3:80'") == TcpAddress("127.1.2.3", 80)
    assert listen("listen: '[0:0::1]:65535'") == TcpAddress("::1", 65535)
