"""Start the point service: `python -m point_svc`."""

from common import runner
from common.settings import Settings, load
from point_svc import dead_letter, step


def service(_: Settings) -> runner.Service:
    """The point service."""
    return runner.Service("point", handle=step.handle, dead_letter=dead_letter.handle)


if __name__ == "__main__":
    settings = load(Settings)
    runner.main(service(settings), settings)
