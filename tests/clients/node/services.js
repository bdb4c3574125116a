// What JupyterLab does, by its own client library, to a server of which it is told a URL and a token.
//
//     node services.js "<scenario>" <url> <token>
//
// Each scenario throws what does not hold. One second of a scenario's time is more than it needs; the caller bounds it.
"use strict";

const assert = require("node:assert/strict");
const net = require("node:net");
const WebSocket = require("ws");
const { UUID } = require("@lumino/coreutils");
const {
  KernelAPI,
  KernelManager,
  KernelSpecManager,
  ServerConnection,
  SessionManager,
  UserAPI,
} = require("@jupyterlab/services");

const [, , wanted, url, token] = process.argv;
const scenarios = new Map();
const scenario = (name, play) => scenarios.set(name, play);
const scenarioOfCellgate = scenario; // by another name, as not every server can play it

// --- what scenarios are written with

/** One JupyterLab: a page that was loaded once. */
class Page {
  constructor(at = url) {
    const sockets = (this.sockets = []);
    this.settings = ServerConnection.makeSettings({
      baseUrl: at + "/",
      token,
      WebSocket: class extends WebSocket {
        constructor(address, protocols) {
          super(address, process.env.LEGACY ? [] : protocols);
          sockets.push(this);
        }
      },
    });
    this.kernels = new KernelManager({ serverSettings: this.settings });
  }

  async start(name = "python3") {
    await this.kernels.ready; // as JupyterLab does: a list that was asked for before a start and comes after it ends what it lacks
    const kernel = await this.kernels.startNew({ name });
    kernel.statuses = [];
    kernel.statusChanged.connect((_, status) => kernel.statuses.push(status));
    await kernel.info;
    return kernel;
  }

  connect(model) {
    return this.kernels.connectTo({ model });
  }
}

/** Run a cell to its end. `seen` is told each message as it comes. */
async function run(kernel, code, { seen = () => {}, stdin, ...content } = {}) {
  const messages = [];
  const future = kernel.requestExecute({ code, ...content });
  future.onIOPub = (message) => {
    messages.push(message);
    seen(message);
  };
  future.onStdin = (message) => stdin?.(future, message);
  const reply = await future.done;
  return { reply: reply.content, messages, future, text: textOf(messages), types: typesOf(messages) };
}

const textOf = (messages, name = "stdout") =>
  messages
    .filter((m) => m.header.msg_type === "stream" && m.content.name === name)
    .map((m) => m.content.text)
    .join("");

const typesOf = (messages) => messages.map((m) => m.header.msg_type).filter((type) => type !== "status");

const only = (messages, type) => messages.filter((m) => m.header.msg_type === type).map((m) => m.content);

/** Resolves when a signal is emitted with what is looked for. */
const until = (signal, holds) =>
  new Promise((resolve) => {
    const slot = (_, value) => {
      if (holds(value)) {
        signal.disconnect(slot);
        resolve(value);
      }
    };
    signal.connect(slot);
  });

/** A promise, and what keeps it. */
function promised() {
  let keep;
  const promise = new Promise((resolve) => (keep = resolve));
  return Object.assign(promise, { keep });
}

/** Lines 0, 1, 2, ... each flushed, with time for something to happen between them. */
const counting = (lines, seconds) =>
  `import time\nfor i in range(${lines}):\n    print(i, flush=True)\n    time.sleep(${seconds})`;
const counted = (lines) => Array.from({ length: lines }, (_, i) => `${i}\n`).join("");

/** Strike once at each of these lines, as it comes: a busy machine brings several in one message. */
function atLines(lines, strike) {
  const left = new Set(lines);
  return (message) => (message.content.text ?? "").split("\n").forEach((line) => left.delete(line) && strike());
}

/** The newest socket, when the server has been told that all has come so far: when its next ping was answered. A server
 * that sends none has had its time. What comes after that ping and before whatever the scenario does then would come
 * twice: so cells pause between their lines. */
function confirmed(page) {
  const socket = page.sockets.at(-1);
  return new Promise((resolve) => {
    socket.once("ping", () => resolve(socket));
    setTimeout(resolve, 50, socket);
  });
}

/** A network between a page and the server, that can be made to swallow what is under way, and be cut. */
class Network {
  async open() {
    const { hostname, port } = new URL(url);
    this.wires = new Set();
    this.server = net.createServer((near) => {
      const far = net.connect(Number(port), hostname);
      const wire = { near, far };
      this.wires.add(wire);
      near.on("data", (data) => far.write(data));
      far.on("data", (data) => wire.swallows || near.write(data));
      for (const [end, other] of [[near, far], [far, near]]) {
        end.on("error", () => {});
        end.on("close", () => {
          other.destroy();
          this.wires.delete(wire);
        });
      }
    });
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  fail(milliseconds) {
    this.swallow();
    setTimeout(() => this.cut(), milliseconds);
  }

  swallow() {
    for (const wire of this.wires) wire.swallows = true;
  }

  cut() {
    for (const { near, far } of this.wires) near.resetAndDestroy(), far.resetAndDestroy();
  }
}

// --- the server and its kernels

scenario("the kernels that can be asked for are listed, with their pictures", async (page) => {
  const specs = new KernelSpecManager({ serverSettings: page.settings });
  await specs.ready;
  assert.ok(specs.specs.default in specs.specs.kernelspecs);
  const python = specs.specs.kernelspecs.python3;
  assert.equal(python.language, "python");
  for (const path of Object.values(python.resources)) {
    const at = new URL(path, page.settings.baseUrl).href;
    const picture = await ServerConnection.makeRequest(at, {}, page.settings);
    assert.equal(picture.status, 200, at);
  }
});

scenario("a page knows who its user is", async (page) => {
  const { identity, permissions } = await new UserAPI.UserAPIClient({ serverSettings: page.settings }).get();
  assert.ok(identity.username);
  assert.equal(typeof permissions, "object");
});

scenario("a wrong token is refused, by HTTP and by websocket", async (page) => {
  const kernel = await page.start();
  const settings = { ...page.settings, token: "wrong" };
  const stranger = new KernelManager({ serverSettings: settings });
  stranger.ready.catch(() => {});
  await assert.rejects(stranger.startNew(), (error) => [401, 403].includes(error.response.status));
  const socket = new WebSocket(`${url.replace("http", "ws")}/api/kernels/${kernel.id}/channels?token=wrong`);
  const refused = promised();
  socket.on("unexpected-response", (_, response) => refused.keep(response.statusCode));
  socket.on("open", () => refused.keep("open"));
  assert.ok([401, 403].includes(await refused));
});

scenario("a kernel starts, is listed, answers, and is gone when it was shut down", async (page) => {
  const kernel = await page.start();
  assert.equal((await kernel.info).language_info.name, "python");
  assert.equal(kernel.connectionStatus, "connected");
  await page.kernels.refreshRunning();
  assert.deepEqual([...page.kernels.running()].map((model) => model.id), [kernel.id]);
  const { reply, messages } = await run(kernel, "1+1");
  assert.equal(reply.status, "ok");
  assert.equal(only(messages, "execute_result")[0].data["text/plain"], "2");
  await kernel.shutdown();
  await page.kernels.refreshRunning();
  assert.equal(page.kernels.runningCount, 0);
});

scenario("a page that offers the binary protocol is spoken to in it", async (page) => {
  await page.start();
  assert.equal(page.sockets.length, 1);
  assert.equal(page.sockets[0].protocol, "v1.kernel.websocket.jupyter.org");
});

scenario("a kernel shut down by another page is dead for this one, and what waits is settled", async (page) => {
  const kernel = await page.start();
  const begun = promised();
  const cell = run(kernel, "print('begun', flush=True)\nimport time; time.sleep(60)", { seen: begunBy(begun) });
  const settled = cell.then((done) => done.reply.status, (error) => error.message);
  await begun;
  const dead = until(kernel.statusChanged, (status) => status === "dead");
  await new Page().kernels.shutdown(kernel.id);
  await Promise.race([dead, polled(page)]);
  await dead;
  assert.match(await settled, /error|Canceled/);
  assert.ok(kernel.isDisposed);
});

/** What JupyterLab does each ten seconds. */
const polled = (page) => new Promise((resolve) => setTimeout(resolve, 1000)).then(() => page.kernels.refreshRunning());

const begunBy = (promise) => (message) => message.header.msg_type === "stream" && promise.keep();

// --- sessions

scenario("a session is started, found, renamed, given another kernel, and ended", async (page) => {
  const sessions = new SessionManager({ serverSettings: page.settings, kernelManager: page.kernels });
  await sessions.ready;
  const options = { path: "work/a.ipynb", type: "notebook", name: "a", kernel: { name: "python3" } };
  const session = await sessions.startNew(options);
  assert.equal(session.path, options.path);
  await run(session.kernel, "x = 1");

  const again = await sessions.startNew(options); // a page that opens the same notebook gets the same kernel
  assert.deepEqual([again.id, again.kernel.id], [session.id, session.kernel.id]);
  assert.equal((await sessions.findByPath(options.path)).id, session.id);
  assert.equal((await sessions.findById(session.id)).kernel.id, session.kernel.id);

  await session.setPath("work/b.ipynb");
  await session.setName("b");
  await sessions.refreshRunning();
  const [model] = sessions.running();
  assert.deepEqual([model.path, model.name, model.type], ["work/b.ipynb", "b", "notebook"]);

  const before = session.kernel.id;
  const changed = await session.changeKernel({ name: "python3" });
  assert.notEqual(changed.id, before);
  assert.match((await run(changed, "x")).reply.ename, /NameError/);
  await page.kernels.refreshRunning();
  assert.deepEqual([...page.kernels.running()].map((kernel) => kernel.id), [changed.id]);

  await session.shutdown();
  await sessions.refreshRunning();
  await page.kernels.refreshRunning();
  assert.deepEqual([[...sessions.running()], page.kernels.runningCount], [[], 0]);
});

scenario("a session whose kernel was shut down is listed no more", async (page) => {
  const sessions = new SessionManager({ serverSettings: page.settings, kernelManager: page.kernels });
  const session = await sessions.startNew({ path: "a.ipynb", type: "notebook", name: "", kernel: { name: "python3" } });
  await session.kernel.info; // the page asks at once, and is not made for a kernel that is gone by then
  await page.kernels.shutdown(session.kernel.id);
  await sessions.refreshRunning();
  assert.deepEqual([...sessions.running()], []);
});

// --- cells

scenario("a cell gives all its kinds of output, in order", async (page) => {
  const kernel = await page.start();
  const { reply, messages, types } = await run(
    kernel,
    `import sys
from IPython.display import display, HTML, clear_output
print("out", flush=True)
print("err", file=sys.stderr, flush=True)
display(HTML("<b>rich</b>"))
clear_output(wait=True)
6 * 7`,
  );
  assert.equal(reply.status, "ok");
  assert.deepEqual(types, ["execute_input", "stream", "stream", "display_data", "clear_output", "execute_result"]);
  assert.equal(textOf(messages, "stderr"), "err\n");
  assert.equal(only(messages, "display_data")[0].data["text/html"], "<b>rich</b>");
  assert.equal(only(messages, "execute_result")[0].execution_count, reply.execution_count);
  assert.deepEqual(only(messages, "status").map((s) => s.execution_state), ["busy", "idle"]);
});

scenario("an error is told with its traceback, and cancels the cells behind it", async (page) => {
  const kernel = await page.start();
  const codes = ["import time; time.sleep(0.5); 1/0", "print('never')", "print('never either')"]; // they wait by then
  const cells = await Promise.all(codes.map((code) => run(kernel, code, { stop_on_error: true })));
  assert.deepEqual(cells.map((cell) => cell.reply.status), ["error", "aborted", "aborted"]);
  const [error] = only(cells[0].messages, "error");
  assert.equal(error.ename, "ZeroDivisionError");
  assert.ok(error.traceback.join("").replace(/\x1b\[[0-9;]*m/g, "").includes("1/0"));
  assert.equal((await run(kernel, "print('after')")).text, "after\n");
});

scenario("Run All: cells that are sent at once run in their order", async (page) => {
  const kernel = await page.start();
  const cells = await Promise.all([...Array(30).keys()].map((i) => run(kernel, `print(${i})\n${i}`)));
  assert.equal(cells.map((cell) => cell.text).join(""), counted(30));
  const counts = cells.map((cell) => cell.reply.execution_count);
  assert.deepEqual(counts, [...counts].sort((a, b) => a - b));
});

scenario("a display is updated from a later cell", async (page) => {
  const kernel = await page.start();
  const shown = [];
  const first = kernel.requestExecute({ code: "h = display('first', display_id=True)" }, false);
  first.onIOPub = (message) => message.content.data && shown.push([message.header.msg_type, message.content.data["text/plain"]]);
  await first.done;
  await run(kernel, "h.update('second')");
  assert.deepEqual(shown, [["display_data", "'first'"], ["update_display_data", "'second'"]]);
});

scenario("megabytes come whole", async (page) => {
  const kernel = await page.start();
  const { text, messages } = await run(
    kernel,
    `print("a" * 3_000_000)
get_ipython().display_pub.publish({"text/plain": "b" * 2_000_000})`,
  );
  assert.ok(text === "a".repeat(3_000_000) + "\n", `${text.length} characters`);
  assert.equal(only(messages, "display_data")[0]?.data["text/plain"].length, 2_000_000);
});

scenario("input() is answered, and asks for a password as such", async (page) => {
  const kernel = await page.start();
  const asked = [];
  const answer = (future, message) => {
    asked.push([message.content.prompt, message.content.password]);
    future.sendInputReply({ status: "ok", value: `to ${message.content.prompt}` }, message.header);
  };
  const { text } = await run(kernel, `import getpass; print(input("a?"), getpass.getpass("b?"))`, { stdin: answer });
  assert.equal(text, "to a? to b?\n");
  assert.deepEqual(asked, [["a?", false], ["b?", true]]);
});

scenario("an interrupt ends a cell that computes, one that sleeps and one that waits for input", async (page) => {
  const kernel = await page.start();
  for (const code of ["while True: pass", "import time; time.sleep(60)", "input('never')"]) {
    const begun = promised();
    const seen = code.startsWith("input") ? () => {} : begunBy(begun);
    const cell = run(kernel, `print('begun', flush=True)\n${code}`, { seen, stdin: () => begun.keep() });
    await begun;
    await kernel.interrupt();
    const { reply } = await cell;
    assert.deepEqual([reply.status, reply.ename], ["error", "KeyboardInterrupt"], code);
  }
  assert.equal((await run(kernel, "print('alive')")).text, "alive\n");
});

scenario("completion, inspection, history and completeness are answered", async (page) => {
  const kernel = await page.start();
  await run(kernel, "a_long_name = 1", { store_history: true });
  const completed = await kernel.requestComplete({ code: "a_long", cursor_pos: 6 });
  assert.ok(completed.content.matches.includes("a_long_name"));
  const inspected = await kernel.requestInspect({ code: "a_long_name", cursor_pos: 3, detail_level: 0 });
  assert.ok(inspected.content.found);
  assert.equal((await kernel.requestIsComplete({ code: "if 1:" })).content.status, "incomplete");
  const options = { output: false, raw: true, hist_access_type: "range", session: 0, start: 0, stop: 10 };
  const history = (await kernel.requestHistory(options)).content;
  assert.equal(history.status, "ok");
  assert.ok(history.history.some(([, , source]) => source === "a_long_name = 1"));
  assert.equal((await kernel.requestCommInfo({})).content.status, "ok");
});

// --- comms, which widgets are made of

scenario("a comm opened here is answered there, with its buffers", async (page) => {
  const kernel = await page.start();
  await run(
    kernel,
    `import comm
def echo(opened, message):
    opened.send({"opened": message["content"]["data"]})
    opened.on_msg(lambda m: opened.send({"got": m["content"]["data"]}, buffers=[bytes(b)[::-1] for b in m["buffers"]]))
comm.get_comm_manager().register_target("echo", echo)`,
  );
  const heard = [];
  const enough = promised();
  const there = kernel.createComm("echo");
  there.onMsg = (message) => {
    heard.push([message.content.data, message.buffers.map((buffer) => [...new Uint8Array(buffer.buffer ?? buffer)])]);
    if (heard.length === 2) enough.keep();
  };
  await there.open({ n: 1 }).done;
  there.send({ n: 2 }, undefined, [new Uint8Array([1, 2, 3]).buffer, new Uint8Array([4]).buffer]);
  await enough;
  assert.deepEqual(heard, [[{ opened: { n: 1 } }, []], [{ got: { n: 2 } }, [[3, 2, 1], [4]]]]);
  const info = await kernel.requestCommInfo({ target_name: "echo" });
  assert.deepEqual(Object.keys(info.content.comms), [there.commId]);
});

scenario("a comm opened by a cell arrives, talks while a cell runs, and closes", async (page) => {
  const kernel = await page.start();
  const events = [];
  const closed = promised();
  kernel.registerCommTarget("page", (opened, message) => {
    events.push(["open", message.content.data]);
    opened.onMsg = (m) => void events.push(["message", m.content.data]);
    opened.onClose = () => (events.push(["close"]), closed.keep());
  });
  await run(kernel, `import comm\nc = comm.create_comm(target_name="page", data=1)\nc.send(2)\nc.close()`);
  await closed;
  assert.deepEqual(events, [["open", 1], ["message", 2], ["close"]]);
});

// --- connections that break, and pages that come and go

scenario("a socket that is cut in a cell loses and doubles no line", async (page) => {
  const kernel = await page.start();
  const { text, reply } = await run(kernel, counting(20, 0.2), {
    seen: atLines(["5", "10", "15"], () => confirmed(page).then((socket) => socket.terminate())),
  });
  assert.equal(page.sockets.length, 4);
  assert.equal(text, counted(20));
  assert.equal(reply.status, "ok");
});

scenario("a network that swallows what was under way loses and doubles no line", async () => {
  const network = new Network();
  const page = new Page(await network.open());
  const kernel = await page.start();
  const { text, reply } = await run(kernel, counting(20, 0.2), {
    seen: atLines(["5"], () => confirmed(page).then(() => network.fail(500))),
  });
  assert.equal(page.sockets.length, 2);
  assert.equal(text, counted(20));
  assert.equal(reply.status, "ok");
});

scenario("a cell that ends while nobody is connected is seen to its end by who comes back", async () => {
  const network = new Network();
  const page = new Page(await network.open());
  const kernel = await page.start();
  const begun = promised();
  const cell = run(kernel, "print('begun', flush=True); import time; time.sleep(0.5)\n" + counting(5, 0.1), { seen: begunBy(begun) });
  await begun;
  await confirmed(page);
  network.swallow(); // until the cell has ended, as the kernel's model tells
  const other = new Page();
  while ((await other.kernels.findById(kernel.id)).execution_state !== "idle") await other.kernels.refreshRunning();
  network.cut();
  const { text, reply } = await cell;
  assert.deepEqual([text, reply.status], ["begun\n" + counted(5), "ok"]);
});

scenario("two pages see the same of one kernel, and of each other", async (page) => {
  const kernel = await page.start();
  const other = new Page().connect(kernel.model);
  await other.info;
  const seen = [];
  other.iopubMessage.connect((_, message) => seen.push(message));
  const ended = until(other.iopubMessage, (m) => m.content.execution_state === "idle" && m.parent_header.msg_type === "execute_request");
  const { messages } = await run(kernel, counting(20, 0));
  await ended;
  const ids = (of) => of.filter((m) => m.parent_header.msg_type === "execute_request").map((m) => m.header.msg_id);
  assert.deepEqual(ids(seen), ids(messages));
  await run(other, "x = 'from the other'");
  assert.equal((await run(kernel, "print(x)")).text, "from the other\n");
});

scenario("a page loaded in the middle of a cell sees its lines from the first", async (page) => {
  const kernel = await page.start();
  const begun = promised();
  const cell = run(kernel, counting(30, 0.02), { seen: atLines(["9"], () => begun.keep()) });
  await begun;
  const other = new Page().connect(kernel.model);
  const seen = [];
  other.iopubMessage.connect((_, message) => seen.push(message));
  const ended = until(other.iopubMessage, (m) => m.content.execution_state === "idle" && m.parent_header.msg_type === "execute_request");
  assert.equal((await cell).text, counted(30));
  await ended;
  assert.equal(textOf(seen), counted(30));
});

// --- restarts and deaths

scenario("a restart gives a fresh kernel of the same id, and is not taken for a death", async (page) => {
  const kernel = await page.start();
  await run(kernel, "x = 1");
  const { id } = kernel;
  const settled = promised();
  const begun = promised();
  run(kernel, "print(1, flush=True)\nimport time; time.sleep(60)", { seen: begunBy(begun) }).then(
    (done) => settled.keep(done.reply.status),
    (error) => settled.keep(error.message),
  );
  await begun;
  kernel.statuses.length = 0;
  await kernel.restart();
  assert.match(await settled, /error|aborted|Canceled/);
  assert.equal((await run(kernel, "x")).reply.ename, "NameError");
  assert.equal(kernel.id, id);
  if (kernel.status !== "idle") await until(kernel.statusChanged, (status) => status === "idle");
  assert.equal(kernel.statuses[0], "restarting");
  assert.equal(kernel.statuses.at(-1), "idle");
  assert.ok(!kernel.statuses.includes("autorestarting") && !kernel.statuses.includes("dead"), kernel.statuses);
});

scenario("a kernel that dies ends its cell, says what was printed before, and is replaced", async (page) => {
  const kernel = await page.start();
  const { id } = kernel;
  const back = until(kernel.statusChanged, (status) => status === "autorestarting");
  const { reply, text, messages } = await run(kernel, "print('before', flush=True)\nimport os; os._exit(3)");
  assert.equal(reply.status, "error");
  assert.equal(text, "before\n");
  assert.equal(only(messages, "error").length, 1);
  await back;
  assert.equal((await run(kernel, "print('after')")).text, "after\n");
  assert.equal(kernel.id, id);
});

scenario("cells that wait behind a death are settled", async (page) => {
  const kernel = await page.start();
  const codes = ["import os; os.kill(os.getpid(), 9)", "1", "2"];
  const back = until(kernel.statusChanged, (status) => status === "autorestarting");
  const cells = codes.map((code) => run(kernel, code).then((done) => done.reply.status, (error) => error.message));
  for (const settled of await Promise.all(cells)) assert.match(settled, /error|aborted|Canceled/);
  await back;
  assert.equal((await run(kernel, "print('after')")).text, "after\n");
});

// --- a gateway that dies: of Cellgate alone, whose test says the process to kill

scenarioOfCellgate("a page goes on over the death of a gateway", async (page) => {
  const kernel = await page.start();
  await run(kernel, "x = 'kept'");
  const kill = () => process.kill(Number(process.env.GATEWAY_PID), "SIGKILL");
  const { text, reply } = await run(kernel, counting(20, 0.2), {
    seen: atLines(["5"], () => confirmed(page).then(kill)),
  });
  assert.equal(text, counted(20));
  assert.equal(reply.status, "ok");
  assert.ok(page.sockets.length > 1);
  assert.equal((await run(kernel, "print(x)")).text, "kept\n");
  assert.ok(!kernel.statuses.includes("dead") && !kernel.statuses.includes("autorestarting"), kernel.statuses);
  await kernel.shutdown();
});

// --- VS Code, which uses the same library its own way

scenario("VS Code looks around, starts a session, waits for idle, prepares it in silence, runs a cell, ends it", async (page) => {
  const specs = new KernelSpecManager({ serverSettings: page.settings });
  const sessions = new SessionManager({ serverSettings: page.settings, kernelManager: page.kernels });
  const [running] = await Promise.all([KernelAPI.listRunning(page.settings), sessions.ready, specs.refreshSpecs()]);
  assert.deepEqual(running, []);

  const options = { path: `/work/a-jvsc-${UUID.uuid4()}.ipynb`, name: `a-${UUID.uuid4()}.ipynb`, type: "notebook" };
  const session = await sessions.startNew(
    { ...options, kernel: { name: specs.specs.default } },
    { kernelConnectionOptions: { handleComms: true, commsOverSubshells: "disabled" } },
  );
  const { kernel } = session;
  assert.deepEqual([session.path, session.name], [options.path, options.name]);
  if (kernel.status !== "idle") await until(session.statusChanged, (status) => status === "idle");
  await kernel.info;

  const silent = { silent: false, stop_on_error: false, allow_stdin: true, store_history: false };
  const prepared = await run(kernel, "import os as _VSCODE_os\n_VSCODE_os.getcwd()\ndel _VSCODE_os", silent);
  assert.equal(prepared.reply.status, "ok");
  const metadata = { cellId: "vscode-notebook-cell:/work/a.ipynb#W0sZmlsZQ==" };
  const cell = kernel.requestExecute({ code: "print('out')", ...silent, store_history: true }, false, metadata);
  const printed = [];
  cell.onIOPub = (message) => printed.push(message);
  const reply = await cell.done;
  assert.deepEqual([reply.content.status, reply.content.execution_count, textOf(printed)], ["ok", 1, "out\n"]);
  assert.deepEqual(printed.at(-1).parent_header.msg_id, cell.msg.header.msg_id);

  await session.shutdown();
  assert.deepEqual(await KernelAPI.listRunning(page.settings), []);
});

// --- play the one that was asked for

(async () => {
  console.debug = () => {};
  const play = scenarios.get(wanted);
  if (!play) throw new Error(`no scenario is called ${JSON.stringify(wanted)}`);
  await play(new Page());
})().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
