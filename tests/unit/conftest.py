"""How the unit tests search: the same examples in every run, so that a failure is never luck.

`HYPOTHESIS_PROFILE=explore` looks for new ones, ten times as long.
"""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline for one example: a busy machine is no finding.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
