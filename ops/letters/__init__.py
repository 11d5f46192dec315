"""The letters that nobody could deliver: what lies in `<service>.dead` and `<service>.parked`.

They are shown, replayed and discarded; what tells of a person is masked, unless it is put on record who looks:

    letter.py       one message of such a queue, read as far as it can be
    queues.py       looking through a queue without consuming it
    standing.py     what is known of a letter's saga: asked of the databases, else of the history
    rules.py        what would happen to a letter that is replayed, and which may be discarded: pure
    users.py        whether its service would believe it
    acting.py       replaying, discarding and revealing, put on record before they are done
    record.py       what the history is told of an act
    telling.py      how letters are shown
    looking.py      list and show
    orders.py       replay and discard, as an operator orders it
    commands.py     `saga dead` and `saga parked`
"""
