"""What `predict` is given: recordings, and folders of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from resdomains.training import BadSample

from .audio import SUFFIXES, AudioFile, find_audio


def read_inputs(inputs: Sequence[str]) -> Iterator[AudioFile | BadSample]:
    """Yield the recordings that the arguments of a command line name, in order; a `BadSample` where one cannot be used.

    Args:
        inputs: Files, or folders, of which all recordings are taken, at any depth.
    """
    for given in inputs:
        path = Path(given)
        files = [path]
        if path.is_dir():
            files = find_audio(path)
            if not files:
                yield BadSample(given, f"a folder without recordings ({', '.join(SUFFIXES)})")
        for file in files:
            try:
                yield AudioFile(file)
            except BadSample as error:
                yield error
