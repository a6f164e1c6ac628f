"""Uses a relay by aionostr, a client in Python: it publishes, asks, listens and identifies itself. The relay takes
every kind.

usage: relay.py ws://127.0.0.1:7777
"""

import asyncio
import sys
import time

import aionostr
from aionostr.event import Event
from aionostr.key import PrivateKey

DEADLINE_S = 60


def signed(key, kind, content, tags=()):
    event = Event(
        pubkey=key.public_key.hex(),
        kind=kind,
        content=content,
        tags=[list(tag) for tag in tags],
        created_at=int(time.time()),
    )
    event.sign(key.hex())
    return event


async def answered(manager, filter):
    events = [event async for event in manager.get_events(filter)]
    assert all(event.verify() for event in events)
    return [event.id for event in events]


async def published(manager, event):
    """Publishes until it is answered: aionostr takes the first OK that comes for its own."""
    await manager.add_event(event)
    while await answered(manager, {"ids": [event.id]}) != [event.id]:
        await asyncio.sleep(0.05)


async def use(url):
    alice, bob = PrivateKey(), PrivateKey()
    async with aionostr.Manager([url], private_key=alice.hex()) as manager:
        note = signed(alice, 1, 'say "hello" \U0001f33c\n', [["t", "tests"]])
        await published(manager, note)
        assert await answered(manager, {"authors": [alice.public_key.hex()], "#t": ["tests"]}) == [note.id]

        # It hears what comes while it listens.
        queue = await manager.subscribe("live", {"kinds": [20001], "authors": [bob.public_key.hex()]})
        assert await queue.get() is None
        passing = signed(bob, 20001, "now")
        await manager.add_event(passing)
        assert (await queue.get()).id == passing.id
        assert await answered(manager, {"ids": [passing.id]}) == []

        # It has identified itself as Alice (NIP-42): gifts for her are hers to read, and she may protect an event.
        gift = signed(bob, 1059, "sealed", [["p", alice.public_key.hex()]])
        await published(manager, gift)
        own = signed(alice, 1, "mine", [["-"]])
        await published(manager, own)

        await manager.add_event(signed(alice, 5, "", [["e", note.id]]))
        while await answered(manager, {"ids": [note.id]}):
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    asyncio.run(asyncio.wait_for(use(sys.argv[1]), DEADLINE_S))
