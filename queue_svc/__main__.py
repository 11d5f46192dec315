"""Start the queue service: `python -m queue_svc`."""

from common import runner
from common.settings import Settings, load
from queue_svc import dead_letter, step


def service(_: Settings) -> runner.Service:
    """The queue service."""
    return runner.Service("queue", handle=step.handle, dead_letter=dead_letter.handle)


if __name__ == "__main__":
    settings = load(Settings)
    runner.main(service(settings), settings)
