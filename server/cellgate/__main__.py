"""`python -m cellgate` is the command `cellgate`."""

import sys

from cellgate.cli import main

sys.exit(main())
