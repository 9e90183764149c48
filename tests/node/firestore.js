// The ordinary calls of @google-cloud/firestore.
"use strict";

const assert = require("node:assert");
const { AggregateField, FieldValue, Filter, Firestore, Timestamp } = require("@google-cloud/firestore");
const { arrival } = require("./calls");

module.exports = async function firestore(call) {
  const client = new Firestore({ projectId: process.env.GOOGLE_CLOUD_PROJECT });
  const runs = client.collection("node-runs");
  await documents(call, client, runs);
  await batches(call, client, runs);
  await queries(call, client, runs);
  await transactions(call, client, runs);
  await listeners(call, runs);
  await deletions(call, client, runs);
  await refusals(call, runs);
  await client.terminate();
};

async function documents(call, client, runs) {
  const run = runs.doc("1run");
  await call("create", async () => {
    await run.create({ state: "READY", steps: { a: { n: 1 } }, when: Timestamp.now(), bytes: Buffer.from("x") });
    await assert.rejects(run.create({}), (error) => error.code === 6);
  });
  await call("get", async () => {
    const found = await run.get();
    assert.strictEqual(found.get("steps.a.n"), 1);
    assert.ok(found.updateTime);
    assert.strictEqual((await runs.doc("missing").get()).exists, false);
  });
  await call("set", async () => {
    await runs.doc("2run").set({ state: "READY", n: 2 });
  });
  await call("set with merge", async () => {
    await runs.doc("2run").set({ extra: true }, { merge: true });
    assert.deepStrictEqual((await runs.doc("2run").get()).data(), { state: "READY", n: 2, extra: true });
  });
  await call("update", async () => {
    await run.update({ "steps.a.n": 5, state: "RUNNING" });
    assert.strictEqual((await run.get()).get("steps.a.n"), 5);
  });
  await call("update with a precondition", async () => {
    const { updateTime } = await run.get();
    await run.update({ state: "DONE" }, { lastUpdateTime: updateTime });
    await assert.rejects(run.update({ state: "LATE" }, { lastUpdateTime: updateTime }), (error) => error.code === 9);
  });
  await call("field values", async () => {
    await run.update({
      count: FieldValue.increment(3),
      tags: FieldValue.arrayUnion("a", "b"),
      seen: FieldValue.serverTimestamp(),
      bytes: FieldValue.delete(),
    });
    await run.update({ tags: FieldValue.arrayRemove("a") });
    const found = await run.get();
    assert.strictEqual(found.get("count"), 3);
    assert.deepStrictEqual(found.get("tags"), ["b"]);
    assert.strictEqual(found.get("bytes"), undefined);
  });
  await call("get several documents", async () => {
    const found = await client.getAll(run, runs.doc("2run"), runs.doc("missing"));
    assert.deepStrictEqual(found.map((one) => one.exists), [true, true, false]);
  });
  await call("list documents and collections", async () => {
    await run.collection("leases").doc("1").set({ owner: "me" });
    assert.deepStrictEqual((await runs.listDocuments()).map((one) => one.id), ["1run", "2run"]);
    assert.deepStrictEqual((await run.listCollections()).map((one) => one.id), ["leases"]);
    assert.ok((await client.listCollections()).some((one) => one.id === "node-runs"));
  });
}

async function batches(call, client, runs) {
  await call("batch", async () => {
    const batch = client.batch();
    batch.set(runs.doc("3run"), { state: "READY", n: 3 });
    batch.update(runs.doc("2run"), { n: 4 });
    await batch.commit();
    assert.strictEqual((await runs.doc("2run").get()).get("n"), 4);
  });
  await call("bulk writer", async () => {
    const writer = client.bulkWriter();
    for (let n = 10; n < 30; n += 1) writer.set(runs.doc(`${n}run`), { state: "BULK", n });
    await writer.close();
    assert.strictEqual((await runs.where("state", "==", "BULK").get()).size, 20);
  });
}

async function queries(call, client, runs) {
  const ids = (found) => found.docs.map((one) => one.id);
  await call("query with filters, an order and a limit", async () => {
    const found = await runs.where("n", ">=", 12).where("n", "<", 20).orderBy("n", "desc").limit(2).get();
    assert.deepStrictEqual(ids(found), ["19run", "18run"]);
  });
  await call("query with in, not-in and array-contains", async () => {
    assert.strictEqual((await runs.where("n", "in", [10, 11]).get()).size, 2);
    assert.strictEqual((await runs.where("state", "not-in", ["BULK"]).get()).size, 3);
    assert.deepStrictEqual(ids(await runs.where("tags", "array-contains", "b").get()), ["1run"]);
  });
  await call("query with OR", async () => {
    const either = Filter.or(Filter.where("n", "==", 10), Filter.where("n", "==", 12));
    assert.deepStrictEqual(ids(await runs.where(either).get()), ["10run", "12run"]);
  });
  await call("query page by page", async () => {
    const first = await runs.orderBy("n").limit(3).get();
    const second = await runs.orderBy("n").startAfter(first.docs[2]).limit(3).get();
    assert.deepStrictEqual(ids(second), ["11run", "12run", "13run"]);
  });
  await call("query with offset, limitToLast and select", async () => {
    assert.deepStrictEqual(ids(await runs.orderBy("n").offset(2).limit(1).get()), ["10run"]);
    assert.deepStrictEqual(ids(await runs.orderBy("n").limitToLast(1).get()), ["29run"]);
    assert.deepStrictEqual((await runs.where("n", "==", 10).select("n").get()).docs[0].data(), { n: 10 });
  });
  await call("query a collection group", async () => {
    assert.strictEqual((await client.collectionGroup("leases").get()).size, 1);
  });
  await call("stream a query", async () => {
    let count = 0;
    for await (const _ of runs.where("state", "==", "BULK").stream()) count += 1;
    assert.strictEqual(count, 20);
  });
  await call("count, sum and average", async () => {
    const bulk = runs.where("state", "==", "BULK");
    assert.strictEqual((await bulk.count().get()).data().count, 20);
    const found = await bulk.aggregate({ sum: AggregateField.sum("n"), average: AggregateField.average("n") }).get();
    assert.deepStrictEqual(found.data(), { sum: 390, average: 19.5 });
  });
}

async function transactions(call, client, runs) {
  const run = runs.doc("2run");
  await call("transaction", async () => {
    await client.runTransaction(async (transaction) => {
      const { n } = (await transaction.get(run)).data();
      transaction.update(run, { n: n + 1 });
    });
    assert.strictEqual((await run.get()).get("n"), 5);
  });
  await call("transaction with a query", async () => {
    await client.runTransaction(async (transaction) => {
      const found = await transaction.get(runs.where("n", "==", 10));
      transaction.update(found.docs[0].ref, { state: "TAKEN" });
    });
    assert.strictEqual((await runs.doc("10run").get()).get("state"), "TAKEN");
  });
  await call("transactions that compete", async () => {
    const add = () =>
      client.runTransaction(async (transaction) => {
        const { n } = (await transaction.get(run)).data();
        transaction.update(run, { n: n + 1 });
      });
    await Promise.all([add(), add(), add()]);
    assert.strictEqual((await run.get()).get("n"), 8);
  });
  await call("transaction that fails is rolled back", async () => {
    const failing = client.runTransaction(async (transaction) => {
      await transaction.get(run);
      transaction.update(run, { n: 0 });
      throw new Error("stop");
    });
    await assert.rejects(failing, /stop/);
    assert.strictEqual((await run.get()).get("n"), 8);
  });
  await call("read-only transaction", async () => {
    const read = async (transaction) => (await transaction.get(run)).get("n");
    assert.strictEqual(await client.runTransaction(read, { readOnly: true }), 8);
  });
}

async function listeners(call, runs) {
  await call("listen to a document", async () => {
    const { promise, arrived } = arrival();
    const states = [];
    const stop = runs.doc("3run").onSnapshot((found) => {
      states.push(found.get("state"));
      if (states.length === 1) runs.doc("3run").update({ state: "HEARD" });
      else arrived();
    }, arrived);
    const error = await promise;
    stop();
    if (error) throw error;
    assert.deepStrictEqual(states, ["READY", "HEARD"]);
  });
  await call("listen to a query", async () => {
    const { promise, arrived } = arrival();
    const changes = [];
    const stop = runs.where("state", "==", "LISTENED").onSnapshot((found) => {
      changes.push(found.docChanges().map((one) => `${one.type} ${one.doc.id}`));
      if (changes.length === 1) runs.doc("3run").update({ state: "LISTENED" });
      if (changes.length === 2) runs.doc("3run").update({ state: "GONE" });
      if (changes.length === 3) arrived();
    }, arrived);
    const error = await promise;
    stop();
    if (error) throw error;
    assert.deepStrictEqual(changes, [[], ["added 3run"], ["removed 3run"]]);
  });
}

async function deletions(call, client, runs) {
  await call("delete", async () => {
    await runs.doc("3run").delete();
    assert.strictEqual((await runs.doc("3run").get()).exists, false);
  });
  await call("delete a document with all below it", async () => {
    await client.recursiveDelete(runs.doc("1run"));
    assert.strictEqual((await client.collectionGroup("leases").get()).size, 0);
  });
  await call("delete a collection", async () => {
    await client.recursiveDelete(runs);
    assert.strictEqual((await runs.get()).size, 0);
  });
}

/** The client repeats a refused stream for seven seconds unless it knows that nothing will change. */
async function refusals(call, runs) {
  const refused = async (query, code) => {
    const began = Date.now();
    await assert.rejects(query.get(), (error) => error.code === code);
    assert.ok(Date.now() - began < 2000, `refused after ${Date.now() - began} ms`);
  };
  await call("a query that is not served is refused at once", async () => {
    const nearest = { vectorField: "v", queryVector: [1], limit: 1, distanceMeasure: "EUCLIDEAN" };
    await refused(runs.findNearest(nearest), 12);
  });
  await call("a malformed query is refused at once", async () => {
    await refused(runs.where("n", "in", []), 3);
  });
  await call("a listener with a malformed query ends at once", async () => {
    const { promise, arrived } = arrival();
    runs.where("n", "in", []).onSnapshot(() => {}, arrived);
    assert.match((await promise).message, /non-empty ArrayValue/);
  });
}
