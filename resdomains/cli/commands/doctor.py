"""`resdomains doctor`: what is installed, what the machine can do, and what is missing."""

import importlib
import netrc
import os
import platform
from importlib import metadata

from resdomains.cli.arguments import split
from resdomains.cli.errors import FAILED
from resdomains.cli.tables import table
from resdomains.plugins import Found, discover, extra_of

HELP = """\
usage: resdomains doctor

Show versions, devices, bfloat16 support with its self-test, the state of W&B and, for each task,
whether what it needs is installed. Exits with 1 if a task cannot be used."""

PACKAGES = (
    "resdomains",
    "torch",
    "torchvision",
    "torchaudio",
    "pytorch-lightning",
    "torchmetrics",
    "jsonargparse",
    "wandb",
    "transformers",
    "gymnasium",
)


def run(name: str, arguments: list[str]) -> int:
    """Print the report; 1 if a task cannot be used."""
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    split(arguments)
    print("versions")
    print(
        table(
            ("", ""),
            [("  python", platform.python_version()), *((f"  {p}", _version(p)) for p in PACKAGES)],
        )
    )
    print("\ndevices")
    for line in _devices():
        print(f"  {line}")
    print(f"\nW&B\n  {wandb_state()}")
    print("\ntasks")
    entries = discover()
    states = [(entry, _state(entry)) for entry in entries]
    for entry, problem in states:
        print(f"  {entry.name}: {problem or 'ready'}")
    return FAILED if any(problem for _, problem in states) else 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    import torch

    from resdomains.training.precision import choose_precision

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = choose_precision("cpu")
    lines = [
        f"cpu: {cores} cores, {torch.get_num_threads()} threads; {cpu.name}, because {cpu.reason}"
    ]
    if not torch.cuda.is_available():
        return [*lines, "no GPU that torch can use"]
    gpu = choose_precision("cuda")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        lines.append(
            f"cuda:{index}: {properties.name}, {memory:.0f} GiB; {gpu.name}, because {gpu.reason}"
        )
    return lines


def wandb_state() -> str:
    """Whether runs go online, judged without the network."""
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return f"{mode}, because WANDB_MODE says so"
    if os.environ.get("WANDB_API_KEY"):
        return "online: WANDB_API_KEY is set"
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].strip("/")
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        known = None
    if known is not None:
        return f"online: logged in to {host}"
    return "offline: not logged in (`wandb login` changes that); runs are kept in their folders"


def _state(entry: Found) -> str:
    """What keeps a task from being used, or an empty string."""
    if entry.plugin is None:
        return f"broken: {entry.reason} (`resdomains tasks` shows all of it)"
    extra = extra_of(entry)
    if extra.missing:
        return f"pip install '{extra.install}' (missing: {', '.join(extra.missing)})"
    for value in (entry.plugin.task, *entry.plugin.data.values()):
        module, _, attribute = value.partition(":")
        try:
            getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever a plugin does when imported, the report goes on
            return f"{value} cannot be imported: {type(error).__name__}: {error}"
    return ""
