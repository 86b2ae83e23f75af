"""What an error says, as part of a message of ours. Nothing here imports more than Python's own library."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
