"""`resdomains new-task`: write a package that holds a new task."""

from pathlib import Path

from resdomains import scaffold
from resdomains.cli.arguments import split
from resdomains.cli.errors import CliError
from resdomains.cli.folders import check_new, draft

HELP = """\
usage: resdomains new-task NAME [--folder FOLDER]

Write a package that holds a new task: its plugin, a task, a data module, a config, and tests of what every task
must survive. It works as it stands, on small signals that it makes itself; replace one part after another.

  NAME                  the task's name: small letters, digits and _
  --folder FOLDER       a new or empty folder to write to (NAME)
  --traceback           show where an error comes from

examples:
  resdomains new-task bird_songs
  pip install --no-build-isolation -e bird_songs
  resdomains fit --config bird_songs/tiny"""


def run(name: str, tokens: list[str]) -> int:
    """Write the package; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    arguments = split(tokens, options=("folder",), files=True)
    if len(arguments.files) != 1:
        raise CliError(f"`resdomains new-task` needs one NAME, got {len(arguments.files)}")
    [task] = arguments.files
    try:
        scaffold.check_name(task)
    except ValueError as error:
        raise CliError(str(error)) from error
    given = arguments.options.get("folder", task)
    folder = Path(given).expanduser().resolve()
    check_new(folder, "folder")
    try:
        with draft(folder) as beside:
            for file, text in scaffold.files(task).items():
                path = beside / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            if folder.is_dir():
                folder.rmdir()
            beside.rename(folder)
    except OSError as error:
        raise CliError(f"--folder {folder}: {error.strerror or error}") from error
    print(
        f"written to {folder}; README.md there says what to change\n\n"
        f"  pip install --no-build-isolation -e {given}\n"
        f"  resdomains fit --config {task}/tiny\n"
        f"  pytest {given}"
    )
    return 0
