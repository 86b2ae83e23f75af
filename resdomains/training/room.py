"""How much of the data may stay in memory."""


class Room:
    """How much of what was decoded may still be kept in memory; all splits of a process share it.

    Args:
        size: In bytes.
    """

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Take room for `size` bytes if there is as much."""
        fits = size <= self.left
        self.left -= size * fits
        return fits
