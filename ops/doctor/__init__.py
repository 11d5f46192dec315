"""`saga doctor`: what is there, held against what the saga table says should be there.

`facts` are gathered once, by `looking` and `databases`; `checks` are pure functions over them. Nothing is changed.
"""
