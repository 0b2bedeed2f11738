// An HTTP session (base address, default headers, default timeout) over k6's own client, with the interface of the httpx
// library that scripts import from the web. Each call returns what http.asyncRequest returns.
//
// GALO_PORT_MAP ("9999=18200,8001=18202") sends a script whose addresses are written into it to other ports, so that
// it can run unmodified beside a Galo that already has the usual ones.

import http from "k6/http";

const portMap = new Map((__ENV.GALO_PORT_MAP || "").split(",").filter(Boolean).map((pair) => pair.split("=")));

export class Httpx {
  constructor({ baseURL = "", headers = {}, timeout = 60000, tags = {} } = {}) {
    this.baseURL = baseURL.replace(/:(\d+)(?=\/|$)/, (whole, port) => (portMap.has(port) ? `:${portMap.get(port)}` : whole));
    this.headers = headers;
    this.timeout = timeout;
    this.tags = tags;
  }

  asyncRequest(method, path, body = null, params = {}) {
    return http.asyncRequest(method, this.baseURL + path, body, {
      timeout: this.timeout,
      ...params,
      headers: { ...this.headers, ...params.headers },
      tags: { ...this.tags, ...params.tags },
    });
  }

  asyncGet(path, body, params) {
    return this.asyncRequest("GET", path, body, params);
  }

  asyncPost(path, body, params) {
    return this.asyncRequest("POST", path, body, params);
  }

  asyncPut(path, body, params) {
    return this.asyncRequest("PUT", path, body, params);
  }

  asyncPatch(path, body, params) {
    return this.asyncRequest("PATCH", path, body, params);
  }

  asyncDelete(path, body, params) {
    return this.asyncRequest("DELETE", path, body, params);
  }
}
