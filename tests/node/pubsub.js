// The ordinary calls of @google-cloud/pubsub.
"use strict";

const assert = require("node:assert");
const { PubSub, v1 } = require("@google-cloud/pubsub");
const { arrival } = require("./calls");

module.exports = async function pubsub(call) {
  const client = new PubSub({ projectId: process.env.GOOGLE_CLOUD_PROJECT });
  const topic = client.topic("node-topic");
  const subscription = topic.subscription("node-subscription");
  await topics(call, client, topic);
  await subscriptions(call, client, topic, subscription);
  await streaming(call, topic, subscription);
  await ordering(call, client, topic);
  await deadLetters(call, client);
  await replays(call, client, topic, subscription);
  await synchronousPull(call, client, topic);
  await call("detach a subscription", async () => {
    await client.detachSubscription("node-subscription");
    assert.deepStrictEqual(await subscription.detached(), [true]);
  });
  await call("delete a subscription", () => subscription.delete());
  await call("delete a topic", () => topic.delete());
  await client.close();
};

async function topics(call, client, topic) {
  await call("create a topic with labels", async () => {
    const [created] = await client.createTopic({ name: "node-topic", labels: { team: "charts" } });
    assert.strictEqual(created.name, topic.name);
  });
  await call("get a topic's metadata", async () => {
    const [metadata] = await topic.getMetadata();
    assert.deepStrictEqual(metadata.labels, { team: "charts" });
  });
  await call("set a topic's metadata", async () => {
    const [metadata] = await topic.setMetadata({ messageRetentionDuration: { seconds: 900 } });
    assert.strictEqual(Number(metadata.messageRetentionDuration.seconds), 900);
  });
  await call("set a topic's labels", async () => {
    const [metadata] = await topic.setMetadata({ labels: { team: "other" } });
    assert.deepStrictEqual(metadata.labels, { team: "other" });
  });
  await call("a topic exists", async () => {
    assert.deepStrictEqual(await topic.exists(), [true]);
    assert.deepStrictEqual(await client.topic("node-missing").exists(), [false]);
  });
  await call("get or create a topic", async () => {
    const made = client.topic("node-made");
    await made.get({ autoCreate: true });
    await made.delete();
  });
  await call("list topics, page by page", async () => {
    const other = client.topic("node-other");
    await other.create();
    const [first, next] = await client.getTopics({ pageSize: 1, autoPaginate: false });
    assert.strictEqual(first.length, 1);
    assert.ok(next.pageToken);
    assert.ok((await client.getTopics())[0].length >= 2);
    await other.delete();
  });
}

async function subscriptions(call, client, topic, subscription) {
  await call("create a subscription", async () => {
    await topic.createSubscription("node-subscription", { ackDeadlineSeconds: 20, retainAckedMessages: true });
  });
  await call("get a subscription's metadata", async () => {
    const [metadata] = await subscription.getMetadata();
    assert.strictEqual(metadata.ackDeadlineSeconds, 20);
  });
  await call("set a subscription's metadata", async () => {
    const [metadata] = await subscription.setMetadata({ ackDeadlineSeconds: 30 });
    assert.strictEqual(metadata.ackDeadlineSeconds, 30);
  });
  await call("a subscription exists", async () => {
    assert.deepStrictEqual(await subscription.exists(), [true]);
  });
  await call("list the subscriptions of a project and of a topic", async () => {
    const names = ([all]) => all.map((one) => one.name);
    assert.ok(names(await client.getSubscriptions()).includes(subscription.name));
    assert.deepStrictEqual(names(await topic.getSubscriptions()), [subscription.name]);
  });
  await call("a push endpoint is refused by name", async () => {
    const config = { pushEndpoint: "http://127.0.0.1/push" };
    await assert.rejects(subscription.modifyPushConfig(config), /push_config is not served/);
    await assert.rejects(topic.createSubscription("node-push", { pushConfig: config }), /push_config is not served/);
  });
  await call("a schema is refused by name", async () => {
    await assert.rejects(client.createSchema("node-schema", "AVRO", "{}"), /CreateSchema is not served/);
  });
  await call("IAM is refused by name", async () => {
    await assert.rejects(topic.iam.getPolicy(), /GetIamPolicy is not served/);
  });
  await call("a filter", async () => {
    const [filtered] = await topic.createSubscription("node-filtered", { filter: 'attributes.kind = "wanted"' });
    await topic.publishMessage({ data: Buffer.from("no") });
    await topic.publishMessage({ data: Buffer.from("yes"), attributes: { kind: "wanted" } });
    assert.strictEqual((await take(filtered, 1))[0].data.toString(), "yes");
    await filtered.delete();
  });
}

/** Receive and ack `count` messages. A client's object can't be opened again after it was closed, so take a new one. */
async function take({ pubsub, name }, count, options = {}) {
  const subscription = pubsub.subscription(name, options);
  const { promise, arrived } = arrival();
  const messages = [];
  subscription.on("error", arrived);
  subscription.on("message", (message) => {
    messages.push(message);
    message.ack();
    if (messages.length === count) arrived();
  });
  const error = await promise;
  await closed(subscription);
  if (error) throw error;
  return messages;
}

/** Stop receiving. Other listeners are the client's own. */
async function closed(subscription) {
  subscription.removeAllListeners("message");
  subscription.removeAllListeners("error");
  await subscription.close();
}

async function streaming(call, topic, subscription) {
  await call("publish", async () => {
    assert.match(await topic.publishMessage({ data: Buffer.from("one"), attributes: { runId: "r" } }), /^\d+$/);
  });
  await call("publish JSON", () => topic.publishMessage({ json: { two: 2 } }));
  await call("publish in batches", async () => {
    topic.setPublishOptions({ batching: { maxMessages: 10, maxMilliseconds: 20 } });
    const ids = await Promise.all([...Array(25).keys()].map((n) => topic.publishMessage({ data: Buffer.from(`${n}`) })));
    assert.strictEqual(new Set(ids).size, 25);
  });
  await call("receive and ack", async () => {
    const texts = (await take(subscription, 29)).map((message) => message.data.toString());
    assert.ok(texts.includes("one"));
    assert.ok(texts.includes('{"two":2}'));
  });
  await call("nack and receive again", async () => {
    const { promise, arrived } = arrival();
    const seen = [];
    const opened = topic.subscription("node-subscription");
    opened.on("message", (message) => {
      seen.push(message.id);
      if (seen.length === 1) message.nack();
      else {
        message.ack();
        arrived();
      }
    });
    await topic.publishMessage({ data: Buffer.from("again") });
    await promise;
    await closed(opened);
    assert.strictEqual(seen[0], seen[1]);
  });
  await call("extend a deadline", async () => {
    const { promise, arrived } = arrival();
    const opened = topic.subscription("node-subscription");
    opened.on("message", (message) => {
      message.modAck(60);
      message.ack();
      arrived();
    });
    await topic.publishMessage({ data: Buffer.from("later") });
    await promise;
    await closed(opened);
  });
  await call("flow control", async () => {
    for (let n = 0; n < 6; n += 1) await topic.publishMessage({ data: Buffer.from(`${n}`) });
    const flowControl = { maxMessages: 2, allowExcessMessages: false };
    assert.strictEqual((await take(subscription, 6, { flowControl })).length, 6);
  });
  await call("exactly-once delivery", async () => {
    const [exact] = await topic.createSubscription("node-exact", { enableExactlyOnceDelivery: true });
    const { promise, arrived } = arrival();
    exact.on("message", async (message) => arrived(await message.ackWithResponse()));
    await topic.publishMessage({ data: Buffer.from("once") });
    assert.strictEqual(await promise, "SUCCESS");
    await closed(exact);
    await exact.delete();
  });
  await call("a missing subscription ends the stream with NOT_FOUND", async () => {
    const { promise, arrived } = arrival();
    const missing = topic.subscription("node-missing");
    missing.on("error", arrived);
    missing.on("message", () => {});
    assert.strictEqual((await promise).code, 5);
    await missing.close();
  });
}

async function ordering(call, client) {
  await call("ordering keys", async () => {
    const [topic] = await client.createTopic("node-ordered");
    const [subscription] = await topic.createSubscription("node-ordered", { enableMessageOrdering: true });
    topic.setPublishOptions({ messageOrdering: true });
    const sent = [...Array(10).keys()].map((n) => `${n}`);
    await Promise.all(sent.map((text) => topic.publishMessage({ data: Buffer.from(text), orderingKey: "k" })));
    const received = await take(subscription, sent.length);
    assert.deepStrictEqual(received.map((message) => message.data.toString()), sent);
    assert.strictEqual(received[0].orderingKey, "k");
    await subscription.delete();
    await topic.delete();
  });
}

async function deadLetters(call, client) {
  await call("dead letters", async () => {
    const [topic] = await client.createTopic("node-failing");
    const [dead] = await client.createTopic("node-dead");
    const [graveyard] = await dead.createSubscription("node-graveyard");
    const [failing] = await topic.createSubscription("node-failing", {
      deadLetterPolicy: { deadLetterTopic: dead.name, maxDeliveryAttempts: 5 },
    });
    const attempts = [];
    failing.on("message", (message) => {
      attempts.push(message.deliveryAttempt);
      message.nack();
    });
    await topic.publishMessage({ data: Buffer.from("bad") });
    const [letter] = await take(graveyard, 1);
    await closed(failing);
    assert.deepStrictEqual(attempts, [1, 2, 3, 4, 5]);
    assert.strictEqual(letter.attributes.CloudPubSubDeadLetterSourceDeliveryCount, "5");
    await Promise.all([failing.delete(), graveyard.delete(), dead.delete(), topic.delete()]);
  });
}

async function replays(call, client, topic, subscription) {
  await call("seek to a time", async () => {
    // Google's client drops the milliseconds of the time, so the call waits for a new second.
    await new Promise((resolve) => setTimeout(resolve, 1000 - (Date.now() % 1000)));
    const before = new Date();
    await topic.publishMessage({ data: Buffer.from("replayed") });
    await take(subscription, 2); // and the message of the exactly-once delivery
    await subscription.seek(before);
    assert.strictEqual((await take(subscription, 1))[0].data.toString(), "replayed");
    await subscription.seek(new Date(Date.now() + 1000));
  });
  await call("create and list snapshots, seek to one and delete it", async () => {
    const [snapshot] = await subscription.createSnapshot("node-snapshot");
    await topic.publishMessage({ data: Buffer.from("since") });
    await take(subscription, 1);
    const [listed] = await client.getSnapshots();
    assert.deepStrictEqual(listed.map((one) => one.name), [snapshot.name]);
    await snapshot.seek();
    assert.strictEqual((await take(subscription, 1))[0].data.toString(), "since");
    await snapshot.delete();
  });
}

async function synchronousPull(call, client, topic) {
  await call("pull and ack without a stream", async () => {
    const [created] = await topic.createSubscription("node-pull");
    const low = new v1.SubscriberClient(await client.getClientConfig());
    await topic.publishMessage({ data: Buffer.from("pulled") });
    const [{ receivedMessages }] = await low.pull({ subscription: created.name, maxMessages: 5 });
    assert.strictEqual(receivedMessages[0].message.data.toString(), "pulled");
    const ackIds = receivedMessages.map((message) => message.ackId);
    await low.modifyAckDeadline({ subscription: created.name, ackIds, ackDeadlineSeconds: 20 });
    await low.acknowledge({ subscription: created.name, ackIds });
    await low.close();
    await created.delete();
  });
}
