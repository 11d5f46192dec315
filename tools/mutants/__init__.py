"""The mutation run: the code that decides is changed in one small way at a time, and a test must notice.

`workspace` makes a copy to work in, `session` lets mutmut change and test it, `reading` reads what became of each
mutant, and `verdict` holds the survivors against `explained.toml`: a survivor that is not explained there is a
missing test, and an explanation that no survivor needs is out of date.
"""
