"""What every test gets: one torch thread, W&B offline and caches in folders of its own, no windows, no hub."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Read when the hub's library is imported, which tests do before any fixture runs: no test asks the network.
os.environ["HF_HUB_OFFLINE"] = "1"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def quiet_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set in the environment, so that the processes that tests start inherit it."""
    home = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
        for name in ("CACHE", "CONFIG", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))
        # Whoever runs the tests may be logged in, with a project of their own; the tests are not.
        patch.setenv("NETRC", os.devnull)
        for name in ("API_KEY", "ENTITY", "PROJECT", "RUN_ID", "DIR"):
            patch.delenv(f"WANDB_{name}", raising=False)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One torch thread: small tests run faster so, and sums come in the same order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; without it the test is skipped."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data sets at {SHARED_DATA}")
    return SHARED_DATA
