"""`python -m sds_clip` is `sds-clip`."""

import sys

from sds_clip.cli import main

sys.exit(main())
