"""Wrong configurations and exactly what is said about each; shared by every test that needs some."""
# ruff: noqa: E501

from __future__ import annotations

from itertools import pairwise

_LEVELS = "abcdefgh"
ALIAS_BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n" for before, name in pairwise(_LEVELS)
)

TEMPLATE = """\
templates:
  host:
    command: [/bin/host, -wasm, "{wasm}", -db, "{db}"]
    resources: {memory_max: "{memory}"}
"""

WRONG: dict[str, tuple[str | bytes, list[str]]] = {
    "templates and instances of a wrong kind": (
        "templates: [a]\ninstances: {id: a}\nservices: {web: {}}\n",
        [
            "blackhole.yaml:1:12: templates: a list is not a mapping (accepted: a mapping)",
            "blackhole.yaml:2:12: instances: a mapping is not a list (accepted: a list of mappings with id and template)",
        ],
    ),
    "instances that cannot be": (
        """\
services:
  web: {instances: 3, tcp_port: 8080, command: a}
  none: {instances: 0, command: a}
  some: {instances: "${NOBODY:-3}", command: a}
  db: {instances: 2, command: a, comand: b, rollout: {max_unavailable: 0, min_redy: 1s}}
  db-2: {command: a, depends_on: [web, cash]}
templates:
  host: {command: a, instances: 2}
instances: [{id: shop, template: host}]
""",
        [
            "blackhole.yaml:2:33: services.web.tcp_port: 3 instances cannot listen on one port (accepted: auto, or a number with {index} in it)",
            "blackhole.yaml:3:21: services.none.instances: '0' is out of range (accepted: 1 to 1000)",
            "blackhole.yaml:4:21: services.some.instances: has to be written out as a number, from 1 to 1000",
            "blackhole.yaml:5:8: services.db.instances: there is a service 'db-2' already (at blackhole.yaml:6:3)",
            "blackhole.yaml:5:34: services.db.comand: unknown key (did you mean 'command'?) (instance 'db-1' at blackhole.yaml:5:3)",
            "blackhole.yaml:5:72: services.db.rollout.max_unavailable: max_surge is 0 too, so nothing could be replaced (accepted: more than 0 in one of them) (instance 'db-1' at blackhole.yaml:5:3)",
            "blackhole.yaml:5:75: services.db.rollout.min_redy: unknown key (did you mean 'min_ready'?) (instance 'db-1' at blackhole.yaml:5:3)",
            "blackhole.yaml:6:40: services.db-2.depends_on.cash: there is no service 'cash' (accepted: db-1, db-2, none, shop, some, web)",
            "blackhole.yaml:8:33: templates.host.instances: an instance of a template is one service (accepted: an entry of `instances` each) (instance 'shop' at blackhole.yaml:9:13)",
        ],
    ),
    "more instances than can be": (
        """\
services:
  web: {instances: 1, tcp_port: 8080, command: a, rollout: {max_surge: 1}}
  api: {instances: 4, command: a, rollout: {max_surge: "${MORE:-1}"}}
  db: {instances: 2, command: a, rollout: {max_surge: 101%, max_unavailable: 1.5}}
  some: {command: a, rollout: {max_unavailable: 0%, max_surge: 0}}
  cache: {instances: 2, unix_socket: "/run/{index}", command: a, rollout: {max_surge: 1%}}
  cache-3: {command: a, unix_socket: /run/3}
  queue: {instances: 2, unix_socket: "/run/q{index}", command: a, rollout: {max_surge: 1%}}
  user: {command: a, unix_socket: /run/q3, depends_on: [queue-2, queue-3]}
templates:
  host: {command: a, rollout: {max_surge: 25%}}
  unused: {command: a, rollout: {max_surge: 1, max_unavailable: 0}}
instances: [{id: shop, template: host}]
""",
        [
            "blackhole.yaml:2:33: services.web.tcp_port: 1 instances, and 1 more while they are replaced, cannot listen on one port (accepted: auto, or a number with {index} in it)",
            "blackhole.yaml:3:56: services.api.rollout.max_surge: has to be written out, as a number or a percentage (instance 'api-1' at blackhole.yaml:3:3)",
            "blackhole.yaml:4:55: services.db.rollout.max_surge: '101%' is out of range (accepted: 0 to 1000, or 0% to 100%) (instance 'db-1' at blackhole.yaml:4:3)",
            "blackhole.yaml:4:78: services.db.rollout.max_unavailable: '1.5' is not a whole number or a percentage (accepted: 0 to 1000, or 0% to 100%) (instance 'db-1' at blackhole.yaml:4:3)",
            "blackhole.yaml:5:49: services.some.rollout.max_unavailable: max_surge is 0 too, so nothing could be replaced (accepted: more than 0 in one of them)",
            "blackhole.yaml:6:11: services.cache.instances: there is a service 'cache-3' already (at blackhole.yaml:7:3), and an additional instance would have its name",
            "blackhole.yaml:9:35: services.user.unix_socket: service 'queue-3' has the same unix_socket (blackhole.yaml:8:38)",
            "blackhole.yaml:9:66: services.user.depends_on.queue-3: there is no service 'queue-3' (did you mean 'queue-2'?)",
            "blackhole.yaml:11:43: templates.host.rollout.max_surge: an additional instance would have the id, and so the data, of one that is there already (accepted: 0; more with `instances: N` of a service) (instance 'shop' at blackhole.yaml:13:13)",
            "blackhole.yaml:12:45: templates.unused.rollout.max_surge: an additional instance would have the id, and so the data, of one that is there already (accepted: 0; more with `instances: N` of a service)",
        ],
    ),
    "templates that are none": (
        "templates: {Web: {}, a: 5, b: {comand: x, user: root}}\n",
        [
            "blackhole.yaml:1:13: templates.Web: 'Web' is not the name of a template (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit)",
            "blackhole.yaml:1:25: templates.a: '5' is not a mapping (accepted: the keys of a service)",
            "blackhole.yaml:1:32: templates.b.comand: unknown key (did you mean 'command'?)",
        ],
    ),
    "instances that are none": (
        TEMPLATE
        + """\
instances:
  - shop
  - {template: host, wasm: a, db: b, memory: 1M}
  - {id: Shop, template: host, wasm: a, db: b, memory: 1M}
  - {id: a, template: hots, wasm: a, db: b, memory: 1M}
  - {id: b, wasm: a, db: b, memory: 1M}
  - {id: c, template: host, wasm: [a], db: b, memory: 1M}
  - {id: d, template: host, wasm: a, db: b, memory: 1M, tcp_port: 5, a-b: 1}
""",
        [
            "blackhole.yaml:6:5: instances[0]: 'shop' is not an instance (accepted: a mapping with id and template)",
            "blackhole.yaml:7:5: instances[1]: has no id (accepted: id, template and its placeholders)",
            "blackhole.yaml:8:10: instances[2].id: 'Shop' is not the name of a service (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit)",
            "blackhole.yaml:9:23: instances[3].template: there is no template 'hots' (did you mean 'host'?)",
            "blackhole.yaml:10:5: instances[4]: has no template (accepted: host)",
            "blackhole.yaml:11:35: instances[5].wasm: a list cannot stand for a placeholder (accepted: text, a number, true, false)",
            "blackhole.yaml:12:57: instances[6].tcp_port: {tcp_port} is a fact of every service (choose another name for this key)",
            "blackhole.yaml:12:70: instances[6].a-b: 'a-b' is not a placeholder (accepted: letters, digits and '_')",
        ],
    ),
    "placeholders and keys that do not match": (
        TEMPLATE
        + """\
instances:
  - {id: a, template: host, wasm: a, memory: 1M}
  - {id: b, template: host, wasm: a, dbb: b, memory: 1M}
  - {id: c, template: host, wasm: a, db: b, memory: 1M, colour: red}
""",
        [
            "blackhole.yaml:6:5: instances[0]: has no key 'db', which the template 'host' uses (at blackhole.yaml:3:48)",
            "blackhole.yaml:7:5: instances[1]: has no key 'db', which the template 'host' uses (at blackhole.yaml:3:48)",
            "blackhole.yaml:7:38: instances[1].dbb: the template 'host' has no placeholder {dbb} (did you mean 'db'?)",
            "blackhole.yaml:8:57: instances[2].colour: the template 'host' has no placeholder {colour} (it uses {wasm}, {db}, {memory})",
        ],
    ),
    "names that are taken": (
        TEMPLATE
        + """\
services: {web: {}}
instances:
  - {id: web, template: host, wasm: a, db: b, memory: 1M}
  - {id: shop, template: host, wasm: a, db: b, memory: 1M}
  - {id: shop, template: host, wasm: c, db: d, memory: 1M}
""",
        [
            "blackhole.yaml:7:10: instances[0].id: there is a service 'web' already (at blackhole.yaml:5:12)",
            "blackhole.yaml:9:10: instances[2].id: there is an instance 'shop' already (at blackhole.yaml:8:5)",
        ],
    ),
    "sums and intervals": (
        """\
runtime: {orchestrator: {discover: maybe, discover_interval: 1ms}}
services: {web: {binary_sha256: abc}}
""",
        [
            "blackhole.yaml:1:36: runtime.orchestrator.discover: 'maybe' is neither true nor false (accepted: true, false)",
            "blackhole.yaml:1:62: runtime.orchestrator.discover_interval: '1ms' is too short (accepted: 500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds; 1s to 3650d)",
            "blackhole.yaml:2:33: services.web.binary_sha256: 'abc' is not a SHA-256 (accepted: 64 hexadecimal digits, as sha256sum prints them)",
        ],
    ),
    "what only the filled template shows": (
        """\
templates:
  host:
    command: [/bin/host, "{tcp_prot}"]
    resources: {memory_max: "{memory}", cpu_percent: lots}
    stopp: {}
    unix_socket: /run/host.sock
instances:
  - {id: a, template: host, memory: 1M, tcp_prot: x}
  - {id: b, template: host, memory: big, tcp_prot: x}
""",
        [
            "blackhole.yaml:4:54: templates.host.resources.cpu_percent: 'lots' is not a number (accepted: 1 to 100000, or \"max\") (instance 'a' at blackhole.yaml:8:5)",
            "blackhole.yaml:5:5: templates.host.stopp: unknown key (did you mean 'stop'?) (instance 'a' at blackhole.yaml:8:5)",
            "blackhole.yaml:6:18: templates.host.unix_socket: service 'a' has the same unix_socket (blackhole.yaml:6:18) (instance 'b' at blackhole.yaml:9:5)",
            "blackhole.yaml:9:37: services.b.resources.memory_max: 'big' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes, at least 1M, or \"max\")",
        ],
    ),
    "empty file": (
        "",
        [
            "blackhole.yaml: is empty (expected a `services:` section)",
        ],
    ),
    "only comments": (
        "# nothing\n",
        [
            "blackhole.yaml: is empty (expected a `services:` section)",
        ],
    ),
    "watch that is no flag": (
        "runtime: {orchestrator: {watch: [a.yaml]}}\nservices: {web: {}}\n",
        [
            "blackhole.yaml:1:33: runtime.orchestrator.watch: a list is neither true nor false (accepted: true, false)",
        ],
    ),
    "no services": (
        "runtime: {}\n",
        [
            "blackhole.yaml:1:1: services: there is no service (accepted: one or more)",
        ],
    ),
    "a list": (
        "- web\n",
        [
            "blackhole.yaml:1:1: is not a configuration (expected keys such as `services:`)",
        ],
    ),
    "two documents": (
        """\
            services: {web: }
            ---
            services: {api: }
            """,
        [
            "blackhole.yaml:2:1: a second document begins here (accepted: one per file)",
        ],
    ),
    "binary garbage": (
        b"\x7fELF\x02\x01\x01\x00\xff\xfe",
        [
            "blackhole.yaml:1:9: is not UTF-8 text: byte 0xff here is not valid",
        ],
    ),
    "control character": (
        b"services:\n  web: {command: \x07}\n",
        [
            "blackhole.yaml:2:18: is not text: control character 0x07 here",
        ],
    ),
    "latin-1": (
        "services:\n  web: {command: caf\xe9}\n".encode("latin-1"),
        [
            "blackhole.yaml:2:21: is not UTF-8 text: byte 0xe9 here is not valid",
        ],
    ),
    "too large": (
        b"#" * (3 * 2**20),
        [
            "blackhole.yaml: is too large: 3M (accepted: up to 2M)",
        ],
    ),
    "ten MB of nesting": (
        b"[" * 10_000_000,
        [
            "blackhole.yaml: is too large: 9.5M (accepted: up to 2M)",
        ],
    ),
    "a megabyte of nesting": (
        b"[" * 1_000_000,
        [
            "blackhole.yaml:1:65: is nested too deeply (accepted: up to 64 levels)",
        ],
    ),
    "nested mappings": (
        b"services: " + b"{a: " * 100_000,
        [
            "blackhole.yaml:1:263: is nested too deeply (accepted: up to 64 levels)",
        ],
    ),
    "nested block lists": (
        b"- " * 500_000,
        [
            "blackhole.yaml:1:129: is nested too deeply (accepted: up to 64 levels)",
        ],
    ),
    "alias bomb": (
        ALIAS_BOMB,
        [
            "blackhole.yaml:5:29: the aliases stand for too much (accepted: up to 100000 values in all)",
        ],
    ),
    "recursive alias": (
        "services: &a {web: *a}\n",
        [
            "blackhole.yaml:1:20: the alias *a stands inside its own anchor",
        ],
    ),
    "unknown alias": (
        "services: {web: *nobody}\n",
        [
            "blackhole.yaml:1:17: the alias *nobody has no anchor &nobody before it",
        ],
    ),
    "python tag": (
        """\
            services:
              web:
                command: !!python/object/apply:os.system [id]
            """,
        [
            "blackhole.yaml:3:14: services.web.command: the tag !!python/object/apply:os.system is not accepted here (accepted: plain YAML without tags)",
        ],
    ),
    "custom tag": (
        """\
            services:
              web: {user: !secret x}
            """,
        [
            "blackhole.yaml:2:15: services.web.user: the tag !secret is not accepted here (accepted: plain YAML without tags)",
        ],
    ),
    "tab": (
        "services:\n\tweb: {}\n",
        [
            "blackhole.yaml:2:1: is not valid YAML: a tab cannot indent (use spaces)",
        ],
    ),
    "unclosed bracket": (
        """\
            services:
              web: {command: [a, b}
            """,
        [
            "blackhole.yaml:2:23: is not valid YAML: the list opened with '[' is not closed with ']' before this",
        ],
    ),
    "unclosed quote": (
        """\
            services:
              web:
                command: "x
            """,
        [
            "blackhole.yaml:3:14: is not valid YAML: the quotes or brackets opened here are never closed",
        ],
    ),
    "colon in a text": (
        """\
            services:
              web:
                command: echo a: b
            """,
        [
            "blackhole.yaml:3:20: is not valid YAML: unexpected ':' (quote a text that contains ': ')",
        ],
    ),
    "indentation": (
        """\
            services:
              web:
                user: a
               group: b
            """,
        [
            "blackhole.yaml:4:4: is not valid YAML: a key was expected here (check the indentation and the brackets)",
        ],
    ),
    "at sign": (
        """\
            services:
              web:
                user: @me
            """,
        [
            "blackhole.yaml:3:11: is not valid YAML: a value cannot begin with '@' (quote it)",
        ],
    ),
    "list as a key": (
        """\
            services:
              ? [a]
              : {}
            """,
        [
            "blackhole.yaml:2:5: a key must be text, not a list or a mapping (quote '{' and '[')",
        ],
    ),
    "missing key": (
        """\
            services:
              web: {~: 1}
            """,
        [
            "blackhole.yaml:2:9: a key is missing before ':'",
        ],
    ),
    "merge of a text": (
        """\
            services:
              web:
                <<: hello
            """,
        [
            'blackhole.yaml:3:9: services.web."<<": can only merge mappings (accepted: *ALIAS or a list of them)',
        ],
    ),
    "duplicate key": (
        """\
            services:
              web:
                user: a
                user: b
            """,
        [
            "blackhole.yaml:4:5: services.web.user: is given twice (first at line 3); keep one",
        ],
    ),
    "duplicate service": (
        """\
            services:
              web: {}
              web: {}
            """,
        [
            "blackhole.yaml:3:3: services.web: is given twice (first at line 2); keep one",
        ],
    ),
    "unknown top-level key": (
        """\
            service:
              web: {}
            """,
        [
            "blackhole.yaml:1:1: service: unknown key (did you mean 'services'?)",
        ],
    ),
    "misspelt key": (
        """\
            services:
              web:
                resources: {cpu_precent: 5}
            """,
        [
            "blackhole.yaml:3:17: services.web.resources.cpu_precent: unknown key (did you mean 'cpu_percent'?)",
        ],
    ),
    "far-off key": (
        """\
            services:
              web:
                stop: {grace: 5}
            """,
        [
            "blackhole.yaml:3:12: services.web.stop.grace: unknown key (accepted: signal, timeout)",
        ],
    ),
    "watchdog of a service that nobody listens to": (
        """\
            services:
              web:
                watchdog: 30s
            """,
        [
            "blackhole.yaml:3:15: services.web.watchdog: nobody listens to a service of type simple (accepted: with type notify)",
        ],
    ),
    "later key": (
        """\
            services:
              web:
                gpu: 1
            """,
        [
            "blackhole.yaml:3:5: services.web.gpu: unknown key (accepted: enabled, required, instances, rollout, type, start_timeout, watchdog, command, binary_path, binary_sha256, args, data_dir, environment, env_file, user, group, log_level, unix_socket, tcp_port, sockets, depends_on, resources, priority, umask, oom_score_adj, health_check, startup_probe, readiness_probe, liveness_probe, restart, monitor, stop, security, logs, config)",
        ],
    ),
    "wrong types": (
        """\
            services:
              web:
                enabled: maybe
                args: --fast
                environment: [A=1]
                resources: 5
                tcp_port: [1]
                config: text
            """,
        [
            "blackhole.yaml:3:14: services.web.enabled: 'maybe' is neither true nor false (accepted: true, false)",
            "blackhole.yaml:4:11: services.web.args: '--fast' is not a list (accepted: a list)",
            "blackhole.yaml:5:18: services.web.environment: a list is not a mapping (accepted: a mapping)",
            "blackhole.yaml:6:16: services.web.resources: '5' is not a mapping (accepted: a mapping)",
            "blackhole.yaml:7:15: services.web.tcp_port: a list is not a whole number (accepted: 1 to 65535, or auto)",
            "blackhole.yaml:8:13: services.web.config: 'text' is not a mapping (accepted: any mapping)",
        ],
    ),
    "services is a list": (
        "services: [web, api]\n",
        [
            "blackhole.yaml:1:11: services: a list is not a mapping (accepted: a mapping)",
        ],
    ),
    "wrong numbers": (
        """\
            services:
              web:
                resources: {cpu_percent: 0, io_weight: 10001, open_files: many, processes: 1.5, cpu_weight: max}
                oom_score_adj: -1001
                tcp_port: 65536
            """,
        [
            "blackhole.yaml:3:30: services.web.resources.cpu_percent: '0' is out of range (accepted: 1 to 100000, or \"max\")",
            "blackhole.yaml:3:44: services.web.resources.io_weight: '10001' is out of range (accepted: 1 to 10000)",
            "blackhole.yaml:3:63: services.web.resources.open_files: 'many' is not a whole number (accepted: 4 to 1073741816)",
            "blackhole.yaml:3:80: services.web.resources.processes: '1.5' is not a whole number (accepted: 1 to 4194304, or \"max\")",
            "blackhole.yaml:3:97: services.web.resources.cpu_weight: 'max' is not a whole number (accepted: 1 to 10000)",
            "blackhole.yaml:4:20: services.web.oom_score_adj: '-1001' is out of range (accepted: -1000 to 1000)",
            "blackhole.yaml:5:15: services.web.tcp_port: '65536' is out of range (accepted: 1 to 65535, or auto)",
        ],
    ),
    "bad sizes": (
        """\
            services:
              web:
                resources: {memory_max: 12Q, memory_high: 512, memory_low: -1, memory_mb: 512M}
                logs: {max_size: 10}
            """,
        [
            "blackhole.yaml:3:29: services.web.resources.memory_max: '12Q' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes, at least 1M, or \"max\")",
            "blackhole.yaml:3:47: services.web.resources.memory_high: '512' is too small (accepted: 512M, 1GiB, 1.5G or plain bytes, at least 4K, or \"max\")",
            "blackhole.yaml:3:64: services.web.resources.memory_low: '-1' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes, or \"max\")",
            "blackhole.yaml:3:79: services.web.resources.memory_mb: '512M' is not a whole number (accepted: 1 to 8796093022207, or \"max\")",
            "blackhole.yaml:4:22: services.web.logs.max_size: '10' is too small (accepted: 512M, 1GiB, 1.5G or plain bytes, at least 1K)",
        ],
    ),
    "bad durations": (
        """\
            runtime:
              orchestrator: {shutdown_timeout: soon}
            services:
              web:
                stop: {timeout: 5 minutes}
                restart: {restart_window: 0, max_delay: 11000d}
            """,
        [
            "blackhole.yaml:2:36: runtime.orchestrator.shutdown_timeout: 'soon' is not a duration (accepted: 500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds; 0s to 3650d)",
            "blackhole.yaml:5:21: services.web.stop.timeout: '5 minutes' is not a duration (accepted: 500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds; 0s to 3650d)",
            "blackhole.yaml:6:31: services.web.restart.restart_window: '0' is too short (accepted: 500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds; 1ms to 3650d)",
            "blackhole.yaml:6:45: services.web.restart.max_delay: '11000d' is too long (accepted: 500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds; 0s to 3650d)",
        ],
    ),
    "bad words": (
        """\
            runtime:
              orchestrator: {isolation: best-effort, log_level: verbose}
            services:
              web: {type: forking, restart: {policy: on-failure}}
            """,
        [
            "blackhole.yaml:2:29: runtime.orchestrator.isolation: 'best-effort' is not known (did you mean 'best_effort'? accepted: required, best_effort)",
            "blackhole.yaml:2:53: runtime.orchestrator.log_level: 'verbose' is not known (accepted: debug, info, warn, warning, error, critical)",
            "blackhole.yaml:4:15: services.web.type: 'forking' is not known (accepted: simple, notify, oneshot)",
            "blackhole.yaml:4:42: services.web.restart.policy: 'on-failure' is not known (did you mean 'on_failure'? accepted: always, on_failure, never)",
        ],
    ),
    "bad signal": (
        """\
            services:
              web: {stop: {signal: SIGTREM}}
              api: {stop: {signal: STOP}}
            """,
        [
            "blackhole.yaml:2:24: services.web.stop.signal: 'SIGTREM' is not a signal that ends a process (did you mean 'SIGTERM'? accepted: TERM, INT, QUIT, HUP, USR1, USR2, KILL and so on, with or without SIG)",
            "blackhole.yaml:3:24: services.api.stop.signal: 'STOP' is not a signal that ends a process (accepted: TERM, INT, QUIT, HUP, USR1, USR2, KILL and so on, with or without SIG)",
        ],
    ),
    "bad capability": (
        """\
            services:
              web: {security: {capabilities: [NET_BIND_SERVCE, 7, ~]}}
            """,
        [
            "blackhole.yaml:2:35: services.web.security.capabilities[0]: 'NET_BIND_SERVCE' is not a capability (did you mean 'NET_BIND_SERVICE'? accepted: names such as NET_BIND_SERVICE, with or without CAP_)",
            "blackhole.yaml:2:52: services.web.security.capabilities[1]: '7' is not a capability (accepted: names such as NET_BIND_SERVICE, with or without CAP_)",
            "blackhole.yaml:2:55: services.web.security.capabilities[2]: this is empty, which is not a capability (accepted: names such as NET_BIND_SERVICE, with or without CAP_)",
        ],
    ),
    "bad umask": (
        """\
            services:
              web: {umask: 18}
              api: {umask: 0o22}
            """,
        [
            "blackhole.yaml:2:16: services.web.umask: '18' is not an octal mask (accepted: three octal digits such as 022, or four with a leading 0)",
            "blackhole.yaml:3:16: services.api.umask: '0o22' is not an octal mask (accepted: three octal digits such as 022, or four with a leading 0)",
        ],
    ),
    "bad cpu list": (
        """\
            services:
              web: {resources: {cpuset_cpus: 3-1}}
              api: {resources: {cpuset_cpus: all}}
            """,
        [
            "blackhole.yaml:2:34: services.web.resources.cpuset_cpus: '3-1' is not a list of CPUs (accepted: a list such as 0-3,6)",
            "blackhole.yaml:3:34: services.api.resources.cpuset_cpus: 'all' is not a list of CPUs (accepted: a list such as 0-3,6)",
        ],
    ),
    "bad io_max": (
        """\
            services:
              web: {resources: {io_max: {sda: {rbps: 1M}, /dev/sda: {rpbs: 1M}, '8:0': {}}}}
            """,
        [
            "blackhole.yaml:2:30: services.web.resources.io_max.sda: 'sda' is not a block device (accepted: a path such as /dev/sda, or MAJOR:MINOR)",
            "blackhole.yaml:2:58: services.web.resources.io_max.\"/dev/sda\".rpbs: unknown key (did you mean 'rbps'?)",
            'blackhole.yaml:2:69: services.web.resources.io_max."8:0": bounds nothing (accepted: one or more of rbps, wbps, riops, wiops)',
        ],
    ),
    "bad rlimits": (
        """\
            services:
              web: {resources: {rlimits: {nofile: 5, core: big, nice: 41, cpu: 0}}}
            """,
        [
            "blackhole.yaml:2:31: services.web.resources.rlimits.nofile: unknown key (accepted: core, cpu, data, fsize, memlock, msgqueue, nice, rss, rtprio, rttime, sigpending, stack, as)",
            "blackhole.yaml:2:48: services.web.resources.rlimits.core: 'big' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes, or \"max\")",
            "blackhole.yaml:2:59: services.web.resources.rlimits.nice: '41' is out of range (accepted: 0 to 40, or \"max\")",
            "blackhole.yaml:2:68: services.web.resources.rlimits.cpu: '0' is too short (accepted: 500ms, 1s, 5m, 1m30s, 1h, 1d or plain seconds; 1s to 3650d, or \"max\")",
        ],
    ),
    "bad service names": (
        """\
            services:
              Web: {}
              _x: {}
              'a b': {}
            """,
        [
            "blackhole.yaml:2:3: services.Web: 'Web' is not a service name (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit)",
            "blackhole.yaml:3:3: services._x: '_x' is not a service name (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit)",
            "blackhole.yaml:4:3: services.\"a b\": 'a b' is not a service name (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit)",
        ],
    ),
    "bad variable name": (
        """\
            services:
              web: {environment: {1A: x, 'A=B': y}}
            """,
        [
            "blackhole.yaml:2:23: services.web.environment.1A: '1A' is not a variable name (accepted: letters, digits and '_', not beginning with a digit)",
            "blackhole.yaml:2:30: services.web.environment.\"A=B\": 'A=B' is not a variable name (accepted: letters, digits and '_', not beginning with a digit)",
        ],
    ),
    "a range of ports that is none": (
        """\
            runtime: {orchestrator: {ports: {range: 30000}}}
            services:
              web: {tcp_port: auto}
            """,
        [
            "blackhole.yaml:1:41: runtime.orchestrator.ports.range: '30000' is not a range of ports (accepted: LOW-HIGH, 1 to 65535)",
        ],
    ),
    "a range of ports that do not exist": (
        """\
            runtime: {orchestrator: {ports: {range: 65000-65536}}}
            services:
              web: {tcp_port: auto}
            """,
        [
            "blackhole.yaml:1:41: runtime.orchestrator.ports.range: '65000-65536' is out of range (accepted: LOW-HIGH, 1 to 65535)",
        ],
    ),
    "a range of ports backwards": (
        """\
            runtime: {orchestrator: {ports: {range: 31000-30000, rnage: 1-2}}}
            services:
              web: {tcp_port: auto}
            """,
        [
            "blackhole.yaml:1:41: runtime.orchestrator.ports.range: '31000-30000' ends before it begins (accepted: LOW-HIGH, 1 to 65535)",
            "blackhole.yaml:1:54: runtime.orchestrator.ports.rnage: unknown key (did you mean 'range'?)",
        ],
    ),
    "auto port": (
        """\
            services:
              web: {tcp_port: automatic}
            """,
        [
            "blackhole.yaml:2:19: services.web.tcp_port: 'automatic' is not a whole number (accepted: 1 to 65535, or auto)",
        ],
    ),
    "empty command": (
        """\
            services:
              web: {command: []}
              api: {command: ''}
              job: {command: ['']}
            """,
        [
            "blackhole.yaml:2:18: services.web.command: names no program (accepted: a list of texts, or one text that is split like a shell does)",
            "blackhole.yaml:3:18: services.api.command: names no program (accepted: a list of texts, or one text that is split like a shell does)",
            "blackhole.yaml:4:18: services.job.command: names no program (accepted: a list of texts, or one text that is split like a shell does)",
        ],
    ),
    "command with a hole": (
        """\
            services:
              web: {command: [a, ~, [b]]}
            """,
        [
            "blackhole.yaml:2:18: services.web.command: item 2 is empty, not text (accepted: a list of texts, or one text that is split like a shell does)",
        ],
    ),
    "unclosed quote in a command": (
        """\
            services:
              web: {command: sh -c 'echo}
            """,
        [
            "blackhole.yaml:2:18: services.web.command: has a quote that is never closed (accepted: a list of texts, or one text that is split like a shell does)",
        ],
    ),
    "command and binary": (
        """\
            services:
              web: {command: a, binary_path: b}
            """,
        [
            "blackhole.yaml:2:34: services.web.binary_path: command says what is run already (keep one of command and binary_path)",
        ],
    ),
    "NUL in an argument": (
        'services:\n  web: {command: ["a\\0b"]}\n',
        [
            "blackhole.yaml:2:18: services.web.command: has a NUL character, which no program can be given (accepted: a list of texts, or one text that is split like a shell does)",
        ],
    ),
    "unset variable": (
        """\
            services:
              web:
                user: ${WHO}
                environment: {A: '${ALSO}', B: '${FINE:-x}'}
            """,
        [
            "blackhole.yaml:3:11: services.web.user: the variable WHO is not set (set it, or write ${WHO:-default})",
            "blackhole.yaml:4:22: services.web.environment.A: the variable ALSO is not set (set it, or write ${ALSO:-default})",
        ],
    ),
    "unreadable variable": (
        """\
            services:
              web: {user: '${WHO:?}', group: '${oops'}
            """,
        [
            "blackhole.yaml:2:15: services.web.user: cannot read the variable in '${WHO:?}' (accepted: ${NAME}, ${NAME:-default}; write $${ for a plain ${)",
            "blackhole.yaml:2:34: services.web.group: cannot read the variable in '${oops' (accepted: ${NAME}, ${NAME:-default}; write $${ for a plain ${)",
        ],
    ),
    "placeholder without a fact": (
        """\
            services:
              web:
                command: [web, --port, '{tcp_port}', '{other}']
                args: ['{config_path}']
                environment: {SOCKET: '{unix_socket}'}
            """,
        [
            "blackhole.yaml:3:28: services.web.command[2]: uses {tcp_port}, and the service has no tcp_port",
            "blackhole.yaml:4:12: services.web.args[0]: uses {config_path}, and the service has no config",
            "blackhole.yaml:5:27: services.web.environment.SOCKET: uses {unix_socket}, and the service has no unix_socket",
        ],
    ),
    "unknown dependency": (
        """\
            services:
              web: {depends_on: [storrage, nobody]}
              storage: {}
            """,
        [
            "blackhole.yaml:2:22: services.web.depends_on.storrage: there is no service 'storrage' (did you mean 'storage'?)",
            "blackhole.yaml:2:32: services.web.depends_on.nobody: there is no service 'nobody' (accepted: storage, web)",
        ],
    ),
    "depends on itself": (
        """\
            services:
              web: {depends_on: [web]}
            """,
        [
            "blackhole.yaml:2:22: services.web.depends_on.web: the service depends on itself",
        ],
    ),
    "cycle": (
        """\
            services:
              web: {depends_on: [api]}
              api: {depends_on: {db: {}}}
              db: {depends_on: [web]}
              x: {depends_on: [y]}
              y: {depends_on: [x]}
            """,
        [
            "blackhole.yaml:2:22: services.web.depends_on.api: the services wait for each other: web -> api -> db -> web",
            "blackhole.yaml:5:20: services.x.depends_on.y: the services wait for each other: x -> y -> x",
        ],
    ),
    "disabled dependency": (
        """\
            services:
              web: {depends_on: [db]}
              db: {enabled: no}
            """,
        [
            "blackhole.yaml:2:22: services.web.depends_on.db: 'db' is disabled, so it is never started",
        ],
    ),
    "completed of a simple one": (
        """\
            services:
              web: {depends_on: {db: {condition: completed}}}
              db: {}
            """,
        [
            "blackhole.yaml:2:38: services.web.depends_on.db.condition: 'db' is not a oneshot, so it never completes (accepted: started, healthy)",
        ],
    ),
    "health that nobody can tell": (
        """\
            services:
              web: {command: /bin/true, depends_on: {db: {condition: healthy}, job: {condition: healthy}}}
              db: {command: /bin/true}
              job: {command: /bin/true, type: oneshot}
              fine: {command: /bin/true, depends_on: {says: {condition: healthy}}}
              says: {command: /bin/true, type: notify}
            """,
        [
            "blackhole.yaml:2:58: services.web.depends_on.db.condition: 'db' has no probes and is not of type notify, so nobody can tell (accepted: started)",
            "blackhole.yaml:2:85: services.web.depends_on.job.condition: 'job' is a oneshot (accepted: completed)",
        ],
    ),
    "bad dependencies": (
        """\
            services:
              web: {depends_on: db}
              api: {depends_on: [db, db]}
              job: {depends_on: [{db: }]}
              db: {depends_on: {web: {condition: ready}}}
            """,
        [
            "blackhole.yaml:2:21: services.web.depends_on: 'db' is not a list of services (accepted: a list of names, or a mapping of names to {condition: started | healthy | completed})",
            "blackhole.yaml:3:21: services.api.depends_on: 'db' is listed twice (accepted: each name once)",
            "blackhole.yaml:4:21: services.job.depends_on: item 1 is a mapping, not the name of a service (accepted: names)",
            "blackhole.yaml:5:38: services.db.depends_on.web.condition: 'ready' is not known (accepted: started, healthy, completed)",
        ],
    ),
    "same port": (
        """\
            services:
              web: {tcp_port: 80}
              api: {tcp_port: 80}
              off: {tcp_port: 80, enabled: false}
            """,
        [
            "blackhole.yaml:3:19: services.api.tcp_port: service 'web' has the same tcp_port (blackhole.yaml:2:19)",
        ],
    ),
    "port of the metrics": (
        """\
            runtime: {orchestrator: {metrics: {listen: "127.0.0.1:80"}}}
            services:
              web: {tcp_port: 80}
              off: {tcp_port: 80, enabled: false}
            """,
        [
            "blackhole.yaml:3:19: services.web.tcp_port: the supervisor's metrics have the same port (blackhole.yaml:1:44)",
        ],
    ),
    "metrics for everybody": (
        """\
            runtime: {orchestrator: {metrics: {listen: "0.0.0.0:9464"}}}
            services: {web: {}}
            """,
        [
            "blackhole.yaml:1:44: runtime.orchestrator.metrics.listen: '0.0.0.0:9464' could be reached from other hosts (accepted: 127.0.0.1:PORT or [::1]:PORT)",
        ],
    ),
    "metrics at a name": (
        """\
            runtime: {orchestrator: {metrics: {listen: "localhost:9464"}}}
            services: {web: {}}
            """,
        [
            "blackhole.yaml:1:44: runtime.orchestrator.metrics.listen: 'localhost:9464' is not a numeric address with a port (accepted: 127.0.0.1:PORT or [::1]:PORT)",
        ],
    ),
    "metrics at no port": (
        """\
            runtime: {orchestrator: {metrics: {listen: "[::1]:0"}}}
            services: {web: {}}
            """,
        [
            "blackhole.yaml:1:44: runtime.orchestrator.metrics.listen: '[::1]:0' has no port from 1 to 65535 (accepted: 127.0.0.1:PORT or [::1]:PORT)",
        ],
    ),
    "same socket": (
        """\
            services:
              web: {unix_socket: run/a.sock}
              api: {unix_socket: ./run/a.sock}
            """,
        [
            "blackhole.yaml:3:22: services.api.unix_socket: service 'web' has the same unix_socket (blackhole.yaml:2:22)",
        ],
    ),
    "two memory limits": (
        """\
            services:
              web: {resources: {memory_mb: 10, memory_max: 10M}}
            """,
        [
            "blackhole.yaml:2:48: services.web.resources.memory_max: memory_mb sets the same limit (keep one of memory_mb and memory_max)",
        ],
    ),
    "high above max": (
        """\
            services:
              web: {resources: {memory_max: 10M, memory_high: 11M}}
              api: {resources: {memory_mb: 10, memory_low: 11M}}
            """,
        [
            "blackhole.yaml:2:51: services.web.resources.memory_high: is more than memory_max (accepted: less than that limit)",
            "blackhole.yaml:3:48: services.api.resources.memory_low: is more than memory_mb (accepted: less than that limit)",
        ],
    ),
    "crossed delays": (
        """\
            runtime:
              orchestrator: {restart_policy: {initial_delay: 2m}}
            services:
              web: {restart: {max_delay: 1s}}
              api: {restart: {initial_delay: 90s}}
            """,
        [
            "blackhole.yaml:2:50: runtime.orchestrator.restart_policy.initial_delay: the first wait is longer than the longest one (accepted: up to the longest one)",
            "blackhole.yaml:4:30: services.web.restart.max_delay: the first wait is longer than the longest one (accepted: up to the longest one)",
            "blackhole.yaml:5:34: services.api.restart.initial_delay: the first wait is longer than the longest one (accepted: up to the longest one)",
        ],
    ),
    "oneshot always": (
        """\
            services:
              job: {type: oneshot, restart: {policy: always}}
            """,
        [
            "blackhole.yaml:2:42: services.job.restart.policy: a oneshot that ended well is not run again (accepted: on_failure, never)",
        ],
    ),
    "everything at once, in order": (
        """\
            runtime:
              orchestrator:
                log_levle: info
            services:
              web:
                command: [python3, -m, "{tcp_port}"]
                resources: {cpu_precent: 5, cpu_percent: 0, memory_max: 512, memory_high: 1Q}
                depends_on: [dbb, web]
                depends_on: [api]
                environment:
                  PATH: ${NOPE}
              api:
                depends_on: {job: {condition: completed}, web: {}}
                type: onshot
                stop: {signal: TREM}
              db: {priority: high, restart: {policy: on-failure}}
              job:
              Bad_Name: {}
            """,
        [
            "blackhole.yaml:3:5: runtime.orchestrator.log_levle: unknown key (did you mean 'log_level'?)",
            "blackhole.yaml:6:28: services.web.command[2]: uses {tcp_port}, and the service has no tcp_port",
            "blackhole.yaml:7:17: services.web.resources.cpu_precent: unknown key (did you mean 'cpu_percent'?)",
            "blackhole.yaml:7:46: services.web.resources.cpu_percent: '0' is out of range (accepted: 1 to 100000, or \"max\")",
            "blackhole.yaml:7:61: services.web.resources.memory_max: '512' is too small (accepted: 512M, 1GiB, 1.5G or plain bytes, at least 1M, or \"max\")",
            "blackhole.yaml:7:79: services.web.resources.memory_high: '1Q' is not a size (accepted: 512M, 1GiB, 1.5G or plain bytes, at least 4K, or \"max\")",
            "blackhole.yaml:8:18: services.web.depends_on.dbb: there is no service 'dbb' (did you mean 'db'?)",
            "blackhole.yaml:8:23: services.web.depends_on.web: the service depends on itself",
            "blackhole.yaml:9:5: services.web.depends_on: is given twice (first at line 8); keep one",
            "blackhole.yaml:11:13: services.web.environment.PATH: the variable NOPE is not set (set it, or write ${NOPE:-default})",
            "blackhole.yaml:13:35: services.api.depends_on.job.condition: 'job' is not a oneshot, so it never completes (accepted: started, healthy)",
            "blackhole.yaml:14:11: services.api.type: 'onshot' is not known (did you mean 'oneshot'? accepted: simple, notify, oneshot)",
            "blackhole.yaml:15:20: services.api.stop.signal: 'TREM' is not a signal that ends a process (did you mean 'TERM'? accepted: TERM, INT, QUIT, HUP, USR1, USR2, KILL and so on, with or without SIG)",
            "blackhole.yaml:16:18: services.db.priority: 'high' is not known (accepted: critical, normal, background)",
            "blackhole.yaml:16:42: services.db.restart.policy: 'on-failure' is not known (did you mean 'on_failure'? accepted: always, on_failure, never)",
            "blackhole.yaml:18:3: services.Bad_Name: 'Bad_Name' is not a service name (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit)",
        ],
    ),
    "what follows from a refused value is kept back": (
        """\
            services:
              job: {type: onshot, tcp_port: eighty}
              web: {depends_on: {job: {condition: completed}, Bad: {}}, command: ["{tcp_port}"], tcp_port: 0}
              Bad: {}
            """,
        [
            "blackhole.yaml:2:15: services.job.type: 'onshot' is not known (did you mean 'oneshot'? accepted: simple, notify, oneshot)",
            "blackhole.yaml:2:33: services.job.tcp_port: 'eighty' is not a whole number (accepted: 1 to 65535, or auto)",
            "blackhole.yaml:3:51: services.web.depends_on.Bad: 'Bad' is not a service name (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit)",
            "blackhole.yaml:3:96: services.web.tcp_port: '0' is out of range (accepted: 1 to 65535, or auto)",
            "blackhole.yaml:4:3: services.Bad: 'Bad' is not a service name (accepted: up to 63 of a-z, 0-9, '-' and '_', beginning with a letter or a digit)",
        ],
    ),
    "sockets: each by itself": (
        """\
            services:
              web:
                command: [/bin/true]
                sockets:
                  a: {tcp: 9000, udp: 7, mode: 600}
                  b: {}
                  c: {tcp: "example.org:80"}
                  d: {tcp: 70000, port: 7}
                  e: {udp: 5353, backlog: 7, ipv6only: yes}
                  f: {unix: "{unix_socket}", mode: rw}
                  "j:k": {tcp: 3}
                  l: 8080
                  m: {udp: "[127.0.0.1]:80"}
            """,
        [
            "blackhole.yaml:5:22: services.web.sockets.a.udp: there is tcp already (accepted: exactly one of tcp, udp, unix)",
            "blackhole.yaml:5:30: services.web.sockets.a.mode: a tcp socket has none (accepted: with unix)",
            "blackhole.yaml:6:7: services.web.sockets.b: does not say where to listen (accepted: exactly one of tcp, udp, unix)",
            "blackhole.yaml:7:16: services.web.sockets.c.tcp: 'example.org:80' is not an address to listen on (accepted: ADDRESS:PORT with a numeric address, such as 0.0.0.0:80 or [::]:80, or PORT on 127.0.0.1)",
            "blackhole.yaml:8:16: services.web.sockets.d.tcp: '70000' has no port from 1 to 65535 (accepted: ADDRESS:PORT with a numeric address, such as 0.0.0.0:80 or [::]:80, or PORT on 127.0.0.1)",
            "blackhole.yaml:8:23: services.web.sockets.d.port: unknown key (accepted: tcp, udp, unix, backlog, ipv6only, mode, owner, group)",
            "blackhole.yaml:9:22: services.web.sockets.e.backlog: nobody waits to be accepted at a udp socket (accepted: with tcp, unix)",
            "blackhole.yaml:9:34: services.web.sockets.e.ipv6only: this is no IPv6 address (accepted: with an address such as [::]:80)",
            "blackhole.yaml:10:17: services.web.sockets.f.unix: uses {unix_socket}, and the service has no unix_socket",
            "blackhole.yaml:10:40: services.web.sockets.f.mode: 'rw' is not an octal mask (accepted: three octal digits such as 022, or four with a leading 0)",
            "blackhole.yaml:11:7: services.web.sockets.\"j:k\": 'j:k' is not a socket's name (accepted: up to 63 of letters, digits, '-', '_' and '.', beginning with a letter or a digit)",
            "blackhole.yaml:12:10: services.web.sockets.l: '8080' is not a mapping (accepted: a mapping)",
            "blackhole.yaml:13:16: services.web.sockets.m.udp: '[127.0.0.1]:80' is not a numeric address with a port (accepted: ADDRESS:PORT with a numeric address, such as 0.0.0.0:80 or [::]:80, or PORT on 127.0.0.1)",
        ],
    ),
    "sockets that collide": (
        """\
            runtime: {orchestrator: {metrics: {listen: "127.0.0.1:9000"}}}
            services:
              web:
                command: [/bin/true]
                tcp_port: 8080
                data_dir: data
                sockets:
                  http: {tcp: "{tcp_port}"}
                  every: {tcp: "[::]:443"}
                  api: {unix: "{data_dir}/api.sock"}
                  dns: {udp: "localhost:5353"}
                  tcp-too: {tcp: 5353}
              other:
                command: [/bin/true]
                tcp_port: 444
                unix_socket: other.sock
                sockets:
                  a: {tcp: 8080}
                  b: {tcp: "127.0.0.1:443"}
                  c: {tcp: 9000}
                  d: {unix: data/api.sock}
                  e: {udp: 5353}
                  f: {unix: "{unix_socket}"}
                  g: {unix: ./other.sock}
                  h: {tcp: "[::1]:8080"}
              off: {command: [/bin/true], enabled: no, sockets: {a: {tcp: 8080}}}
            """,
        [
            "blackhole.yaml:18:16: services.other.sockets.a.tcp: services.web.tcp_port listens there already (blackhole.yaml:5:15)",
            "blackhole.yaml:19:16: services.other.sockets.b.tcp: services.web.sockets.every.tcp listens there already (blackhole.yaml:9:20)",
            "blackhole.yaml:20:16: services.other.sockets.c.tcp: the supervisor's metrics have the same address (blackhole.yaml:1:44)",
            "blackhole.yaml:21:17: services.other.sockets.d.unix: services.web.sockets.api.unix listens there already (blackhole.yaml:10:19)",
            "blackhole.yaml:22:16: services.other.sockets.e.udp: services.web.sockets.dns.udp listens there already (blackhole.yaml:11:18)",
            "blackhole.yaml:24:17: services.other.sockets.g.unix: services.other.sockets.f.unix listens there already (blackhole.yaml:23:17)",
            "blackhole.yaml:25:16: services.other.sockets.h.tcp: services.web.tcp_port listens there already (blackhole.yaml:5:15)",
        ],
    ),
}
