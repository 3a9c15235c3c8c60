"""How this host reaches Debian and Python packages, so that the image can be built in the same way.

Everything is read from the host's own configuration; no address is known here.
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import http.server
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROXY_NAMES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# What of pip's settings says where packages come from; the rest is the host's own business.
PIP_KEYS = {"index-url", "extra-index-url", "find-links", "no-index", "trusted-host"} | {
    "cert",
    "client-cert",
    "proxy",
    "timeout",
    "retries",
}
# Only what says how to reach a mirror.
APT_KEYS = re.compile(r"^Acquire::(https?::(Proxy|Timeout)|Retries|ForceIPv[46]|Check-(Valid-Until|Date))")


def apt_options() -> list[str]:
    """The host's apt settings for proxies and the like, as lines for another apt.conf."""
    return [line for line in _output(["apt-config", "dump"]).splitlines() if APT_KEYS.match(line)]


def debian_sources(suite: str) -> list[str]:
    """Lines for sources.list that use the Debian mirrors this host uses; empty when it uses none."""
    template = "$(CREATED_BY)|$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    mirrors: dict[str, str] = {}
    for line in _output(["apt-get", "indextargets", "--format", template]).splitlines():
        created_by, origin, label, uri = [*line.split("|"), "", "", ""][:4]
        if created_by == "Packages" and origin == "Debian" and uri:
            mirrors.setdefault(label, uri)
    main, security = mirrors.get("Debian"), mirrors.get("Debian-Security")
    if main is None:
        return []
    lines = [f"deb {main} {suite} main", f"deb {main} {suite}-updates main"]
    return [*lines, f"deb {security} {suite}-security main"] if security else lines


def proxies() -> dict[str, str]:
    """The proxy variables of this process's environment, with the loopback interface left out of them."""
    found = {name: os.environ[name] for name in PROXY_NAMES if name in os.environ}
    for name in ("no_proxy", "NO_PROXY"):
        found[name] = ",".join(filter(None, (found.get(name), "127.0.0.1")))
    return found


@dataclass(frozen=True)
class PipSettings:
    """pip's settings for use in another root directory: a pip.conf, and files to copy to a place inside."""

    text: str
    copies: Mapping[str, Path] = field(default_factory=dict)


@contextlib.contextmanager
def pip_settings(inside: str, environment: Mapping[str, str] | None = None) -> Iterator[PipSettings]:
    """The host's pip settings; `inside` is a directory of the other root for the files they name.

    Local directories of packages are offered on the loopback interface while this lasts. They are never made
    visible in the other root by mounting them: whatever clears that root away would clear them away too.
    """
    environment = os.environ if environment is None else environment
    values = _pip_files(environment) | _pip_variables(environment)
    with contextlib.ExitStack() as stack:
        places = _Places(inside, stack)
        lines = ["[global]", "disable-pip-version-check = true"]
        for key, value in sorted(values.items()):
            words = [places.move(word) for word in value.split()]
            if key == "trusted-host":
                places.trusted += words
            else:
                lines.append(f"{key} = " + "\n    ".join(words))
        if places.trusted:
            lines.append("trusted-host = " + "\n    ".join(places.trusted))
        yield PipSettings("\n".join(lines) + "\n", places.copies)


class _Places:
    """Gives each local path in pip's settings a place where the other root can find it."""

    def __init__(self, inside: str, stack: contextlib.ExitStack) -> None:
        self._inside = inside
        self._stack = stack
        self.copies: dict[str, Path] = {}
        self.trusted: list[str] = []

    def move(self, word: str) -> str:
        path = Path(word.removeprefix("file://"))
        if not path.is_absolute() or not path.exists():
            return word
        if path.is_file():
            place = f"{self._inside}/file-{len(self.copies)}"
            self.copies[place] = path
            return place
        # The files of an index lie beside its "simple" directory and are linked to from there.
        root = path.parent if path.name == "simple" else path
        host = self._stack.enter_context(_offered(root))
        self.trusted.append(host)
        return f"http://{host}/{path.relative_to(root)}/".replace("/./", "/")


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Only reads, and only below its directory."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def _offered(directory: Path) -> Iterator[str]:
    """Serve a directory on the loopback interface; "address:port"."""
    handler = functools.partial(_QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _pip_files(environment: Mapping[str, str]) -> dict[str, str]:
    """From the configuration files, in the order of pip's documentation: the later one wins."""
    home = Path(environment.get("HOME", "/nonexistent"))
    config_home = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return {}
    shared = [
        Path(each) / "pip/pip.conf" for each in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    ]
    files = [*shared, Path("/etc/pip.conf"), home / ".pip/pip.conf", config_home / "pip/pip.conf"]
    parser = configparser.RawConfigParser()
    parser.read([*files, *([named] if named else [])])
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {key: value for key, value in parser.items(section) if key in PIP_KEYS}
    return found


def _pip_variables(environment: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in environment.items():
        key = name.removeprefix("PIP_").lower().replace("_", "-").replace("default-timeout", "timeout")
        if name.startswith("PIP_") and key in PIP_KEYS and value:
            found[key] = value
    return found


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
