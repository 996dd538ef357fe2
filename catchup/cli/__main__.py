"""`python -m catchup.cli`: the command `catchup`, for torchrun and wherever scripts are not on the
path.
"""

import sys

from .commands import main

sys.exit(main())
