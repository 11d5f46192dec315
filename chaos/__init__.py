"""Real faults on the real thing, under load all the time: `make chaos`.

A system in containers (`containers`), payments that never stop (`load`), a table of faults (`faults`) with the
hands that make and lift them (`hands`), and a verdict after each of them and over all (`turn`, `verdict`): every
command that was published with a confirm is settled, wholly done or wholly undone, and the system came back by
itself, within the time that the table allows.
"""
