"""docs/configuration.md is what the models say."""

from __future__ import annotations

from pathlib import Path

from blackhole_cg.core.config.docs import EXAMPLE, render_docs
from blackhole_cg.core.config.schema import sections
from tests.core.config.files import MAIN, lines_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == render_docs(), (
        "run: python -m blackhole_cg.core.config.docs > docs/configuration.md"
    )


def test_every_key_is_in_it() -> None:
    text = render_docs()
    for model in sections():
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in text


def test_its_example_is_a_configuration() -> None:
    assert lines_of({MAIN: EXAMPLE}) == []
    assert EXAMPLE.rstrip() in render_docs()
