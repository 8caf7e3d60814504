"""The changes of namespaces, read once for all who watch them in this process, and how it is learnt that there are more.

A watch has a version up to which it has told everything, and asks its namespace's *feed* for what follows. The feed keeps the
newest changes within a bound; a watch that is further behind reads the store by itself, from its own place. So nothing is sent that
the client does not take, a slow watch costs no memory, and each version is told once, in order, whatever is lost or late here:
a change of this process wakes the feed at once, one of another process by a bell, at the latest by one poll for all feeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from talon.domain.errors import Gone, Invalid, TalonError, Throttled, Unavailable
from talon.gateway.deps import GatewaySettings
from talon.gateway.hub import StreamHub
from talon.gateway.sleeper import Sleeper
from talon.store.resources import Identity, ResourceEvent, ResourceRow
from talon.store.sight import Sight, current, seeing

log = logging.getLogger("talon.gateway")
#: Changes read at a time, at most, and about how many bytes of bodies.
PAGE_MAX = 200
PAGE_BYTES = 1024 * 1024


class Changes(Protocol):
    """The part of the store that watches read."""

    async def read_events(self, namespace: str, after: int, limit: int, kind: str = "") -> tuple[list[ResourceEvent], int]:
        """-> (changes after a version, the version up to which these are all)."""
        ...

    async def versions(self, namespaces: Sequence[str]) -> Mapping[str, int]:
        """namespace -> its newest version."""
        ...

    async def get_resources(self, identities: Sequence[Identity]) -> list[ResourceRow]:
        """Those that exist."""
        ...


class Pace:
    """How many changes to read at a time: few at first, then as many as come to about `PAGE_BYTES`."""

    __slots__ = ("limit",)

    def __init__(self) -> None:
        self.limit = 8

    def took(self, events: Sequence[ResourceEvent]) -> bool:
        """Learn from a page; -> whether it was full, so that there may be more."""
        full = len(events) >= self.limit
        if events:
            each = sum(len(one.row.body) for one in events) // len(events) + 1
            self.limit = max(1, min(PAGE_MAX, self.limit * 8, PAGE_BYTES // each))
        return full


class Told:
    """One change with the JSON of its object, written once for all watches."""

    __slots__ = ("_json", "event")

    def __init__(self, event: ResourceEvent) -> None:
        self.event = event
        self._json: bytes | None = None

    def json(self, write: Callable[[ResourceRow], bytes]) -> bytes:
        """The object as JSON."""
        if self._json is None:
            self._json = write(self.event.row)
        return self._json


class Feed:
    """The newest changes of one namespace, as `sight` sees them: all with `floor` < version <= `upto`, of at most `bytes_max` bytes
    of bodies."""

    def __init__(self, namespace: str, sight: Sight | None, upto: int, bytes_max: int) -> None:
        self.namespace, self.sight = namespace, sight
        self.floor = self.upto = upto
        self.watches: set[Watch] = set()
        self.stale = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._recent: deque[Told] = deque()
        self._size = 0
        self._most = bytes_max

    def after(self, place: int) -> list[Told] | None:
        """The changes after `place` up to `upto`; None where they are not known here."""
        if not self.floor <= place <= self.upto:
            return None
        found: list[Told] = []
        for one in reversed(self._recent):
            if one.event.row.version <= place:
                break
            found.append(one)
        found.reverse()
        return found

    def add(self, events: Iterable[ResourceEvent], upto: int) -> None:
        """Take over what follows `self.upto`, up to `upto`, and forget the oldest beyond the bound."""
        for event in events:
            self._recent.append(Told(event))
            self._size += len(event.row.body)
        while self._size > self._most and self._recent:
            oldest = self._recent.popleft().event.row
            self._size -= len(oldest.body)
            self.floor = oldest.version
        if upto > self.upto:
            self.upto = upto
            self.wake()

    def restart(self, upto: int) -> None:
        """Forget everything and go on at `upto`: watches that are behind read the store."""
        self._recent.clear()
        self._size = 0
        self.floor = self.upto = upto
        self.wake()

    def wake(self) -> None:
        for watch in self.watches:
            watch.wake()


class Watch(Sleeper):
    """One watch's side of its feed; used by one task. `beat`: a bookmark is due. `over`: end when all is told."""

    __slots__ = ("beat", "feed", "over")

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.feed = feed
        self.beat = False
        self.over = False

    def end(self) -> None:
        """Ask the task to stop."""
        self.over = True
        self.wake()

    async def wait(self, place: int) -> None:
        """Return when there may be more than `place`, or something else to do; at once if there is already."""
        if self.over or self.beat or self.feed.upto > place:
            return
        await self.sleep()


class Watches:
    """All watches of this process. Belongs to one event loop.

    `hub` counts them among its streams. `shared`: other processes write too, so the watched namespaces are polled.
    """

    def __init__(self, store: Changes, hub: StreamHub, settings: GatewaySettings) -> None:
        self._store, self._hub, self._settings = store, hub, settings
        self._feeds: dict[str, dict[Sight | None, Feed]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, namespace: str) -> Watch:
        """A watch of `namespace`, as whoever asks in this context sees it; those who see the same share a feed.

        Raises `Unavailable` when closing, `Throttled` when too many streams are open."""
        if self._hub.closing:
            raise Unavailable("shutting_down", "the gateway is shutting down; connect again", retry_after_s=1.0)
        most = self._settings.streams_max
        if self._hub.count + self._hub.watches >= most:
            raise Throttled("too_many_streams", f"{most} streams are open, the most of this gateway; try later", retry_after_s=5.0)
        self._hub.watches += 1
        try:
            sight = current()
            feed = self._feeds.get(namespace, {}).get(sight)
            if feed is None:
                newest = (await self._store.versions([namespace])).get(namespace, 0)
                if self._hub.closing:
                    raise Unavailable("shutting_down", "the gateway is shutting down; connect again", retry_after_s=1.0)
                fresh = Feed(namespace, sight, newest, self._settings.stream_buffer_max)
                feed = self._feeds.setdefault(namespace, {}).setdefault(sight, fresh)
            watch = Watch(feed)
            feed.watches.add(watch)
            if feed.task is None:
                feed.stale.set()  # what was written since the version was asked
                feed.task = asyncio.create_task(self._follow(feed), name="watch feed")  # with the sight of this context
            self._start()
        except BaseException:
            self._hub.watches -= 1
            raise
        return watch

    def drop(self, watch: Watch) -> None:
        """Forget a watch. Idempotent."""
        feed = watch.feed
        if watch not in feed.watches:
            return
        feed.watches.remove(watch)
        self._hub.watches -= 1
        if not feed.watches:
            feeds = self._feeds.get(feed.namespace, {})
            feeds.pop(feed.sight, None)
            if not feeds:
                self._feeds.pop(feed.namespace, None)
            if feed.task is not None:
                feed.task.cancel()

    def changed(self, namespaces: Iterable[str]) -> None:
        """Something was written to these namespaces."""
        for namespace in namespaces:
            for feed in self._feeds.get(namespace, {}).values():
                feed.stale.set()

    def changed_anywhere(self) -> None:
        """Bells were out of order for a while: look everywhere."""
        self.changed(list(self._feeds))

    async def close(self) -> None:
        """End every watch; they go on elsewhere from their last version."""
        tasks = [*self._tasks, *(feed.task for feed in self._all() if feed.task is not None)]
        for feed in self._all():
            for watch in feed.watches:
                watch.end()
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _all(self) -> list[Feed]:
        return [feed for feeds in self._feeds.values() for feed in feeds.values()]

    def _start(self) -> None:
        if not self._tasks:
            with seeing(None):  # they are not the first watch's
                self._tasks.append(asyncio.create_task(self._beat(), name="watch heartbeat"))
                if self._hub.shared:
                    self._tasks.append(asyncio.create_task(self._poll(), name="watch poll"))

    async def _follow(self, feed: Feed) -> None:
        """Read a namespace's changes whenever there are more."""
        while True:
            await feed.stale.wait()
            feed.stale.clear()
            try:
                await self._catch_up(feed)
            except TalonError as exc:
                log.warning("watch of namespace %r: %s; trying again", feed.namespace, exc)
                await asyncio.sleep(self._settings.poll_s)
                feed.stale.set()

    async def _catch_up(self, feed: Feed) -> None:
        pace = Pace()
        while True:
            try:
                events, upto = await self._store.read_events(feed.namespace, feed.upto, pace.limit)
            except (Gone, Invalid):  # so far behind that it is no longer kept, or the database was put back
                feed.restart((await self._store.versions([feed.namespace])).get(feed.namespace, 0))
                return
            feed.add(events, upto)
            if not pace.took(events):
                return

    async def _beat(self) -> None:
        """One timer for all bookmarks. A watch of a namespace that is no longer there ends."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            gone = await self._gone()
            for feed in self._all():
                for watch in feed.watches:
                    watch.beat = True
                    watch.over = watch.over or feed.namespace in gone
                    watch.wake()

    async def _gone(self) -> set[str]:
        """The watched namespaces that do not exist any more."""
        wanted = [("", "Namespace", name) for name in self._feeds if name]
        try:
            rows = await self._store.get_resources(wanted) if wanted else []
        except TalonError as exc:
            log.warning("watches: %s; asking again", exc)
            return set()
        return {name for _, _, name in wanted} - {row.name for row in rows}

    async def _poll(self) -> None:
        """One question for all watched namespaces."""
        while True:
            await asyncio.sleep(self._settings.poll_s)
            if not self._feeds:
                continue
            try:
                newest = await self._store.versions(list(self._feeds))
            except TalonError as exc:
                log.warning("watch poll failed, trying again: %s", exc)
                continue
            for feed in self._all():
                if newest.get(feed.namespace, 0) > feed.upto:
                    feed.stale.set()
