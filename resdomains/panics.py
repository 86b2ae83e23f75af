"""Errors of libraries that are written in Rust: their panics are no `Exception`."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_value_error(what: str) -> Iterator[None]:
    """Raise whatever goes wrong inside as a `ValueError`, panics of Rust too.

    Args:
        what: What could not be done: the beginning of the message.

    Raises:
        ValueError: Instead of any other error.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise ValueError(f"{what}: {error}") from error
