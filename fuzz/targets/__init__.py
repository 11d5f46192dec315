"""What reads strangers' bytes, each with the property that must hold for any input, or AssertionError.

Any other exception is a finding, too: nothing that a stranger sends may raise what nobody expects.
"""

from collections.abc import Callable, Mapping

from fuzz.targets import bodies, deliveries, frames, letters, records, wire

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "frames": frames.run,
    "wire": wire.run,
    "bodies": bodies.run,
    "deliveries": deliveries.run,
    "letters": letters.run,
    "records": records.run,
}
