"""`resdomains fit`: train, test the best checkpoint, and say how it went."""

from resdomains.cli.arguments import split
from resdomains.cli.options import CONFIG_HELP, CONFIG_KEYS, check_configs

HELP = f"""\
usage: resdomains fit --config NAME [options]

Train, then test the best checkpoint. Everything about the run goes to one folder,
runs/<task>/<config>/<time or id>.

{CONFIG_HELP}
  --ckpt_path FILE        go on from a checkpoint; without --config with its own config
  --test_after_fit false  do not test at the end
  --compile true          compile the network's blocks, for GPUs: the first step takes a minute
  --run.root FOLDER       where runs lie (runs)
  --run.name NAME         the run's name in place of its config's
  --run.id NAME           the folder's name in place of the time; the same command again goes on
  --run.save_every_n_steps N  save last.ckpt within epochs too
  --run.keep_last N       also keep the last N epochs' checkpoints, for `resdomains average`
  --run.wandb.mode MODE   auto, online, offline or disabled
  --run.wandb.log_model true  log the best and the last checkpoint in W&B when the run ends

examples:
  resdomains fit --config image_classification/digits
  resdomains fit --config my.yaml --config trainer/ddp --trainer.devices 2
  resdomains fit --config runs/.../config.yaml --ckpt_path runs/.../checkpoints/last.ckpt"""


def run(name: str, tokens: list[str]) -> int:
    """Train and test; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    arguments = split(tokens, roots=CONFIG_KEYS, composing=True)
    check_configs(arguments)
    from resdomains.cli.fitting import fit

    return fit(arguments)
