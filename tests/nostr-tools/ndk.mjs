// Uses a relay by NDK, as an application would: it publishes, fetches, listens and identifies itself. The relay takes
// every kind.
//
// usage: node ndk.mjs ws://127.0.0.1:7777

import assert from 'node:assert/strict'
import WebSocket from 'ws'

// Node.js before 22 has none of its own.
globalThis.WebSocket ??= WebSocket
const { default: NDK, NDKEvent, NDKPrivateKeySigner, NDKRelayAuthPolicies } = await import('@nostr-dev-kit/ndk')

const DEADLINE_MS = 60_000

const url = process.argv[2]
if (!url) {
  console.error('usage: node ndk.mjs RELAY')
  process.exit(2)
}
const alarm = setTimeout(() => {
  console.error(`not done within ${DEADLINE_MS} ms`)
  process.exit(1)
}, DEADLINE_MS)

const connected = async () => {
  const signer = NDKPrivateKeySigner.generate()
  const ndk = new NDK({ explicitRelayUrls: [url], signer, enableOutboxModel: false })
  ndk.relayAuthDefaultPolicy = NDKRelayAuthPolicies.signIn({ ndk })
  await ndk.connect(5_000)
  return ndk
}
const note = (ndk, content, tags = [], kind = 1) => new NDKEvent(ndk, { kind, content, tags })

const alice = await connected()
const bob = await connected()
const [aliceKey, bobKey] = await Promise.all(
  [alice, bob].map(async (ndk) => (await ndk.signer.user()).pubkey),
)

// What one publishes, the other fetches.
const first = note(alice, 'first')
assert.equal((await first.publish()).size, 1)
const fetched = await bob.fetchEvent(first.id)
assert.equal(fetched.content, 'first')

// And hears when it comes.
const heard = new Promise((resolve) => {
  const subscription = bob.subscribe({ kinds: [1], authors: [aliceKey], '#t': ['live'] }, { closeOnEose: false })
  subscription.on('event', resolve)
  subscription.on('eose', () => note(alice, 'second', [['t', 'live']]).publish())
})
assert.equal((await heard).content, 'second')

// A profile is replaced.
for (const name of ['Alice', 'Alicia']) {
  const profile = note(alice, JSON.stringify({ name }), [], 0)
  profile.created_at = Math.floor(Date.now() / 1000) - (name === 'Alice' ? 10 : 0)
  await profile.publish()
}
const profile = await bob.getUser({ pubkey: aliceKey }).fetchProfile()
assert.equal(profile.name, 'Alicia')

// What is its author's alone, or for one receiver, wants them identified (NIP-42, NIP-70): NDK signs in when asked.
const own = note(alice, 'mine', [['-']])
assert.equal((await own.publish()).size, 1)
const gift = note(alice, 'sealed', [['p', bobKey]], 1059)
await gift.publish()
const gifts = await bob.fetchEvents({ kinds: [1059], '#p': [bobKey] })
assert.deepEqual([...gifts].map((event) => event.id), [gift.id])

// A deletion holds.
await first.delete()
assert.equal((await bob.fetchEvents({ ids: [first.id] }, { cacheUsage: 'ONLY_RELAY' })).size, 0)

clearTimeout(alarm)
process.exit(0)
