// The server's REST, as far as the pages use it. Errors carry the server's own sentence.
//
// Whoever comes by a link to watch a session has its token behind the `#`. It leaves the address at once, lives as long as
// the tab, and takes the place of the cookie.

export const isShared = location.pathname.endsWith("/watch");
if (isShared && location.hash.length > 1) {
  sessionStorage.share = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
export const shareToken = isShared ? (sessionStorage.share ?? "") : "";
export const sharedSession = shareToken.split(".")[1];

const at = (path) => new URL(path, document.baseURI);

class ApiError extends Error {
  constructor(status, { code, message, facts } = {}) {
    super(message ?? `the server answered ${status}`);
    Object.assign(this, { status, code, facts });
  }
}

export async function ask(method, path, body, headers = {}) {
  const init = { method, headers: { ...headers }, credentials: isShared ? "omit" : "same-origin" };
  if (isShared) init.headers.Authorization = `token ${shareToken}`;
  if (body !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = body instanceof Blob ? body : JSON.stringify(body);
  }
  const response = await fetch(at(path), init);
  if (response.status === 401 && !isShared) location.assign(at(`login?next=${encodeURIComponent(location.pathname + location.search)}`));
  if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => ({})));
  return response;
}

export const json = async (...request) => (await ask(...request)).json();

export const sessions = {
  list: () => json("GET", "v1/sessions"),
  get: (id) => json("GET", `v1/sessions/${id}`),
  create: (wish) => json("POST", "v1/sessions", wish),
  change: (id, change) => json("PATCH", `v1/sessions/${id}`, change),
  end: (id) => ask("DELETE", `v1/sessions/${id}`),
  share: (id) => json("POST", `v1/sessions/${id}/share`, {}),
};

export const languages = () => json("GET", "v1/languages");
export const profiles = () => json("GET", "v1/profiles");
export const validate = (code, language, policy = {}) => json("POST", "v1/validate", { code, language, policy });

const fileUrl = (id, path) => `v1/sessions/${id}/files/${path.split("/").map(encodeURIComponent).join("/")}`;

export const files = {
  list: (id, path) => json("GET", `v1/sessions/${id}/files?${new URLSearchParams(path ? { path } : {})}`),
  url: (id, path) => at(fileUrl(id, path)).href,
  blob: async (id, path) => (await ask("GET", fileUrl(id, path))).blob(),
  remove: (id, path) => ask("DELETE", fileUrl(id, path)),
  // fetch cannot tell how far an upload has come.
  put: (id, path, file, onProgress) => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", at(fileUrl(id, path)));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    request.onload = () => {
      if (request.status < 300) return resolve();
      let problem = {};
      try {
        problem = JSON.parse(request.responseText);
      } catch { /* no JSON: the status says it */ }
      reject(new ApiError(request.status, problem));
    };
    request.onerror = () => reject(new Error("the connection broke"));
    request.send(file);
  }),
};
