"""The point service: wallets and their ledger.

Owns      wallet, ledger_entry
Does      on `reservation.confirmed`: takes the price from the user's wallet
Emits     `point.deducted`; or `point.failed` (no_wallet, balance_too_low, deadline_passed)
Undoes    on `*.failed`: gives the points back with a new ledger entry; emits `point.restored`
Commands  `point.top_up` -> `point.topped_up` or `point.rejected` (wallet_full)
"""
