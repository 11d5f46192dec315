"""The payment service: where a saga begins, and where it is complete.

Owns      payment
Does      on `payment.pay`: records the payment, provisionally (PAID)
Emits     `payment.paid`; or `payment.failed` (over_limit, deadline_passed)
Completes on `queue.expired`: PAID -> COMPLETED; emits `payment.completed`
Undoes    on `*.failed`: PAID -> CANCELLED; emits `payment.cancelled`
Answers   `payment.rejected` (idempotency_conflict) to a second command under a known id
"""
