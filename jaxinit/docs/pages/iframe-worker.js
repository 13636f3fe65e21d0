// A page that is opened from the disk may not start a worker. There the search runs in a
// frame: messages go between the page and the frame as they would to a worker and back.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc =
        "<script>" +
        "window.importScripts = (...urls) => Promise.all(urls.map(url => new Promise((done, failed) => {" +
        "  const script = document.createElement('script');" +
        "  Object.assign(script, { src: url, onload: done, onerror: failed });" +
        "  document.head.append(script) })));" +
        "window.postMessage = message => parent.postMessage(message, '*')" +
        "</script><script src='" + url + "'></script>"
      frame.onload = () => {
        this.frame = frame.contentWindow
        this.waiting.splice(0).forEach(message => this.postMessage(message))
      }
      window.addEventListener("message", event => {
        if (event.source !== frame.contentWindow) return
        const answer = new MessageEvent("message", { data: event.data })
        this.dispatchEvent(answer)
        this.onmessage?.(answer)
      })
      document.body.append(frame)
    }
    postMessage(message) {
      if (this.frame) this.frame.dispatchEvent(new MessageEvent("message", { data: message }))
      else this.waiting.push(message)
    }
    terminate() {
      this.frame = null
    }
  }
}
