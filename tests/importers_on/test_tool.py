"""The tool that runs the importers on other projects' files: it finds what is lost, and takes what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.importers_on.__main__ import TABLE, known_files, main
from tests.importers_on.checks import Imported, check_file, compare
from tests.importers_on.originals import READERS, Original
from tests.importers_on.words import compose_text, shell_words, systemd_words

FILES = {
    "supervisord": "[program:a]\ncommand=/a -b 'c d'\nenvironment=X=\"1,2\",Y=3\nnumprocs=2\n"
    "process_name=%(program_name)s_%(process_num)d\npriority=3\n"
    "user=u\n[group:g]\nprograms=a\n",
    "procfile": "web: a -p $PORT\nclock: while true; do b; done\n",
    "compose": "name: n\nservices:\n  a:\n    image: x\n    command: run $$1 ${V:-1}\n"
    "    environment: {A: 'b'}\n    deploy: {replicas: 2, resources: {limits: {memory: 1G}}}\n"
    "    depends_on: [b]\n  b: {image: y}\n",
    "systemd": "[Unit]\nAfter=x\n[Service]\nExecStart=/a 'b\\x20c' \\\n  d\nUser=u\n"
    "Environment=A=1\n[Install]\nAlias=b\n",
}  # fmt: skip


def put(directory: Path, kind: str, text: str) -> Path:
    file = directory / kind / "owner" / "name" / "0123" / "some" / "a.service"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("kind", FILES)
def test_all_holds_of_what_the_importers_know(tmp_path: Path, kind: str) -> None:
    report = check_file(kind, put(tmp_path, kind, FILES[kind]))
    assert (report.outcome, report.wrong) == ("imported", [])
    assert report.services in (1, 2)
    assert report.listed >= 1


def test_a_refusal_names_the_place(tmp_path: Path) -> None:
    report = check_file("procfile", put(tmp_path, "procfile", "no process\n"))
    assert (report.outcome, report.wrong) == ("refused", [])


LOST = {
    "a: user: is neither": ({"command": ["x"]}, [("user", "u")]),
    "a: user: is 'v' here, not 'u'": ({"command": ["x"], "user": "v"}, [("user", "u")]),
    "a: runs ['y'], not ['x']": ({"command": ["y"]}, []),
    "a: the environment's E is None, not '1'": ({"command": ["x"], "environment": {}}, []),
    "a: the environment's E is '2', not '1'": ({"command": ["x"], "environment": {"E": "2"}}, []),
    "a: the environment has F": ({"command": ["x"], "environment": {"E": "1", "F": "1"}}, []),
}


@pytest.mark.parametrize("message", LOST)
def test_what_is_lost_or_altered_is_found(message: str) -> None:
    service, settings = LOST[message]
    environment = {"E": "1"} if "environment" in service else {}
    original = Original("a", range(1, 9), list(settings), ["x"], environment)
    (found,) = compare(Imported("supervisord", [dict(service)], []), [original], {})
    assert found.startswith(message)


def test_a_service_that_is_missing_or_made_up_is_found() -> None:
    original = Original("a", range(1, 9))
    assert list(compare(Imported("systemd", [], []), [original], {})) == ["a: is not in the new file"]
    assert list(compare(Imported("systemd", [{}], []), [], {})) == ["has more services than the file"]


def test_a_note_at_another_place_does_not_count() -> None:
    original = Original("a", range(1, 9), [("priority", "1")])
    for line, wrong in ((3, 0), (9, 1)):
        note = {"path": "x", "line": line, "setting": "priority", "why": "y"}
        assert len(list(compare(Imported("supervisord", [{}], [note]), [original], {}))) == wrong


def test_the_table_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [put(tmp_path / "files", kind, text) for kind, text in FILES.items()]
    arguments = [str(tmp_path / "files"), "--table", str(tmp_path / "table.tsv")]
    assert main([*arguments, "--write"]) == 0
    assert main(arguments) == 0
    files[1].unlink()
    files[0].write_text(FILES["supervisord"] + "\n")
    capsys.readouterr()
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "supervisord owner/name some/a.service: sha256 is" in said
    assert "was not given: procfile owner/name 0123 some/a.service" in said
    assert said.endswith("3 files, 1 properties that did not hold, 1 of the table not given\n")


def test_the_table_has_enough_files_of_each_kind() -> None:
    rows = list(dict(known_files(TABLE)))
    for kind in READERS:
        origins = {origin for each, origin, *_ in rows if each == kind}
        assert len([row for row in rows if row[0] == kind]) >= 25
        assert len(origins) >= 10


def test_the_documentation_has_the_figures_of_the_table() -> None:
    lines = [line.split("\t") for line in dict(known_files(TABLE)).values()]
    text = (Path(__file__).parents[2] / "docs" / "import.md").read_text(encoding="utf-8")
    assert f"run on {len(lines)} files" in text
    for kind, name in {"procfile": "Procfile", "compose": "Compose"}.items() | {
        (k, k) for k in ("supervisord", "systemd")
    }:
        rows = [line for line in lines if line[0] == kind]
        imported = sum(row[5] == "imported" for row in rows)
        sums = [sum(int(row[column]) for row in rows) for column in (6, 7, 8)]
        figures = [len(rows), len({row[1] for row in rows}), imported, *sums]
        assert f"| {name} | {' | '.join(map(str, figures))} |" in text


def test_words() -> None:
    assert shell_words("A=1 exec b 'c d' \"e f\" $PORT") == (["b", "c d", "e f", "{tcp_port}"], {"A": "1"})
    for line in ("a | b", 'a "$B"', "a # b", "cd x", "a *", "a 'b"):
        assert shell_words(line) == (["/bin/sh", "-c", line], {})
    assert systemd_words(r"a 'b\x20c' %n \;", "w.service") == ["a", "b c", "w.service", ";"]
    assert compose_text("$$a $B ${C:-d${E}} ${F:+g} ${B?x}", {"B": "1", "E": "2"}) == "$a 1 d2  1"
