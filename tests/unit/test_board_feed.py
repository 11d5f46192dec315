"""The feed: who follows gets the newest of each section, and nothing is kept for who does not."""

from __future__ import annotations

from contextlib import aclosing

from ops.board.feed import Feed


async def test_a_late_follower_is_told_everything_that_stands() -> None:
    """A page that is opened, or comes back, needs no history of what it missed."""
    feed = Feed()
    feed.tell("figures", {"failed": 1})
    feed.tell("chart", [1, 2])
    async with aclosing(feed.follow()) as news:
        told = await anext(news)
    assert told == b'event: figures\ndata: {"failed":1}\n\nevent: chart\ndata: [1,2]\n\n'


async def test_who_reads_slowly_skips_what_was_overtaken() -> None:
    """A flood must cost a page, and the board's memory, no more than a trickle."""
    feed = Feed()
    async with aclosing(feed.follow(heartbeat=0.01)) as news:
        assert await anext(news) == b"event: beat\ndata: 0\n\n"
        for number in range(10_000):
            feed.tell("figures", number)
        assert await anext(news) == b"event: figures\ndata: 9999\n\n"
        assert await anext(news) == b"event: beat\ndata: 0\n\n"


async def test_what_has_not_changed_is_not_told_again() -> None:
    """A page that nothing happens on stays quiet, for its reader, too."""
    feed = Feed()
    assert feed.tell("letters", {"parked": 0})
    assert not feed.tell("letters", {"parked": 0})
    assert feed.tell("letters", {"parked": 1})


async def test_an_id_of_half_a_character_is_told_all_the_same() -> None:
    """A stranger's text must not end the feed for everybody."""
    feed = Feed()
    feed.tell("groups", "\ud800\n\nevent: status\ndata: 0")
    async with aclosing(feed.follow()) as news:
        told = await anext(news)
    assert told.count(b"\n\n") == 1
    assert b"\\ud800" in told


async def test_followers_are_sent_away_when_the_feed_is_closed() -> None:
    """Ctrl-C must not wait for pages that somebody forgot to close."""
    feed = Feed()
    async with aclosing(feed.follow()) as news:
        feed.tell("figures", 1)
        await anext(news)
        feed.close()
        assert [told async for told in news] == []
