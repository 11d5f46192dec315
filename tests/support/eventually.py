"""Waiting in tests: the only place where time is waited for, so no test sleeps for luck."""

from containers.patience import TooLateError, eventually

__all__ = ["TooLateError", "eventually"]
