"""Where results that can be made again are kept between runs."""

import os
import tempfile
from pathlib import Path


def cache_folder(part: str) -> Path:
    """Return the folder `resdomains/PART` in the user's cache (XDG_CACHE_HOME, or ~/.cache); it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:  # a user without a home, as in some containers
            base = tempfile.gettempdir()
    return Path(base) / "resdomains" / part
