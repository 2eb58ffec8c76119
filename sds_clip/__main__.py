"""`python -m sds_clip` is `sds-clip`."""

import sys
from pathlib import Path

# `python -m` puts the current folder first on sys.path, where packages named `app`, `models`, `worker` or `demo`
# would hide ours. With -P, Python does not add the folder. If the current folder is the one that holds our own
# packages, it must stay.
if not sys.flags.safe_path and Path(sys.path[0]) != Path(__file__).parents[1]:
    del sys.path[0]

from sds_clip.cli import main

sys.exit(main())
