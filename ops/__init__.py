"""What operators look with and act with, the `saga` command; imported by no service."""

VERSION = "0.1.0"
