"""Where memory runs out, the run says how much a step needs and what to set; what it says holds."""

import re
from pathlib import Path

import pytest

from tests.resdomains.launching import ALONE, DIGITS, launch

# The peak of the resident set with 1024 samples less that with 256, by 768.
MIB_A_SAMPLE = 1.163
# Beside some 4 GiB of libraries, for which a process only has addresses.
LIMITED = ["sh", "-c", 'ulimit -v 4800000; exec "$@"', "sh"]


@pytest.mark.slow
def test_a_step_that_does_not_fit_says_by_how_much_and_what_does(tmp_path: Path) -> None:
    fit = [*ALONE, "fit", *DIGITS, "--test_after_fit", "false", "--run.wandb.mode", "disabled"]
    big = ["--model.backbone.layers", "[8,2]", "--model.backbone.channels", "[128,64]"]
    one = ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "0"]
    failed = launch([*LIMITED, *fit, *big, *one, "--data.batch_size", "1280"], tmp_path)
    assert failed.returncode == 1
    said = failed.stderr
    found = re.search(r"a step with 1280 samples needs about ([\d.]+) GiB beside the weights", said)
    assert found is not None, said
    assert 0.7 < float(found[1]) / (1280 * MIB_A_SAMPLE / 1024) < 1.3
    fits = re.search(
        r"--data.batch_size (\d+) fits .*--trainer.accumulate_grad_batches (\d+) a step", said
    )
    assert fits is not None, said
    size, steps = fits.groups()
    assert int(size) * int(steps) == 1280
    assert "--model.backbone.memory Recompute fits (about " in said
    assert "Traceback" not in said
    less = ["--data.batch_size", size, "--trainer.accumulate_grad_batches", steps]
    one[1] = steps
    (tmp_path / "again").mkdir()
    done = launch([*LIMITED, *fit, *big, *one, *less], tmp_path / "again")
    assert done.returncode == 0, done.stderr
