"""The version matrix: the same tests on the broker, database and Python of several years; `make matrix`.

What ran, on which exact versions, and what came of it is kept in results/, and told in docs/versions.md.
"""
