"""One process at a time in a folder."""

import fcntl
import os
import socket
from pathlib import Path


class InUse(RuntimeError):
    """A folder that another process works in; the message names the process."""


class FolderLock:
    """Keep a folder for this process, until it ends or lets go.

    The lock is POSIX's: it ends with the process, however that ends, holds over NFS, and is not inherited by data
    workers, which outlive a killed process by seconds. A file system without locks leaves the folder unlocked.

    Args:
        folder: The folder; the lock is its file `.lock`.

    Raises:
        InUse: If another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._file: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # which of them, POSIX leaves open
            holder = self.path.read_text(errors="replace").strip()
            raise InUse(f"{holder or 'another process'} is at work in {folder}") from error
        except OSError:
            return  # the file system has no locks
        os.truncate(self._file, 0)
        os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Let the folder go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.release()
