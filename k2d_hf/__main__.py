"""`python -m k2d_hf` is `k2d`."""

import sys

from k2d_hf.cli import main

sys.exit(main())
