"""Names of others inside Markdown."""

from __future__ import annotations

import pytest

from ablations.markdown import escaped, in_code, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain_name", "plain_name"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("[x](y)", r"\[x\](y)"),
        ("a|b\nc", r"a\|b c"),
        ("a\r\nb\u2028c", "a b c"),
    ],
)
def test_a_name_shows_as_it_is(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a", "`a`"), ("a`b", "``a`b``"), ("`x`", "`` `x` ``"), ("a\nb", "`a b`"), ("", "``")],
)
def test_code_ends_where_it_should(text: str, shown: str) -> None:
    assert in_code(text) == shown


def test_a_comment_of_a_script_stays_on_its_line() -> None:
    assert one_line("a\nrm -rf x\r") == "a rm -rf x "
