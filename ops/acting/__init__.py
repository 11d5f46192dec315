"""Acting: commands published and waited for, an outcome asked for again, a saga aborted."""
