"""The promise, proved against the production code: every interleaving searched, sabotage that must be found."""
