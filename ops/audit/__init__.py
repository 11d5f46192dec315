"""The audit: `ops.audit.look.audit` for programs, `saga audit` and `python -m ops.audit` for people."""
