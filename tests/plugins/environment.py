"""A virtual environment of its own, in which plugins are installed as their users install them."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Result = subprocess.CompletedProcess[str]
_PIP = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class Environment:
    """An environment that sees the libraries of this one, resdomains among them, and nothing of what is put in it.

    Args:
        python: Its interpreter.
    """

    python: Path

    @classmethod
    def create(cls, folder: Path) -> "Environment":
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        base = {"base": str(folder), "platbase": str(folder)}
        libraries = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        # Unlike a folder's bare name, this reads its .pth files too: the checkout is an editable installation.
        lines = [f"import site; site.addsitedir({path!r})" for path in libraries]
        Path(sysconfig.get_path("purelib", "venv", base), "libraries.pth").write_text(
            "\n".join(lines) + "\n", encoding="utf-8"
        )
        scripts = Path(sysconfig.get_path("scripts", "venv", base))
        return cls(scripts / ("python.exe" if os.name == "nt" else "python"))

    def install(self, *what: str) -> None:
        pip = (sys.executable, "-m", "pip", "--python", str(self.python), "install", *_PIP)
        subprocess.run([*pip, *what], check=True)

    def run(
        self,
        cwd: Path,
        *command: str,
        module: str = "resdomains.cli",
        sites: Sequence[Path] = (),
    ) -> Result:
        """Run a module, with folders of further installations on the path."""
        environment: Mapping[str, str] = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "PYTHONPATH")},
            "COLUMNS": "200",
            "PYTHONPATH": os.pathsep.join(map(str, sites)),
        }
        return subprocess.run(
            [self.python, "-m", module, *command],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
