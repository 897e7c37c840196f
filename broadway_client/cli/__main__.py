"""`python3 -m broadway_client.cli`, for a checkout that is not installed."""

import sys

from broadway_client.cli.main import main

sys.exit(main())
