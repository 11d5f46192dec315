"""The notify service: tells the user how it ended.

Owns      notice
Does      on `queue.expired`: a notice "completed"; on `*.failed`: a notice "failed"
Emits     `notification.sent`, when the notice has gone out
Undoes    nothing: a notice cannot be unsent; one that cannot be delivered is retried, then parked
"""
