"""The hands that make faults: each does its harm, holds it for so many seconds, and lifts it, whatever happens.

A hand gives what it chose, in a few words. What it began it ends itself: nothing of a fault outlives it but what
the system must repair by itself.
"""
