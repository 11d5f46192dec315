"""`python -m ops`: the `saga` command."""

from ops.app import run

if __name__ == "__main__":
    run()
