import pytest

from resdomains.panics import as_value_error


class PanicException(BaseException):
    """As pyo3 has it."""


@pytest.mark.parametrize("error", [PanicException("index 3"), KeyError("a"), ValueError("b")])
def test_every_error_becomes_a_value_error_that_says_what_failed(error: BaseException) -> None:
    with pytest.raises(ValueError, match=f"the text cannot be cut: .*{error}") as found:  # noqa: SIM117
        with as_value_error("the text cannot be cut"):
            raise error
    assert found.value.__cause__ is error


def test_what_ends_a_program_still_does() -> None:
    for error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error), as_value_error("nothing"):
            raise error
