"""What the commands that take a config share, before anything heavy is imported."""

from resdomains.cli.arguments import Arguments
from resdomains.cli.errors import CliError
from resdomains.cli.yaml_files import read_config
from resdomains.plugins import find_config

CONFIG_KEYS = ("seed", "trainer", "model", "data", "run", "test_after_fit", "compile", "ckpt_path")

CONFIG_HELP = """\
  --config NAME       a YAML file or a shipped config (`resdomains configs`); repeated ones are
                      merged left to right: keys deeply, lists replaced, `name+` adds to a list
  --KEY VALUE         set any key, wherever it stands: --seed 1, --trainer.max_epochs 5,
                      --data.root FOLDER, --model.backbone.merge Highway, --model.optimization.lr 0.2
  --KEY.help          explain a key: --model.help, --model.backbone.help, --trainer.help
  --print_config      print the whole config and stop
  --plugin MODULE     import a module of yours, whose classes the config may then name
  --traceback         show where an error comes from
"""


def check_configs(arguments: Arguments) -> None:
    """Answer a mistyped config, broken YAML or an empty command before torch is imported.

    Raises:
        CliError: If a config does not exist or cannot be read, or nothing is configured at all.
    """
    for config in arguments.configs:
        read_config(find_config(config))
    if not arguments.configs and not arguments.overrides and arguments.help_for is None:
        raise CliError("no --config given; `resdomains configs` lists what is shipped")
