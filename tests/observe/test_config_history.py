"""The configurations that are kept: which one is the newest, and what cannot be read."""

from __future__ import annotations

import json

import pytest

from blackhole_cg.errors import StoreError
from blackhole_cg.observe.config_history import ConfigHistory
from tests.support.builders import service, supervisor_spec

WEB, OTHER = supervisor_spec(service("web")), supervisor_spec(service("other"))


@pytest.fixture
def history(tmp_path):
    history = ConfigHistory(tmp_path)
    for spec in (OTHER, WEB):
        history.add(spec, "run", None, "2026-01-01T00:00:00+00:00")
    return history


def test_it_ends_with_the_newest_alone(history, tmp_path):
    assert history.ends_with(WEB)
    assert not history.ends_with(OTHER)
    assert not ConfigHistory(tmp_path / "nothing").ends_with(WEB)


def test_a_text_of_another_version_is_the_same_configuration(history, tmp_path):
    path = tmp_path / "2.json"
    data = json.loads(path.read_text())
    configuration = {"of_a_later_version": 1, **json.loads(data["configuration"])}
    path.write_text(json.dumps({**data, "configuration": json.dumps(configuration)}))
    assert history.ends_with(WEB)


@pytest.mark.parametrize("configuration", ["", "[]", '{"services": 1}'])
def test_one_that_cannot_be_read_is_listed_and_not_returned_to(history, tmp_path, configuration):
    path = tmp_path / "2.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "configuration": configuration}))
    assert not history.ends_with(WEB)
    assert [entry.number for entry in history.entries()] == [1, 2]
    with pytest.raises(StoreError, match=r"cannot read .*2\.json"):
        history.load(2)


def test_a_file_that_is_none_of_ours_is_left_out(history, tmp_path):
    (tmp_path / "2.json").write_text("{")
    assert [entry.number for entry in history.entries()] == [1]
