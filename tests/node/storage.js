// The ordinary calls of @google-cloud/storage.
"use strict";

const assert = require("node:assert");
const crypto = require("node:crypto");
const { once } = require("node:events");
const { Readable } = require("node:stream");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { Storage, TransferManager } = require("@google-cloud/storage");

const LARGE = Buffer.alloc(9 * 1024 * 1024 + 7, "large ");

module.exports = async function storage(call) {
  const client = new Storage({ projectId: process.env.GOOGLE_CLOUD_PROJECT, apiEndpoint: process.env.STORAGE_EMULATOR_HOST });
  const bucket = client.bucket("node-bucket");
  await buckets(call, client, bucket);
  await uploads(call, bucket);
  await downloads(call, bucket);
  await metadata(call, bucket);
  await lists(call, bucket);
  await copies(call, bucket);
  await keys(call, bucket);
  await signedUrls(call);
  await deletions(call, bucket);
};

async function buckets(call, client, bucket) {
  await call("create a bucket", async () => {
    const [created] = await client.createBucket("node-bucket");
    assert.strictEqual(created.name, "node-bucket");
  });
  await call("a bucket exists", async () => {
    assert.deepStrictEqual(await bucket.exists(), [true]);
    assert.deepStrictEqual(await client.bucket("node-missing").exists(), [false]);
  });
  await call("get a bucket's metadata", async () => {
    assert.strictEqual((await bucket.getMetadata())[0].name, "node-bucket");
  });
  await call("list buckets", async () => {
    assert.ok((await client.getBuckets())[0].some((one) => one.name === "node-bucket"));
  });
}

async function uploads(call, bucket) {
  await call("upload in one request", async () => {
    await bucket.file("a/simple.txt").save("simple", { resumable: false, contentType: "text/plain" });
  });
  await call("upload in one request, with a checksum", async () => {
    await bucket.file("a/checked.txt").save("checked", { resumable: false, validation: "crc32c" });
  });
  await call("upload over 8 MB, resumable", async () => {
    await bucket.file("large.bin").save(LARGE, { resumable: true });
  });
  await call("upload over 8 MB in chunks", async () => {
    await bucket.file("chunked.bin").save(LARGE, { resumable: true, chunkSize: 1024 * 1024 });
  });
  await call("upload a stream", async () => {
    const stream = Readable.from(["first ", "second"]).pipe(bucket.file("a/streamed.txt").createWriteStream());
    await once(stream, "finish");
    assert.strictEqual((await bucket.file("a/streamed.txt").download())[0].toString(), "first second");
  });
  await call("resume an upload that was broken off", async () => {
    const [uri] = await bucket.file("resumed.bin").createResumableUpload();
    const size = 256 * 1024;
    const headers = { "Content-Range": `bytes 0-${size - 1}/*` };
    assert.strictEqual((await fetch(uri, { method: "PUT", body: LARGE.subarray(0, size), headers })).status, 308);
    const stream = bucket.file("resumed.bin").createWriteStream({ uri, offset: size, validation: false });
    stream.end(LARGE.subarray(size));
    await once(stream, "finish");
    assert.ok((await bucket.file("resumed.bin").download())[0].equals(LARGE));
    await bucket.file("resumed.bin").delete();
  });
  await call("upload compressed", async () => {
    await bucket.file("a/packed.txt").save("packed ".repeat(99), { gzip: true, resumable: false });
    assert.strictEqual((await bucket.file("a/packed.txt").download())[0].toString(), "packed ".repeat(99));
    await bucket.file("a/packed.txt").delete();
  });
  await call("upload only if the object is new", async () => {
    const file = bucket.file("a/new.txt");
    const options = { resumable: false, preconditionOpts: { ifGenerationMatch: 0 } };
    await file.save("first", options);
    await assert.rejects(file.save("second", options), (error) => error.code === 412);
  });
}

async function downloads(call, bucket) {
  await call("download", async () => {
    assert.strictEqual((await bucket.file("a/simple.txt").download())[0].toString(), "simple");
  });
  await call("download over 8 MB", async () => {
    for (const name of ["large.bin", "chunked.bin"]) {
      assert.ok((await bucket.file(name).download())[0].equals(LARGE));
    }
  });
  await call("download a range", async () => {
    assert.strictEqual((await bucket.file("a/simple.txt").download({ start: 1, end: 3 }))[0].toString(), "imp");
  });
  await call("download the end", async () => {
    assert.strictEqual((await bucket.file("a/simple.txt").download({ end: -3 }))[0].toString(), "ple");
  });
  await call("download a stream", async () => {
    const parts = [];
    for await (const part of bucket.file("large.bin").createReadStream()) parts.push(part);
    assert.ok(Buffer.concat(parts).equals(LARGE));
  });
  await call("download in chunks, at the same time", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "node-storage-"));
    const options = { destination: path.join(folder, "large.bin"), chunkSizeBytes: 1024 * 1024, validation: "crc32c" };
    await new TransferManager(bucket).downloadFileInChunks("large.bin", options);
    assert.ok(fs.readFileSync(options.destination).equals(LARGE));
    fs.rmSync(folder, { recursive: true });
  });
  await call("a missing object is not found", async () => {
    await assert.rejects(bucket.file("missing").download(), (error) => error.code === 404);
  });
}

async function metadata(call, bucket) {
  const file = bucket.file("a/simple.txt");
  await call("an object exists", async () => {
    assert.deepStrictEqual(await file.exists(), [true]);
    assert.deepStrictEqual(await bucket.file("missing").exists(), [false]);
  });
  await call("get an object's metadata", async () => {
    const [found] = await file.getMetadata();
    assert.strictEqual(Number(found.size), 6);
    assert.strictEqual(found.contentType, "text/plain");
    assert.ok(found.md5Hash && found.crc32c && found.generation);
  });
  await call("set an object's metadata", async () => {
    await file.setMetadata({ metadata: { runId: "r" }, cacheControl: "no-cache" });
    const [found] = await file.getMetadata();
    assert.deepStrictEqual(found.metadata, { runId: "r" });
    assert.strictEqual(found.cacheControl, "no-cache");
  });
}

async function lists(call, bucket) {
  const names = ([files]) => files.map((file) => file.name);
  await call("list with a prefix", async () => {
    assert.deepStrictEqual(names(await bucket.getFiles({ prefix: "a/s" })), ["a/simple.txt", "a/streamed.txt"]);
  });
  await call("list folders", async () => {
    const [files, , response] = await bucket.getFiles({ delimiter: "/", autoPaginate: false });
    assert.deepStrictEqual(files.map((file) => file.name), ["chunked.bin", "large.bin"]);
    assert.deepStrictEqual(response.prefixes, ["a/"]);
  });
  await call("list with offsets and a pattern", async () => {
    assert.deepStrictEqual(names(await bucket.getFiles({ startOffset: "a/s", endOffset: "b" })), ["a/simple.txt", "a/streamed.txt"]);
    assert.deepStrictEqual(names(await bucket.getFiles({ matchGlob: "**/{new,simple}.txt" })), ["a/new.txt", "a/simple.txt"]);
  });
  await call("list page by page", async () => {
    const [first, next] = await bucket.getFiles({ maxResults: 2, autoPaginate: false });
    assert.strictEqual(first.length, 2);
    const [second] = await bucket.getFiles(next);
    assert.notStrictEqual(second[0].name, first[0].name);
  });
}

async function copies(call, bucket) {
  const file = bucket.file("a/simple.txt");
  await call("copy", async () => {
    await file.copy(bucket.file("b/copy.txt"));
    assert.strictEqual((await bucket.file("b/copy.txt").download())[0].toString(), "simple");
  });
  await call("move", async () => {
    await bucket.file("b/copy.txt").move(bucket.file("b/moved.txt"));
    assert.deepStrictEqual(await bucket.file("b/copy.txt").exists(), [false]);
  });
  await call("rename", async () => {
    await bucket.file("b/moved.txt").moveFileAtomic("b/renamed.txt");
    assert.deepStrictEqual(await bucket.file("b/moved.txt").exists(), [false]);
  });
  await call("change the storage class", async () => {
    await bucket.file("b/renamed.txt").setStorageClass("nearline");
    assert.strictEqual((await bucket.file("b/renamed.txt").getMetadata())[0].storageClass, "NEARLINE");
  });
  await call("what is not served is refused by name", async () => {
    await assert.rejects(file.makePublic(), (error) => error.code === 501 && error.message.includes("objects.acl"));
  });
  await call("combine", async () => {
    await bucket.combine(["a/simple.txt", "a/checked.txt"], "b/combined.txt");
    assert.strictEqual((await bucket.file("b/combined.txt").download())[0].toString(), "simplechecked");
  });
}

async function keys(call, bucket) {
  const [first, second] = [crypto.randomBytes(32), crypto.randomBytes(32)];
  // A name without a slash: the client rotates a key under the encoded name.
  const encrypted = bucket.file("encrypted.txt", { encryptionKey: first });
  await call("upload and download with an encryption key", async () => {
    await encrypted.save("secret", { resumable: true });
    assert.strictEqual((await encrypted.download())[0].toString(), "secret");
    await assert.rejects(bucket.file("encrypted.txt").download(), (error) => error.code === 400);
  });
  await call("rotate an encryption key", async () => {
    await encrypted.rotateEncryptionKey({ encryptionKey: second });
    const rotated = bucket.file("encrypted.txt", { encryptionKey: second });
    assert.strictEqual((await rotated.download())[0].toString(), "secret");
  });
}

async function signedUrls(call) {
  const { privateKey } = crypto.generateKeyPairSync("rsa", {
    modulusLength: 2048,
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  const credentials = { client_email: "signer@example.iam.gserviceaccount.com", private_key: privateKey };
  const client = new Storage({ apiEndpoint: process.env.STORAGE_EMULATOR_HOST, credentials });
  const file = client.bucket("node-bucket").file("b/signed.txt");
  const signed = async (action, version) =>
    (await file.getSignedUrl({ action, version, expires: Date.now() + 60000, contentType: "text/plain" }))[0];
  for (const version of ["v2", "v4"]) {
    await call(`write, read and delete with signed URLs (${version})`, async () => {
      const headers = { "content-type": "text/plain" };
      assert.strictEqual((await fetch(await signed("write", version), { method: "PUT", body: "x", headers })).status, 200);
      assert.strictEqual(await (await fetch(await signed("read", version), { headers })).text(), "x");
      assert.strictEqual((await fetch(await signed("delete", version), { method: "DELETE", headers })).status, 204);
    });
  }
}

async function deletions(call, bucket) {
  await call("keep and delete versions", async () => {
    await bucket.setMetadata({ versioning: { enabled: true } });
    await bucket.file("a/new.txt").save("second", { resumable: false });
    assert.strictEqual((await bucket.getFiles({ prefix: "a/new", versions: true }))[0].length, 2);
    await bucket.deleteFiles({ prefix: "a/new", versions: true });
    await bucket.setMetadata({ versioning: { enabled: false } });
    assert.strictEqual((await bucket.getFiles({ prefix: "a/new", versions: true }))[0].length, 0);
  });
  await call("delete an object", async () => {
    await bucket.file("a/simple.txt").delete();
    await assert.rejects(bucket.file("a/simple.txt").delete(), (error) => error.code === 404);
    await bucket.file("a/simple.txt").delete({ ignoreNotFound: true });
  });
  await call("delete all objects", async () => {
    await bucket.deleteFiles({ force: true });
    assert.strictEqual((await bucket.getFiles())[0].length, 0);
  });
  await call("delete a bucket", () => bucket.delete());
}
