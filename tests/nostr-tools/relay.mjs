// Uses a relay by nostr-tools alone, as any client may, and its operator's say (NIP-86). The relay takes every kind.
//
// usage: node relay.mjs ws://127.0.0.1:7777 SECRET-KEY-OF-AN-ADMIN

import assert from 'node:assert/strict'
import { nip77 } from 'nostr-tools'
import { fetchRelayInformation } from 'nostr-tools/nip11'
import { minePow } from 'nostr-tools/nip13'
import { getToken } from 'nostr-tools/nip98'
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'
import { hexToBytes } from 'nostr-tools/utils'
import WebSocket from 'ws'

const { NegentropyStorageVector, NegentropySync } = nip77
const DEADLINE_MS = 60_000

const [url, adminHex] = process.argv.slice(2)
if (!adminHex) {
  console.error('usage: node relay.mjs RELAY SECRET-KEY')
  process.exit(2)
}
// Node.js before 22 has none of its own.
useWebSocketImplementation(WebSocket)
const alarm = setTimeout(() => {
  console.error(`not done within ${DEADLINE_MS} ms`)
  process.exit(1)
}, DEADLINE_MS)

const now = () => Math.floor(Date.now() / 1000)
const signed = (key, kind, content, tags = [], created_at = now()) =>
  finalizeEvent({ kind, content, tags, created_at }, key)

/** The stored events, in the order in which they come. */
const stored = (relay, ...filters) =>
  new Promise((resolve, reject) => {
    const found = []
    const subscription = relay.subscribe(filters, {
      onevent: (event) => found.push(event),
      oneose: () => {
        resolve(found)
        subscription.close()
      },
      onclose: (reason) => reason && reject(new Error(reason)),
    })
  })

const ids = (events) => events.map((event) => event.id)

const relay = await Relay.connect(url)
const parts = {
  async 'NIP-01: what is published is found by each filter, newest first'() {
    const [alice, bob] = [generateSecretKey(), generateSecretKey()]
    const topic = `t${now()}${Math.random()}`
    const notes = [3, 2, 1].map((age) =>
      signed(alice, 1, `“quotes” \n\t\\ \u{1F33C} ${age}`, [['t', topic]], now() - age),
    )
    const reply = signed(bob, 1, 'reply', [['e', notes[0].id], ['p', getPublicKey(alice)]])
    for (const event of [...notes, reply]) await relay.publish(event)
    const newestFirst = ids([...notes].reverse())
    const expect = async (filter, expected) =>
      assert.deepEqual(ids(await stored(relay, filter)), expected, JSON.stringify(filter))
    await expect({ ids: [notes[1].id] }, [notes[1].id])
    await expect({ authors: [getPublicKey(alice)] }, newestFirst)
    await expect({ authors: [getPublicKey(alice)], limit: 2 }, newestFirst.slice(0, 2))
    await expect({ kinds: [1], '#t': [topic] }, newestFirst)
    await expect({ '#t': [topic], since: notes[2].created_at }, [notes[2].id])
    await expect({ '#t': [topic], until: notes[0].created_at }, [notes[0].id])
    await expect({ '#e': [notes[0].id], '#p': [getPublicKey(alice)] }, [reply.id])
    await expect({ '#t': [topic], kinds: [2] }, [])
    const both = await stored(relay, { ids: [reply.id] }, { '#t': [topic] })
    assert.equal(new Set(ids(both)).size, 4)
    const again = await stored(relay, { ids: [notes[0].id] })
    // Without what nostr-tools remembers on its objects.
    const plain = (event) => JSON.parse(JSON.stringify(event))
    assert.deepEqual(plain(again[0]), plain(notes[0]))
  },

  async 'NIP-01: newer versions replace older ones, and never the other way'() {
    const key = generateSecretKey()
    const author = getPublicKey(key)
    for (const [kind, tags] of [[0, []], [10002, []], [30023, [['d', 'article']]]]) {
      const [old, young] = [2, 1].map((age) => signed(key, kind, String(age), tags, now() - age))
      await relay.publish(old)
      await relay.publish(young)
      assert.deepEqual(ids(await stored(relay, { kinds: [kind], authors: [author] })), [young.id])
      await relay.publish(old).catch((refused) => assert.match(String(refused), /\w+: /))
      assert.deepEqual(ids(await stored(relay, { kinds: [kind], authors: [author] })), [young.id])
    }
  },

  async 'NIP-01: wrong ids and signatures are refused'() {
    const right = signed(generateSecretKey(), 1, 'right')
    const other = signed(generateSecretKey(), 1, 'other')
    for (const wrong of [{ ...right, content: 'wrong' }, { ...right, sig: other.sig }]) {
      await assert.rejects(relay.publish(wrong), /invalid: /)
    }
    assert.deepEqual(await stored(relay, { ids: [right.id] }), [])
  },

  async 'NIP-01: ephemeral events reach who listens and are not kept'() {
    const key = generateSecretKey()
    const event = signed(key, 20001, 'now')
    const heard = new Promise((resolve) => {
      relay.subscribe([{ kinds: [20001], authors: [getPublicKey(key)] }], {
        onevent: resolve,
        oneose: () => relay.publish(event),
      })
    })
    assert.equal((await heard).id, event.id)
    assert.deepEqual(await stored(relay, { ids: [event.id] }), [])
  },

  async 'NIP-09: an author deletes its own, and nobody else does'() {
    const [alice, mallory] = [generateSecretKey(), generateSecretKey()]
    const note = signed(alice, 1, 'gone')
    await relay.publish(note)
    await relay.publish(signed(mallory, 5, '', [['e', note.id]])).catch(() => {})
    assert.equal((await stored(relay, { ids: [note.id] })).length, 1)
    await relay.publish(signed(alice, 5, '', [['e', note.id], ['k', '1']]))
    assert.equal((await stored(relay, { ids: [note.id] })).length, 0)
    await assert.rejects(relay.publish(note), /\w+: /)
  },

  async 'NIP-13: an event that shows work is taken'() {
    const key = generateSecretKey()
    const template = { kind: 1, content: 'work', tags: [], created_at: now(), pubkey: getPublicKey(key) }
    const { id: _, ...mined } = minePow(template, 10)
    await relay.publish(finalizeEvent(mined, key))
  },

  async 'NIP-40: what has expired is refused'() {
    const past = signed(generateSecretKey(), 1, 'late', [['expiration', String(now() - 10)]])
    await assert.rejects(relay.publish(past), /\w+: /)
  },

  async 'NIP-42 and NIP-70: an event that is its author’s alone wants its author'() {
    const key = generateSecretKey()
    const own = signed(key, 1, 'mine', [['-']])
    const connection = await Relay.connect(url)
    await assert.rejects(connection.publish(own), /auth-required: /)
    await connection.auth(async (template) => finalizeEvent(template, key))
    await connection.publish(own)
    const other = signed(generateSecretKey(), 1, 'theirs', [['-']])
    await assert.rejects(connection.publish(other), /restricted: |auth-required: /)
    connection.close()
  },

  async 'NIP-42 and NIP-59: a gift is for who it is wrapped for'() {
    const receiver = generateSecretKey()
    const gift = signed(generateSecretKey(), 1059, 'sealed', [['p', getPublicKey(receiver)]])
    await relay.publish(gift)
    const filter = { kinds: [1059], '#p': [getPublicKey(receiver)] }
    const connection = await Relay.connect(url)
    // The refusal comes behind the challenge, so that there is one to answer.
    await assert.rejects(stored(connection, filter), /auth-required: /)
    await connection.auth(async (template) => finalizeEvent(template, receiver))
    assert.deepEqual(ids(await stored(connection, filter)), [gift.id])
    connection.close()
  },

  async 'NIP-45: events are counted'() {
    const key = generateSecretKey()
    for (const text of ['one', 'two', 'three']) await relay.publish(signed(key, 1, text))
    assert.equal(await relay.count([{ authors: [getPublicKey(key)], kinds: [1] }], {}), 3)
  },

  async 'NIP-50: a search is refused, not left unanswered'() {
    await assert.rejects(stored(relay, { search: 'word' }), /\w+: /)
  },

  async 'NIP-77: both sides learn what they lack'() {
    const key = generateSecretKey()
    const notes = Array.from({ length: 150 }, (_, i) => signed(key, 1, String(i), [], now() - i))
    const [theirs, ours] = [notes.slice(0, 100), notes.slice(50)]
    for (const event of theirs) await relay.publish(event)
    const storage = new NegentropyStorageVector()
    for (const { created_at, id } of ours) storage.insert(created_at, id)
    storage.seal()
    const [have, need] = [[], []]
    await new Promise((resolve, reject) => {
      const sync = new NegentropySync(relay, storage, { authors: [getPublicKey(key)] }, {
        onhave: (id) => have.push(id),
        onneed: (id) => need.push(id),
        onclose: (reason) => (reason ? reject(new Error(reason)) : resolve()),
      })
      sync.start()
    })
    assert.deepEqual(new Set(have), new Set(ids(notes.slice(100))))
    assert.deepEqual(new Set(need), new Set(ids(notes.slice(0, 50))))
  },

  async 'NIP-86 and NIP-98: the operator bans and pardons'() {
    const admin = hexToBytes(adminHex)
    const site = url.replace(/^ws/, 'http')
    const ask = async (method, ...params) => {
      const asked = { method, params }
      const token = await getToken(site, 'post', (template) => finalizeEvent(template, admin), true, asked)
      const headers = { Authorization: token, 'Content-Type': 'application/nostr+json+rpc' }
      const answer = await fetch(site, { method: 'POST', headers, body: JSON.stringify(asked) })
      assert.equal(answer.status, 200)
      return (await answer.json()).result
    }
    const cheat = generateSecretKey()
    const note = signed(cheat, 1, 'buy this')
    await relay.publish(note)
    assert.ok((await ask('supportedmethods')).includes('banpubkey'))
    assert.equal(await ask('banpubkey', getPublicKey(cheat), 'spam'), true)
    await assert.rejects(relay.publish(signed(cheat, 1, 'and this')), /blocked: /)
    assert.equal(await ask('banevent', note.id), true)
    assert.deepEqual(await stored(relay, { ids: [note.id] }), [])
    assert.equal(await ask('unbanpubkey', getPublicKey(cheat)), true)
    await relay.publish(signed(cheat, 1, 'sorry'))
    assert.deepEqual(await ask('listbannedpubkeys'), [])
  },

  async 'NIP-11: the document says which of these hold'() {
    const { supported_nips, limitation } = await fetchRelayInformation(url)
    for (const nip of [1, 9, 11, 13, 40, 42, 45, 70, 77, 86]) {
      assert.ok(supported_nips.includes(nip), `NIP ${nip}`)
    }
    assert.equal(limitation.auth_required, false)
  },
}

let failed = 0
for (const [name, part] of Object.entries(parts)) {
  try {
    await part()
  } catch (error) {
    failed += 1
    console.error(`${name}: ${error?.stack ?? error}`)
  }
}
console.log(JSON.stringify({ parts: Object.keys(parts).length, failed }))
clearTimeout(alarm)
relay.close()
process.exit(failed === 0 ? 0 : 1)
