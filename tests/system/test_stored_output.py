"""What a service writes last, while there is no supervisor, with a service manager that keeps its FIFOs."""

from __future__ import annotations

import json
import shutil

import yaml

from tests.support.configs import SLEEP, config, python
from tests.support.fd_store import fd_store
from tests.support.live import alive, crash
from tests.support.waiting import eventually

LAST_WORDS = """
import os, sys, time
print("begins", flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
sys.stdout.write("".join(f"line {number}\\n" for number in range(500)) + "and no end of line")
sys.stdout.flush()
print("on the other stream", file=sys.stderr, flush=True)
"""


def lines(live, name: str) -> list[dict]:
    return [json.loads(line) for line in (live.log_dir / f"{name}.log").read_text().splitlines()]


def test_what_is_written_by_who_ends_while_nobody_supervises_is_logged_for_that_run(supervise, tmp_path):
    """Also where the runtime directory is deleted meanwhile, and over two deaths."""
    with fd_store(tmp_path) as store:
        talks = python(LAST_WORDS, data_dir="talks", restart={"policy": "never"}, required=False)
        live = supervise(config({"talks": talks, "calm": SLEEP}), start=False)
        live.start(store.wrapper).ready()
        eventually(lambda: len(store.names) == 4, "the FIFOs are stored")
        assert store.names == ["log/calm"] * 2 + ["log/talks"] * 2
        for deleted in (False, True):
            written = len(lines(live, "talks")) if deleted else 1
            run_id, pid = (live.status("talks")[key] for key in ("run_id", "pid"))
            eventually(lambda written=written: len(lines(live, "talks")) >= written, "it has begun")
            crash(live)
            (live.directory / "talks" / "go").touch()
            eventually(lambda pid=pid: not alive(pid), "it has ended")
            if deleted:
                shutil.rmtree(live.runtime_dir / "fifo")
            live.start(store.wrapper)
            live.ready()
            said = [each for each in lines(live, "talks") if each["run_id"] == run_id]
            expected = ["begins", *(f"line {number}" for number in range(500)), "and no end of line"]
            assert [each["message"] for each in said if each["stream"] == "stdout"] == expected
            assert [each["message"] for each in said if each["stream"] == "stderr"] == ["on the other stream"]
            assert live.status("talks")["state"] == "failed"
            (live.directory / "talks" / "go").unlink()
            live.cli("start", "talks")
        kept = [each for each in store.messages if "FDSTORE" in each]
        assert len(kept) == 2, "one message for each service, and none for what is stored already"
        live.config.write_text(yaml.safe_dump(config({"calm": SLEEP})))
        live.cli("reload")
        eventually(lambda: store.names == ["log/calm"] * 2, "what was removed is stored no more")


def test_an_upgrade_stores_nothing_twice(supervise, tmp_path):
    with fd_store(tmp_path) as store:
        live = supervise(config({"web": SLEEP}), start=False)
        live.start(store.wrapper).ready()
        live.cli("upgrade")
        live.cli("restart", "web")
        eventually(lambda: store.names == ["log/web"] * 2, "there are two", 60)
