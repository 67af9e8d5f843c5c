// Search in pages that are opened from a folder. Browsers start no worker for a file: address, so that the search runs
// in a hidden frame of the page. MkDocs Material's `offline` plugin looks for a script of this name.
"use strict";
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = async (...scripts) => { for (const each of scripts) await this.load(inner, each); };
      this.loaded = this.load(inner, address);
      this.inner = inner;
    }
    load(inner, address) {
      return new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        Object.assign(script, { src: String(address), onload: done, onerror: failed });
        inner.document.body.append(script);
      });
    }
    postMessage(data) {
      this.loaded.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inner.frameElement.remove();
    }
  };
}
