"""Which packages a config or a checkpoint's recipe may name classes of."""

from collections.abc import Iterable

import jsonargparse

from resdomains.plugins import importable_packages

# Parts of the packages that run what a file or an address holds.
_RUNS_FILES = (
    *("torch.hub", "torch.load", "torch.serialization", "torch.package", "torch.jit.load"),
    *("torch.utils.cpp_extension", "torch.utils.model_zoo", "torch.distributed.rpc"),
)


def allow_plugins_only(extra: Iterable[str] = ()) -> None:
    """Refuse class paths outside known packages, before anything of them is imported.

    Allowed are torch, torchvision, Lightning, torchmetrics, resdomains, the packages of installed plugins and
    those in `extra`. Call this before anything is parsed.

    Args:
        extra: Further top-level packages, which somebody named on purpose.
    """
    allowed = {*importable_packages(), *(name.partition(".")[0] for name in extra)}
    jsonargparse.set_parsing_settings(
        import_path_denylist=["*", *_RUNS_FILES],
        import_path_allowlist=sorted(allowed),
        instantiate_subclass_spec_in_any=False,
    )
