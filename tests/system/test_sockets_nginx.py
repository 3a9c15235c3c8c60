"""nginx on a held socket, as docs/sockets.md says: restarted under load, it refuses nobody."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from blackhole_cg.control.client import ControlClient
from tests.support.configs import config
from tests.support.live import Live
from tests.support.load import Load
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs_kernel, pytest.mark.any_kernel, pytest.mark.timeout(600)]

RESTARTS = 5
NGINX = """
worker_processes 2; error_log stderr; pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server { listen 127.0.0.1:80; location / { return 200 "served\\n"; } }
}
"""
WEB = {
    "command": "nginx -e stderr -p {data_dir}/ -c ../nginx.conf",
    "sockets": {"http": {"tcp": 80}},
    "environment": {"NGINX": "3;"},
    "stop": {"signal": "QUIT"},
    "data_dir": "data",
    "user": "www-data",
    "security": {"capabilities": []},
}


@pytest.fixture
def live() -> Iterator[Live]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with tempfile.TemporaryDirectory(prefix="bh-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # its user must reach its data_dir
        (directory / "nginx.conf").write_text(NGINX)
        live = Live(directory, config({"web": WEB}))
        try:
            yield live.start().ready()
        finally:
            live.close()


def test_nginx_is_restarted_under_load_and_refuses_nobody(live):
    """Without the right to bind port 80, which it does not need."""
    client = ControlClient(live.runtime_dir)
    with Load(80, 2) as load:
        for _ in range(RESTARTS):
            client.change("restart", ["web"])
            # Told to end before it serves, a run would prove little.
            urlopen("http://127.0.0.1:80/", timeout=60).close()
    assert set(load.counts) == {"answered"}, load.counts
    assert load.counts["answered"] > RESTARTS
    assert client.service("web")["run_id"] == RESTARTS + 1
    inherited = "using inherited sockets"
    eventually(
        lambda: sum(inherited in line["message"] for line in live.log_lines("web")) == RESTARTS + 1,
        "each run has said that it took the socket",
    )
