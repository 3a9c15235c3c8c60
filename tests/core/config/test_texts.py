"""Variables, placeholders and env_files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackhole_cg.core.config.dotenv import parse_dotenv
from blackhole_cg.core.config.placeholders import WORDS, fill, used_in
from blackhole_cg.core.config.variables import escape, expand

ENVIRON = {"USER": "ann", "EMPTY": "", "DOLLAR": "${USER} $$"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${USER}", "ann"),
        ("a${USER}b${USER}c", "aannbannc"),
        ("${NOBODY:-me}", "me"),
        ("${EMPTY:-me}", "me"),
        ("${EMPTY}", ""),
        ("${NOBODY:-}", ""),
        ("${NOBODY:-a:-b c}", "a:-b c"),
        ("$$", "$"),
        ("$${USER}", "${USER}"),
        ("$$${USER}", "$ann"),
        ("$USER $1 $ {USER} 5$", "$USER $1 $ {USER} 5$"),
        ("${DOLLAR}", "${USER} $$"),
    ],
)
def test_variables(text: str, expected: str) -> None:
    expanded = expand(text, ENVIRON)
    assert expanded.text == expected
    assert expanded.has_variable == ("${" in text.replace("$$", ""))


@pytest.mark.parametrize(
    "text", ["${NOBODY}", "${", "${USER", "${}", "${1A}", "${A-b}", "${A:?b}", "${ USER }"]
)
def test_a_variable_without_a_value_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="variable"):
        expand(text, ENVIRON)


def test_variables_cannot_grow_without_bound() -> None:
    with pytest.raises(ValueError, match="too long"):
        expand("${A}" * 20, {"A": "x" * 100_000})


@given(st.text("${}ab", max_size=20))
def test_escaped_text_expands_to_itself(text: str) -> None:
    assert expand(escape(text), {}).text == text


def test_only_the_exact_words_are_placeholders() -> None:
    values = {word: word.upper() for word in WORDS}
    assert fill("{name}:{tcp_port}", values) == "NAME:TCP_PORT"
    for text in ("{Name}", "{ name }", "{}", "{nam}", "{{x}}", "${name}", "{name", "{id}"):
        assert fill(text, values) == text
    assert fill("{{name}}", values) == "{NAME}"


@given(st.lists(st.sampled_from([*(f"{{{word}}}" for word in WORDS), "{", "}", "$", "x", "{other}"])))
def test_placeholders_are_replaced_once_and_nothing_else_is(parts: list[str]) -> None:
    text = "".join(parts)
    assert fill(text, {}) == text
    values = dict.fromkeys(WORDS, "{name}")
    filled = fill(text, values)
    replaced = sum(text.count(f"{{{word}}}") - text.count(f"${{{word}}}") for word in WORDS)
    assert len(filled) == len(text) + sum(
        (len("{name}") - len(f"{{{word}}}")) * (text.count(f"{{{word}}}") - text.count(f"${{{word}}}"))
        for word in WORDS
    )
    assert bool(used_in(text)) == (replaced > 0)


def test_an_env_file() -> None:
    text = b"""\xef\xbb\xbf# comment
A=1
 export B = two words  # comment
C='single $A \\n' # comment
D="double \\"q\\" \\n\\\\"
E=
F=a#b
G=x=y\r
H=#nothing
"""
    values, diagnostics = parse_dotenv(text, "web.env")
    assert diagnostics == []
    assert values == {
        "A": "1",
        "B": "two words",
        "C": "single $A \\n",
        "D": 'double "q" \n\\',
        "E": "",
        "F": "a#b",
        "G": "x=y",
        "H": "",
    }


def test_each_bad_line_of_an_env_file_is_named_and_not_shown() -> None:
    values, diagnostics = parse_dotenv(b'A=1\nhunter2\n1B=x\nC=\'hunter2\nD="x" y\nE=\x00\n', "web.env")
    assert values == {"A": "1"}
    assert [diagnostic.line for diagnostic in diagnostics] == [2, 3, 4, 5, 6]
    assert not any("hunter2" in str(diagnostic) for diagnostic in diagnostics)
    assert str(parse_dotenv(b"A=1\n\xff", "web.env")[1][0]) == "web.env:2:1: is not UTF-8 text"


@given(st.binary(max_size=200))
def test_any_env_file_has_an_answer(data: bytes) -> None:
    values, _ = parse_dotenv(data, "web.env")
    assert all(key and "=" not in key and "\0" not in key + value for key, value in values.items())


@given(
    st.dictionaries(st.from_regex("[A-Z_][A-Z0-9_]*", fullmatch=True), st.text(st.characters(codec="utf-8")))
)
def test_quoted_values_read_back(values: dict[str, str]) -> None:
    def quote(text: str) -> str:
        return (
            '"'
            + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
            + '"'
        )

    values = {key: text.replace("\0", "") for key, text in values.items()}
    text = "".join(f"{key}={quote(value)}\n" for key, value in values.items())
    assert parse_dotenv(text.encode(), "web.env") == (values, [])
