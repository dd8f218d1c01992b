"""`python -m agent.cli` runs the command line without the installed script."""

import sys

from agent.cli import main

sys.exit(main())
