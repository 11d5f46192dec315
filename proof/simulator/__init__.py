"""The whole system in one thread: production code, a virtual clock, and faults at every boundary."""
