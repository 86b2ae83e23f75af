"""The launcher's fixtures: a working folder with the tiny domain, and the command in this process."""

from tests.resdomains.cli.conftest import cli, folder

__all__ = ["cli", "folder"]
