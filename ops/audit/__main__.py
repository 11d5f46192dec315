"""`python -m ops.audit`: the same as `saga audit`."""

import sys

from ops.app import run

if __name__ == "__main__":
    run(["audit", *sys.argv[1:]])
