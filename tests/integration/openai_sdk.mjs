// OpenAI's JavaScript client against a gateway; test_openai_js.py starts it and says what must come.
//
//     node openai_sdk.mjs PLAN     in a JSON file: {packages, url, model, texts: [{kind, body, text, finish, usage}], bad,
//                                  engines (URLs, where they are scripted ones), long: the body of an endless answer}
//
// Prints a line for each check: {"check", "failure": null or what was wrong, "told": what the Python side checks}.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const plan = JSON.parse(readFileSync(process.argv[2], "utf8"));
const OpenAI = createRequire(plan.packages + "/")("openai").OpenAI;
const client = new OpenAI({ baseURL: plan.url + "/v1", apiKey: "none", maxRetries: 0, timeout: 30_000 });

const create = (kind, body, options) =>
  kind === "chat" ? client.chat.completions.create(body, options) : client.completions.create(body, options);
const textOf = (choice) => (choice.delta ?? choice.message ?? choice).content ?? choice.text ?? "";

/** What a stream said: text and finish reason of its one choice, the usage, and every chunk. */
async function joined(stream) {
  const said = { text: "", finish: null, usage: null, chunks: [] };
  for await (const chunk of stream) {
    said.chunks.push(chunk);
    said.usage = chunk.usage ?? said.usage;
    for (const choice of chunk.choices) {
      said.text += textOf(choice);
      if (choice.finish_reason) {
        assert.equal(said.finish, null, "it ended twice");
        said.finish = choice.finish_reason;
      }
    }
  }
  return said;
}

/** The error that `act` must fail with. */
async function failure(kind, act) {
  try {
    await act();
  } catch (error) {
    assert.ok(error instanceof kind, `${error?.constructor?.name} in place of ${kind.name}: ${error?.message}`);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

async function fault(order) {
  for (const engine of plan.engines) {
    const asked = { method: order ? "POST" : "DELETE", body: order && JSON.stringify(order) };
    const reply = await fetch(engine + "/control/fault", asked);
    assert.equal(reply.status, 200, await reply.text());
  }
}

/** Reads so many chunks with text of a stream, and leaves by `leave(stream)`. */
async function leaveWithin(stream, count, leave) {
  let seen = 0;
  for await (const chunk of stream) {
    if (chunk.choices.length > 0 && textOf(chunk.choices[0]) !== "" && ++seen === count) leave(stream);
  }
  return seen;
}

const usageOf = ({ prompt_tokens, completion_tokens, total_tokens }) => ({ prompt_tokens, completion_tokens, total_tokens });

const checks = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, [plan.model]);
    assert.equal((await client.models.retrieve(plan.model)).id, plan.model);
    await failure(OpenAI.NotFoundError, () => client.models.retrieve("gone"));
  },

  async whole() {
    for (const { kind, body, text, finish, usage } of plan.texts) {
      const reply = await create(kind, body);
      assert.equal(reply.object, kind === "chat" ? "chat.completion" : "text_completion");
      assert.deepEqual([textOf(reply.choices[0]), reply.choices[0].finish_reason], [text, finish]);
      assert.deepEqual(usageOf(reply.usage), usage);
      assert.ok(reply._request_id);
    }
  },

  async streamed() {
    for (const { kind, body, text, finish } of plan.texts) {
      const said = await joined(await create(kind, { ...body, stream: true }));
      assert.deepEqual([said.text, said.finish, said.usage], [text, finish, null]);
      assert.equal(new Set(said.chunks.map((chunk) => chunk.id)).size, 1);
    }
  },

  async "usage of a stream is its last chunk"() {
    for (const { kind, body, text, usage } of plan.texts) {
      const said = await joined(await create(kind, { ...body, stream: true, stream_options: { include_usage: true } }));
      assert.equal(said.text, text);
      assert.deepEqual(usageOf(said.usage), usage);
      assert.deepEqual(said.chunks.at(-1).choices, []);
      assert.ok(said.chunks.slice(0, -1).every((chunk) => !chunk.usage));
    }
  },

  async "the client's own gathering of a stream"() {
    const { body, text, finish } = plan.texts.find(({ kind }) => kind === "chat");
    const gathered = await client.chat.completions.stream(body).finalChatCompletion();
    assert.deepEqual([gathered.choices[0].message.content, gathered.choices[0].finish_reason], [text, finish]);
  },

  async "many at a time"() {
    const asked = Array.from({ length: 40 }, (_, i) => plan.texts[i % plan.texts.length]);
    const texts = await Promise.all(asked.map(async ({ kind, body }, i) =>
      i % 2 ? textOf((await create(kind, body)).choices[0]) : (await joined(await create(kind, { ...body, stream: true }))).text));
    assert.deepEqual(texts, asked.map(({ text }) => text));
  },

  async "errors are classes"() {
    for (const stream of [false, true]) {
      for (const { kind, body } of plan.bad) {
        const error = await failure(OpenAI.BadRequestError, () => create(kind, { ...body, stream }));
        assert.equal(error.status, 400);
        assert.ok(error.error.message && error.requestID);
      }
      const error = await failure(OpenAI.NotFoundError, () => create("chat", { ...plan.texts[0].body, model: "gone", stream }));
      assert.deepEqual([error.status, error.code], [404, "model_not_found"]);
    }
  },

  async "a stream that is left"() {
    const leaves = {
      "left-break": async (stream) => {
        for await (const _ of stream) break;
      },
      "left-abort": (stream) => leaveWithin(stream, 3, () => stream.controller.abort()),
    };
    for (const [id, leave] of Object.entries(leaves))
      await leave(await create("chat", { ...plan.long, stream: true }, { headers: { "x-request-id": id } }));
    return Object.keys(leaves);
  },

  async "an abort"() {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    const options = { signal: controller.signal, headers: { "x-request-id": "left-whole" } };
    await failure(OpenAI.APIUserAbortError, () => create("chat", plan.long, options));
    return ["left-whole"];
  },

  async "a timeout"() {
    const options = { timeout: 200, headers: { "x-request-id": "left-timeout" } };
    await failure(OpenAI.APIConnectionTimeoutError, () => create("chat", plan.long, options));
    return ["left-timeout"];
  },
};

/** Where engines can be told to fail. */
const faultyChecks = {
  async "the client tries again when told to"() {
    const { kind, body, text } = plan.texts[0];
    await fault({ kind: "status", status: 429, retry_after: 1, times: 1 });
    const error = await failure(OpenAI.RateLimitError, () => create(kind, body));
    assert.deepEqual([error.status, error.headers.get("retry-after")], [429, "1"]);
    await fault(null);
    await fault({ kind: "status", status: 503, retry_after: 1, times: 1 });
    const begun = Date.now();
    assert.equal(textOf((await create(kind, body, { maxRetries: 3 })).choices[0]), text);
    assert.ok(Date.now() - begun >= 900, "the engines' Retry-After was kept");
    await fault(null);
  },

  async "a failure of the engines"() {
    await fault({ kind: "status", status: 500, times: -1 });
    await failure(OpenAI.InternalServerError, () => create("chat", plan.texts[0].body));
    await fault(null);
  },

  async "an engine's end is not noticed"() {
    for (const { kind, body, text, finish } of plan.texts) {
      await fault({ kind: "cut", after_tokens: 4, times: 1 });
      const said = await joined(await create(kind, { ...body, stream: true }));
      assert.deepEqual([said.text, said.finish], [text, finish]);
      await fault(null);
    }
  },

  async "an error in the middle of a stream"() {
    await fault({ kind: "cut", after_tokens: 4, times: -1 });
    const { body } = plan.texts[0];
    let seen = 0;
    const error = await failure(OpenAI.APIError, async () => {
      for await (const chunk of await create("chat", { ...body, stream: true, temperature: 1, seed: 1 }))
        seen += chunk.choices.length;
    });
    assert.ok(seen > 0, "some of it had come");
    assert.match(error.error.message, /no engine can go on/);
    await fault(null);
  },
};

for (const [check, act] of Object.entries({ ...checks, ...(plan.engines ? faultyChecks : {}) })) {
  let problem = null, told = null;
  try {
    told = await act();
  } catch (error) {
    problem = error.stack ?? String(error);
  }
  console.log(JSON.stringify({ check, failure: problem, told: told ?? null }));
}
