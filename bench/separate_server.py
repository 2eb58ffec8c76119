"""The service, with batches that hold one version each: what `bench.versions` compares with. Options as `sds-clip`."""

import sys
from unittest.mock import patch

from sds_clip.cli import main

if __name__ == "__main__":
    with patch("sds_clip.app.serving.engine.family_of", lambda clip: clip):
        sys.exit(main())
