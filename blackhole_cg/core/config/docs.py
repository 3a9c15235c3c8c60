"""The text of docs/configuration.md, made from the models; run as a program it prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from blackhole_cg.core.config.kinds import Kind
from blackhole_cg.core.config.models import Config
from blackhole_cg.core.config.placeholders import WORDS
from blackhole_cg.core.config.resolve import GOMEMLIMIT_PERCENT, STANDARD_PATH
from blackhole_cg.core.config.schema import kind_of_field, section_of, shown_default
from blackhole_cg.core.config.section import Section

_COMMAND: Final = "python -m blackhole_cg.core.config.docs > docs/configuration.md"

EXAMPLE: Final = """\
runtime:
  orchestrator:
    isolation: best_effort
    resource_limits: {default_memory_mb: 256}
services:
  store:
    command: [python3, -m, http.server, "{tcp_port}", --bind, 127.0.0.1]
    tcp_port: 8301
    resources: {memory_max: 128M, open_files: 1024}
  worker:
    command: python3 worker.py --store http://127.0.0.1:8301
    environment: {TOKEN: "${WORKER_TOKEN:-none}"}
    depends_on: [store]
    restart: {policy: on_failure, max_restarts: 10}
"""

_INTRODUCTION: Final = f"""\
# Configuration

<!-- Made from the models. Do not edit; run: {_COMMAND} -->

Everything is in one YAML file, usually `blackhole.yaml`:

```yaml
{EXAMPLE.rstrip()}
```

`blackhole-cg check --config FILE` reports all that is wrong with it at once, each with file, line and
column; `config show` prints it with every default filled in; `config schema` prints a JSON Schema for
editors. An unknown key, or a key given twice, is an error.

**Values.** A size is `512M`, `1GiB` or plain bytes; units are powers of 1024. A duration is `500ms`,
`1s`, `1m30s`, `5m`, `1h`, `1d` or plain seconds. `max` is unlimited. Quotes make no difference, except
below `config`, where plain words become numbers, `true`, `false` and `null` as JSON spells them and all
else is text. In `environment` every value is the text as written: `on`, `0755` and `1.10` stay as they
are. YAML's anchors, aliases and `<<` work; tags do not.

**Variables.** In every value `${{NAME}}` is the variable of the supervisor's environment,
`${{NAME:-default}}` falls back when it is unset or empty, and `$$` is one `$`; every other `$` stays as
written. A variable that is not set is an error. `config show` prints such a value as it was written,
and `***` for a value derived from one.

**Placeholders.** In `command`, `args`, `environment`, the sockets and the probes of a service, these
words are replaced by its own facts:
{", ".join(f"`{{{word}}}`" for word in WORDS)}.
They are replaced after the variables; every other brace stays as written, and so does one right
after a `$`.

**Paths.** A relative path begins at the directory of the file it is written in. A program without a
slash is looked up on the PATH the service gets.

**What a service is given.** A clean environment:
`PATH={STANDARD_PATH}`,
`HOME` (its data_dir), `TEMP` and `TMP` (`/tmp`), `LANG=C.UTF-8`, `BLACKHOLE_SERVICE`,
`BLACKHOLE_DATA_DIR`, `BLACKHOLE_LOG_LEVEL`, where set `BLACKHOLE_CONFIG`, `BLACKHOLE_SOCKET` and
`BLACKHOLE_PORT`, and `GOMEMLIMIT` at {GOMEMLIMIT_PERCENT} % of the lower of memory_high and
memory_max; then the variables of `env_file`, then those of `environment`. Later ones win.

**An env_file** has lines `KEY=VALUE`, `KEY='VALUE'` or `KEY="VALUE"` and comments from `#`; nothing in
it is replaced, but `\\n`, `\\t`, `\\"` and such in double quotes.

**Included files** may hold `services`, `templates`, `instances` and `include` only. A service is defined
in one place; the instances of all files are one list. Templates and instances are described in
[instances.md](instances.md), `discover` in [discovery.md](discovery.md).
"""


def render_docs() -> str:
    """The text of docs/configuration.md."""
    return "\n".join([_INTRODUCTION, *_chapters(Config, "", {})]).rstrip() + "\n"


def _chapters(model: type[Section], path: str, described: dict[type[Section], str]) -> Iterator[str]:
    """The chapter of a section, and those of the sections in it; one that is in several places has one."""
    inner: list[tuple[type[Section], str]] = []
    yield f"## {f'`{path}`' if path else 'The file'}\n\n{model.__doc__}\n"
    yield "| Key | Accepts | Unit | Default | Meaning |\n| --- | --- | --- | --- | --- |"
    for name, field in model.model_fields.items():
        key = field.alias or name
        held = section_of(field.annotation)
        yield _row(key, field, described.get(held) if held else None)
        if held is not None and held not in described:
            has_keys = get_origin(field.annotation) in (dict, tuple)
            described[held] = f"{path}.{key}".lstrip(".") + (_INNER_KEYS[key] if has_keys else "")
            inner.append((held, described[held]))
    yield ""
    for held, held_path in inner:
        yield from _chapters(held, held_path, described)


_INNER_KEYS: Final = {
    "services": ".NAME",
    "io_max": ".DEVICE",
    "depends_on": ".NAME",
    "sockets": ".NAME",
    "rules": "[N]",
}
_SECTION_FORMS: Final = {
    "depends_on": "list of names, or mapping, see below",
    "sockets": "mapping of names, see below",
    "services": "mapping of names, see below",
    "rules": "list of mappings, see below",
    "io_max": "mapping of devices (a path such as /dev/sda, or MAJOR:MINOR), see below",
}


def _row(key: str, field: FieldInfo, described_at: str | None) -> str:
    """A line of the table; `described_at` is the chapter of its section, when that stands elsewhere."""
    kind = kind_of_field(field)
    unit = kind.unit if kind else ""
    cells = (f"`{key}`", _accepts(key, field, described_at), unit, _default(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _accepts(key: str, field: FieldInfo, described_at: str | None) -> str:
    kind = kind_of_field(field)
    annotation = field.annotation
    if kind is not None:
        return kind.accepted_of(annotation)
    if section_of(annotation) is not None:
        return _SECTION_FORMS.get(key, f"mapping, see {f'`{described_at}`' if described_at else 'below'}")
    if get_origin(annotation) is dict:
        return "mapping of texts"
    return f"list: {_item_kind(annotation).accepted()}"


def _item_kind(annotation: Any) -> Kind:
    """The kind of the items of a list, which may be optional."""
    items = annotation if get_origin(annotation) is tuple else get_args(annotation)[0]
    return next(item for item in get_args(items)[0].__metadata__ if isinstance(item, Kind))


def _default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "x-default" in extra:
        text = str(extra["x-default"])
        return f"`{text}`" if text.startswith("runtime.") else text
    default = shown_default(field)
    if default is None:
        return "not set"
    if isinstance(default, Section | dict | tuple | list):
        return "" if isinstance(default, Section) else "empty"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    print(render_docs(), end="")
