"""Start the notify service: `python -m notify_svc`."""

from functools import partial
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from common import runner
from common.settings import Settings, load
from notify_svc import dead_letter, retention, sender, step
from notify_svc.handover import Handover


def _split(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


class NotifySettings(Settings):
    """What the notify service can be told, beside what every service can."""

    notify_urls: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), repr=False, description="Where notices go: Apprise URLs, separated by blanks. Default: the log."
    )


def service(settings: NotifySettings) -> runner.Service:
    """The notify service under these settings; leaves with one line if a URL makes no sense."""
    try:
        channel = sender.to_urls(settings.notify_urls) if settings.notify_urls else sender.to_log
    except ValueError as error:
        raise SystemExit(f"wrong setting: {error}") from None
    handover = Handover()
    return runner.Service(
        "notify",
        handle=partial(step.handle, handover=handover),
        dead_letter=dead_letter.handle,
        background=(partial(sender.run, channel=channel, handover=handover),),
        also_forget=retention.forget,
    )


if __name__ == "__main__":
    settings = load(NotifySettings)
    runner.main(service(settings), settings)
