"""Run the command as `python -m resdomains.cli`, as torchrun does."""

import sys

from resdomains.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
