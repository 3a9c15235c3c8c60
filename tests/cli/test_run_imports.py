"""What `run` imports, and does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, os, ssl, sys
from blackhole_cg.cli.run import import_supervisor
before = dict(os.environ)
import_supervisor()
from aiohttp import connector
unused = connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509_ca"]
probed = ssl.create_default_context().cert_store_stats()["x509_ca"]
print(json.dumps([dict(os.environ) == before, unused, probed]))
"""


def imported(environ: dict[str, str]) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert isinstance(said, list)
    return said


@pytest.mark.parametrize("environ", [{}, {"SSL_CERT_FILE": "/dev/zero/no"}], ids=["unset", "set"])
def test_authorities_are_not_loaded_for_a_client_that_is_not_used(environ: dict[str, str]) -> None:
    is_restored, unused, _ = imported(environ)
    assert (is_restored, unused) == (True, 0)


def test_they_are_there_for_probes() -> None:
    *_, unused, probed = imported({})
    if not probed:
        pytest.skip("this host has none in a file")
    assert unused == 0
