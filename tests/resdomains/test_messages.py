"""What an error says is quoted by its first line."""

import pytest

from resdomains.messages import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n  later\n"), "later"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_first_line_that_says_something_is_quoted(error: Exception, line: str) -> None:
    assert first_line(error) == line
