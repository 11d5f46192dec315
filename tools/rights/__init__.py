"""Users of the broker, what they may do, and their passwords: put into definitions, or into a running broker.

What they may do is `common.rights`, derived from the saga table. Passwords are made here and stand nowhere but in
one file a user, and hashed in the broker. `python -m tools.rights --help` tells how it is used.
"""
