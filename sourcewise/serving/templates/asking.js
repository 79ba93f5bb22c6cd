// asking.ask and asking.events: a route of the server this page is from, and the events of a stream.
const asking = (() => {
  const TOKEN = "sourcewise token";

  class Refused extends Error {
    constructor(status, message) {
      super(message);
      this.status = status;
    }
  }

  // The answer of a route; what it refuses is an error with the server's own line.
  async function ask(path, { body, type, signal } = {}) {
    const headers = type ? { "Content-Type": type } : {};
    const token = sessionStorage.getItem(TOKEN); // as UTF-8, one character per byte
    if (token) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}`;
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The server does not answer: is sourcewise serve still running?");
    }
    if (answer.ok) return answer;
    const refusal = await answer.json().catch(() => ({ error: `${path}: ${answer.status} ${answer.statusText}` }));
    throw new Refused(answer.status, refusal.error);
  }

  // The events of a stream: {name, data}.
  async function* events(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let left = "", part = await reader.read(); !part.done; part = await reader.read()) {
      const blocks = (left + part.value).split("\n\n");
      left = blocks.pop();
      for (const block of blocks) {
        const field = name => block.split("\n").find(line => line.startsWith(`${name}: `))?.slice(name.length + 2);
        yield { name: field("event") ?? "", data: JSON.parse(field("data")) };
      }
    }
  }

  const hasToken = () => sessionStorage.getItem(TOKEN) !== null;
  const keepToken = token => sessionStorage.setItem(TOKEN, token); // until the tab is closed
  return { ask, events, hasToken, keepToken, Refused };
})();
