// The gateway, asked from the page it serves: JSON, and streams of server-sent events. Addresses are relative, so any prefix works.

let key = "";

/** The API key for what is asked from now on; it is kept nowhere else. */
export function useKey(text) {
  key = text.trim();
}

export class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the gateway answered ${status}`);
    this.status = status;
    this.note = body?.charter ?? null;
  }
}

async function ask(path, { body, headers = {}, signal } = {}) {
  const response = await fetch(path, {
    method: body ? "POST" : "GET",
    headers: {
      ...(body ? { "content-type": "application/json" } : {}),
      ...(key ? { authorization: `Bearer ${key}` } : {}),
      ...headers,
    },
    body: body && JSON.stringify(body),
    signal,
    credentials: "omit",
    redirect: "error",
  });
  if (!response.ok) throw new Refused(response.status, await response.json().catch(() => null));
  return response;
}

export async function json(path) {
  return (await ask(path)).json();
}

/** The data of a stream's events, parsed; `[DONE]` ends it. */
export async function* events(path, options = {}) {
  const response = await ask(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
