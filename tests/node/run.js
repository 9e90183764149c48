// Call the emulators that the environment names, with Google's Node clients. Exit code 1 if a call fails.
"use strict";

const { Calls } = require("./calls");

const SERVICES = ["pubsub", "firestore", "storage"];
const VARIABLES = SERVICES.map((service) => `${service.toUpperCase()}_EMULATOR_HOST`);

async function main() {
  const missing = VARIABLES.filter((name) => !process.env[name]);
  if (missing.length) throw new Error(`${missing} must be set: without them the calls go to Google Cloud`);
  const calls = new Calls();
  process.on("unhandledRejection", (error) => calls.fails("a call that nobody waits for", error ?? new Error("?")));
  const chosen = process.argv.slice(2);
  for (const service of chosen.length ? chosen : SERVICES) {
    await require(`./${service}`)(calls.of(service)).catch((error) => calls.fails(service, error ?? new Error("?")));
  }
  console.log(`${calls.passed} calls work, ${calls.failed} fail`);
  process.exit(calls.failed ? 1 : 0);
}

process.exitCode = 1; // also when the process ends before its last call
main();
