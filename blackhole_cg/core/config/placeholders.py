"""`{name}`, `{tcp_port}` and the other exact words that a service's own facts replace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

WORDS: Final = ("name", "tcp_port", "unix_socket", "data_dir", "log_level", "config_path")

# After a `$` it is a shell's variable, not a placeholder: sh -c 'echo $${name}' means the shell's own.
_PLACEHOLDER: Final = re.compile(r"(?<!\$)\{(" + "|".join(WORDS) + r")\}")


def used_in(text: str) -> set[str]:
    """The placeholders the text uses."""
    return set(_PLACEHOLDER.findall(text))


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced, once; one without a value stays as written."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
