"""A list of all that is in the services' image (SBOM), as CycloneDX has it: read inside, written outside.

inside.py     asks the image itself: packages of Python and of Debian
writing.py    writes the document, in an environment of its own that has the library for it
"""
