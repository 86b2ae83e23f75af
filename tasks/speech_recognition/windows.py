"""Long recordings in overlapping pieces."""

from collections.abc import Iterator
from dataclasses import dataclass

_LEAST = 1.0


@dataclass(frozen=True)
class Window:
    """A piece of a recording, and which of its frames count.

    Args:
        start: Its first sample.
        stop: The sample behind its last.
        first: The first frame that counts.
        behind: The frame behind the last that counts; None: all that there are.
    """

    start: int
    stop: int
    first: int
    behind: int | None


class Windows:
    """How a recording too long for the network at once is cut: windows of equal length that overlap.

    Of each overlap, the first half of the frames comes from the earlier window and the second half from the later, so
    that a frame has at least half an overlap of sound around it. The frames of all windows, one after another, are
    those of the whole recording, and are decoded as one.

    Args:
        seconds: Length of a window; shorter recordings are read at once.
        overlap: How much of it the next one repeats, in seconds.

    Raises:
        ValueError: If a window is shorter than a second, or the overlap longer than half of it.
    """

    def __init__(self, seconds: float = 30.0, overlap: float = 4.0) -> None:
        if seconds < _LEAST:
            raise ValueError(f"seconds must be at least {_LEAST:g}, got {seconds}")
        if not 0.0 < overlap <= seconds / 2:
            raise ValueError(
                f"overlap must be positive and at most half of the {seconds:g} seconds, got {overlap}"
            )
        self.seconds, self.overlap = seconds, overlap

    def limit(self, rate: int) -> int:
        """Return the samples up to which a recording is read at once."""
        return int(self.seconds * rate)

    def cut(self, samples: int, rate: int, hop: int) -> Iterator[Window]:
        """Yield the windows of a recording.

        Args:
            samples: Length of the recording.
            rate: Samples a second.
            hop: Samples from one frame of the network to the next; windows begin at frames.
        """
        whole = max(int(self.seconds * rate) // hop, 2)
        edge = int(self.overlap * rate) // hop // 2
        step = max(whole - 2 * edge, 1)
        frame = 0
        while True:
            start = frame * hop
            last = start + whole * hop >= samples
            yield Window(
                start,
                samples if last else start + whole * hop,
                edge if frame else 0,
                None if last else whole - edge,
            )
            if last:
                return
            frame += step
