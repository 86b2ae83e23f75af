import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn
from resdomains.imports import allow_plugins_only

allow_plugins_only(sys.argv[2:])
parser = ArgumentParser(exit_on_error=False)
parser.add_subclass_arguments(nn.Module, "model", required=True)
try:
    parser.parse_object({"model": {"class_path": sys.argv[1]}})
except ArgumentError as error:
    print("refused", "not allowed" in str(error))
else:
    print("accepted")
"""


def parse(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return done.stdout.strip()


def test_a_class_of_an_unknown_package_is_refused_unimported(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(
        "import pathlib; pathlib.Path('ran').touch()\nfrom torch.nn import ReLU\n"
    )
    assert parse(tmp_path, "planted.ReLU") == "refused True"
    assert not (tmp_path / "ran").exists()
    assert parse(tmp_path, "planted.ReLU", "planted.sub") == "accepted"


def test_known_packages_are_accepted_and_the_system_is_not(tmp_path: Path) -> None:
    assert parse(tmp_path, "torch.nn.ReLU") == "accepted"
    assert parse(tmp_path, "os.system") == "refused True"
