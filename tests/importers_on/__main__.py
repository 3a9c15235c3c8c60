"""Imports every configuration file of a directory, and says what did not hold."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.importers_on.checks import Report, check_file
from tests.importers_on.originals import READERS

TABLE = Path(__file__).with_name("corpus.tsv")
HEAD = ["kind", "origin", "version", "path", "sha256", "outcome", "services", "carried", "listed"]


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the directory, and where it came from."""

    kind: str
    origin: str
    version: str
    path: str
    file: Path

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """What tells it from any other, as the table has it."""
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return self.kind, self.origin, self.version, self.path, digest


def files_of(directory: Path) -> Iterator[Found]:
    """The files of DIRECTORY/KIND/OWNER/NAME/VERSION/PATH, in order."""
    for kind in READERS:
        for file in sorted((directory / kind).rglob("*")):
            parts = file.relative_to(directory).parts
            if file.is_file() and len(parts) > 4:
                yield Found(kind, "/".join(parts[1:3]), parts[3], "/".join(parts[4:]), file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.importers_on", description=__doc__)
    parser.add_argument("directory", type=Path, help="has KIND/OWNER/NAME/VERSION/PATH")
    parser.add_argument("--table", type=Path, default=TABLE, help="known files and their results")
    parser.add_argument("--write", action="store_true", help="write the table anew from this directory")
    parser.add_argument("--only", choices=READERS, help="this kind alone")
    parser.add_argument("--verbose", action="store_true", help="tell what only the owner of a file can add")
    options = parser.parse_args(arguments)
    known = {} if options.write else dict(known_files(options.table))
    rows, wrong, counts = [], 0, Counter[tuple[str, str]]()
    for found in files_of(options.directory.absolute()):
        if options.only not in (None, found.kind):
            continue
        report = check_file(found.kind, found.file)
        rows.append("\t".join((*found.row, *results_of(report))))
        report.wrong += differences(known.pop(found.row[:4], None), rows[-1])
        counts[found.kind, report.outcome] += 1
        counts[found.kind, "to complete"] += bool(report.to_complete)
        wrong += len(report.wrong)
        told = [f"to complete: {each}" for each in report.to_complete] if options.verbose else []
        for each in (*report.wrong, *told):
            print(f"{found.kind} {found.origin} {found.path}: {each}")
    if options.write:
        options.table.write_text("\n".join(["\t".join(HEAD), *rows]) + "\n", encoding="utf-8")
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind}: {count} {outcome}")
    missing = [key for key in known if options.only in (None, key[0])]
    for key in missing:
        print(f"was not given: {' '.join(key)}")
    print(f"{len(rows)} files, {wrong} properties that did not hold, {len(missing)} of the table not given")
    return 1 if wrong else 0


def results_of(report: Report) -> tuple[str, ...]:
    """The fields of the table that say what came of a file."""
    return report.outcome, str(report.services), str(report.carried), str(report.listed)


def differences(known: str | None, row: str) -> Iterator[str]:
    """What the table says otherwise of the same file."""
    for field, before, now in zip(HEAD, (known or row).split("\t"), row.split("\t"), strict=True):
        if before != now:
            yield f"{field} is {now}, in the table {before}"


def known_files(table: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """What the table says of each file: the four fields that name it -> the line."""
    for line in table.read_text(encoding="utf-8").splitlines()[1:] if table.exists() else ():
        yield tuple(line.split("\t")[:4]), line


if __name__ == "__main__":
    sys.exit(main())
