// One session's websocket: comes back by itself, goes on behind the last event it saw, and sends again what the server
// has not taken. Whoever owns it owes a `close`.

const PAUSES = [0.05, 0.2, 0.5, 1, 2, 4, 8]; // seconds before each further attempt
const PING_MS = 10_000; // between two looks whether the line still carries anything
const PONG_MS = 5_000; // until a line without an answer counts as dead: a machine that slept, a network that went
const GONE = 4001; // the session is over
const REPLACED = 4002; // somebody came under the same name: a tab that was duplicated
const FUTURE = 4009;

export class SessionSocket {
  constructor(sessionId, { since = 0, role = "driver", client, token = "", onEvent, onStatus }) {
    this.sessionId = sessionId;
    this.role = role;
    this.client = client;
    this.token = token; // of who has no cookie
    this.seq = since;
    this.onEvent = onEvent;
    this.onStatus = onStatus;
    this.requests = new Map(); // id -> [resolve, reject]
    this.unaccepted = new Map(); // cell -> execute request
    this.failures = 0;
    this.number = 0;
    this.isClosed = false;
    this.isOpen = false;
    this.#open();
    this.heart = setInterval(() => this.#ping(), PING_MS);
    this.wake = () => document.visibilityState === "visible" && (this.isOpen ? this.#ping() : this.#hurry());
    addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
    clearInterval(this.heart);
    removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    this.socket?.close(1000);
  }

  // Accepted once, however often the connection breaks: the id is the cell's.
  execute(request) {
    this.unaccepted.set(request.id, request);
    this.#send({ op: "execute", ...request });
  }

  // The reply; rejects when the connection breaks first, or with what the server refuses.
  ask(op, fields = {}) {
    const id = `r${(this.number += 1)}`;
    return new Promise((resolve, reject) => {
      if (!this.isOpen) return reject(new Error("not connected"));
      this.requests.set(id, [resolve, reject]);
      this.#send({ op, id, ...fields });
    });
  }

  tell(op, fields = {}) {
    this.#send({ op, ...fields });
  }

  #send(message) {
    if (this.isOpen) this.socket.send(JSON.stringify(message));
  }

  #open() {
    const place = new URL(`v1/sessions/${this.sessionId}/ws`, document.baseURI);
    place.protocol = place.protocol.replace("http", "ws");
    place.search = new URLSearchParams({ client: this.client, since: this.seq, role: this.role, ...(this.token && { token: this.token }) });
    this.onStatus("connecting");
    const socket = (this.socket = new WebSocket(place, "cellgate.v1.json"));
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    socket.onclose = ({ code }) => this.#ended(socket, code);
  }

  #take(event) {
    if (event.event === "attached") {
      this.isOpen = true;
      this.failures = 0;
    } else if (event.event === "caught_up") {
      for (const request of this.unaccepted.values()) this.#send({ op: "execute", ...request });
      this.onStatus("open");
      this.onEvent(event);
      return;
    } else if (event.event === "reply" || (event.event === "error" && event.re !== undefined)) {
      this.#answer(event);
      return;
    }
    if (event.seq) {
      if (event.seq <= this.seq) return;
      this.seq = event.seq;
      if (event.event === "accepted") this.unaccepted.delete(event.cell);
    }
    this.onEvent(event);
  }

  #answer(event) {
    const [resolve, reject] = this.requests.get(event.re) ?? [];
    this.requests.delete(event.re);
    if (event.event === "reply") return resolve?.(event);
    if (this.unaccepted.delete(event.re)) this.onEvent({ ...event, event: "refused", cell: event.re });
    reject?.(Object.assign(new Error(event.message), { code: event.code, facts: event.facts }));
  }

  #ended(socket, code) {
    if (socket !== this.socket) return;
    this.isOpen = false;
    for (const [, reject] of this.requests.values()) reject(new Error("the connection broke"));
    this.requests.clear();
    if (this.isClosed) return;
    if (code === GONE) {
      this.close();
      this.onStatus("gone");
      return;
    }
    if (code === REPLACED) this.client += `-${Math.random().toString(36).slice(2, 6)}`;
    if (code === FUTURE) this.seq = 0; // a journal that forgot the last of what it said
    this.onStatus("waiting");
    const pause = PAUSES[Math.min(this.failures, PAUSES.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.#open(), pause * 1000);
  }

  // Asks for what changes nothing and is answered at once, be it by a refusal.
  #ping() {
    if (!this.isOpen) return;
    const { socket } = this;
    const dead = setTimeout(() => {
      socket.onmessage = socket.onclose = null;
      socket.close();
      this.#ended(socket, 1006);
    }, PONG_MS);
    this.ask("cancel", { cell: "ping" }).catch(() => null).finally(() => clearTimeout(dead));
  }

  #hurry() {
    if (this.isOpen || this.isClosed || this.socket.readyState === WebSocket.CONNECTING) return;
    clearTimeout(this.timer);
    this.failures = 0;
    this.#open();
  }
}
