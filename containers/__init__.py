"""A whole saga system in containers of its own, and the hands that break it: for tests, and for `make chaos`."""
