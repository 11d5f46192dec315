"""The queue service: tokens of the waiting room. Its step is the pivot: after it, the saga only goes forward.

Owns      token
Does      on `point.deducted`: uses up the user's token (ACTIVE -> EXPIRED)
Emits     `queue.expired`; or `queue.failed` (unknown_token, not_your_token, token_not_active, deadline_passed)
Undoes    nothing; remembers on `*.failed` never to do it
Commands  `queue.enter` -> `queue.entered`
"""
