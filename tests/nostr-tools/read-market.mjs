// Reads a market from a relay with nostr-tools alone: verifies every event,
// prints one JSON line for each, and a summary at the end.
//
// usage: node read-market.mjs ws://127.0.0.1:7777

import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'
import { verifyEvent } from 'nostr-tools/pure'
import WebSocket from 'ws'

const STORED_KINDS = [0, 31990, 38500, 8600, 8601, 8602, 8603, 8604, 8605, 8606, 8607]
const DEADLINE_MS = 20_000

const url = process.argv[2]
if (!url) {
  console.error('usage: node read-market.mjs RELAY')
  process.exit(2)
}

// Node.js before 22 has none of its own.
useWebSocketImplementation(WebSocket)

const alarm = setTimeout(() => {
  console.error(`no answer from ${url} within ${DEADLINE_MS} ms`)
  process.exit(1)
}, DEADLINE_MS)

const tagOf = (event, name) => event.tags.find((tag) => tag[0] === name)?.[1]

const relay = await Relay.connect(url)
const events = await new Promise((resolve) => {
  const found = []
  relay.subscribe([{ kinds: STORED_KINDS }], {
    onevent: (event) => found.push(event),
    oneose: () => resolve(found),
  })
})

let invalid = 0
for (const event of events.sort((a, b) => a.created_at - b.created_at)) {
  // A fresh copy: nostr-tools remembers on the object that it was verified.
  const verified = verifyEvent(JSON.parse(JSON.stringify(event)))
  if (!verified) invalid += 1
  const { id, kind, pubkey, created_at } = event
  console.log(JSON.stringify({ id, kind, pubkey, created_at, verified, alt: tagOf(event, 'alt') ?? null }))
}
console.log(JSON.stringify({ events: events.length, invalid }))

clearTimeout(alarm)
relay.close()
process.exit(invalid === 0 ? 0 : 1)
