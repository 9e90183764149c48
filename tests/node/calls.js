// Run calls one after the other, print each, and count those that fail.
"use strict";

const CALL_SECONDS = 30;

class Calls {
  constructor() {
    this.passed = 0;
    this.failed = 0;
  }

  /** Count and print a failure. */
  fails(name, error) {
    this.failed += 1;
    console.log(`FAIL  ${name}: ${error.message}`);
  }

  /** Return a function that runs the calls of one service; each gets at most 30 seconds. */
  of(service) {
    return async (name, call) => {
      const began = Date.now();
      try {
        await within(CALL_SECONDS, call());
        this.passed += 1;
        console.log(`ok    ${service}: ${name} (${Date.now() - began} ms)`);
      } catch (error) {
        this.fails(`${service}: ${name}`, error);
      }
    };
  }
}

/** Reject when the promise takes longer. */
function within(seconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result after ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Return a promise that is resolved by `arrived(value)`. */
function arrival() {
  let arrived;
  const promise = new Promise((resolve) => {
    arrived = resolve;
  });
  return { promise, arrived };
}

module.exports = { Calls, arrival };
