"""Whether what the services are made of has a known fault: asked of the package index, release by release.

pins.py       what is pinned
asking.py     asks the index, and keeps its answers for a day
ignored.py    faults that do not touch us: with the reason, and until when that was decided
ignored.toml  which these are
"""
