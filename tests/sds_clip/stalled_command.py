"""`sds-clip` with a stall: `python -m tests.sds_clip.stalled_command ARGUMENTS`."""

import sys

from sds_clip.cli import main
from tests.stalls import install

if __name__ == "__main__":
    install()
    sys.exit(main())
