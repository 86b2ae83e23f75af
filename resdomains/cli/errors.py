"""What the command says when it cannot go on."""

BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130
TERMINATED = 143


class CliError(Exception):
    """An error that its message explains; shown without a traceback.

    Args:
        message: What is wrong, with the key, the value and what is allowed.
        status: The process's exit status.
    """

    def __init__(self, message: str, status: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.status = status


class ConfigError(CliError):
    """A key or value of the config that is not accepted.

    Args:
        key: Dotted key as on the command line, such as `model.backbone.merge`.
        message: What is wrong with it and what is allowed.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
