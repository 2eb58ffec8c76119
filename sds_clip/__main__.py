"""`python -m sds_clip` is `sds-clip`."""

import sys
from pathlib import Path

# `python -m` puts the current folder first on sys.path, where packages named `app`, `models`, `worker` or `demo`
# would hide ours. With -P it does not; and started in the folder that holds our own packages, we need it.
if not sys.flags.safe_path and Path(sys.path[0]) != Path(__file__).parents[1]:
    del sys.path[0]

from sds_clip.cli import main

sys.exit(main())
