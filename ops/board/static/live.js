// The connection: server-sent events by section, and what to say when they stop coming.

const SECTIONS = ["table", "status", "figures", "lanes", "chart", "groups", "failures", "letters"];
// The board sends a beat every five seconds; without any for this long the connection is dead, whatever it looks like.
const SILENCE = 12_000;
const AGAIN = 1_500;

export function follow(take, cutOff) {
  let source;
  let watchdog;

  function heard() {
    clearTimeout(watchdog);
    watchdog = setTimeout(reconnect, SILENCE);
  }

  function reconnect() {
    clearTimeout(watchdog);
    source?.close();
    cutOff();
    watchdog = setTimeout(connect, AGAIN);
  }

  function connect() {
    source = new EventSource("/events");
    for (const section of SECTIONS) {
      source.addEventListener(section, (event) => {
        heard();
        take(section, JSON.parse(event.data));
      });
    }
    source.addEventListener("beat", heard);
    source.addEventListener("error", reconnect);
    heard();
  }

  connect();
}
