// Puts a blob on a server, gets, lists and deletes it, with somebody else's Blossom client.
// Arguments: the server's address.
import assert from "node:assert/strict";
import { Actions, createDeleteAuth, createListAuth, createUploadAuth } from "blossom-client-sdk";
import { finalizeEvent, generateSecretKey, getPublicKey } from "nostr-tools/pure";

const [server] = process.argv.slice(2);
const key = generateSecretKey();
const signer = async (draft) => finalizeEvent(draft, key);
const bytes = new Uint8Array(200_000).map((_, index) => index * 31);

const uploaded = await Actions.uploadBlob(server, new Blob([bytes], { type: "image/png" }), {
  onAuth: (server, hash, type) => createUploadAuth(signer, hash, { type, servers: server }),
});
assert.equal(uploaded.size, bytes.length);
assert.ok(await Actions.hasBlob(server, uploaded.sha256));
const response = await Actions.downloadBlob(server, uploaded.sha256);
assert.deepEqual(new Uint8Array(await response.arrayBuffer()), bytes);
assert.equal((await (await fetch(uploaded.url)).arrayBuffer()).byteLength, bytes.length);
const listed = await Actions.listBlobs(server, getPublicKey(key), {
  onAuth: (server) => createListAuth(signer, { servers: server }),
});
assert.deepEqual(listed.map((blob) => blob.sha256), [uploaded.sha256]);
await Actions.deleteBlob(server, uploaded.sha256, {
  onAuth: (server, hash) => createDeleteAuth(signer, hash, { servers: server }),
});
assert.ok(!(await Actions.hasBlob(server, uploaded.sha256)));
