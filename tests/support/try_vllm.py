"""Two real engines and `llumnix up` in front of them, until Ctrl-C. scripts/try_vllm.sh prepares and calls it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import uuid

from real_vllm import END_WITH_PARENT, MODEL, RealVllm, close_engines, end_in_order, start_engines

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("LLUMNIX") or str(ROOT / "build" / "release" / "llumnix")
COMPLETION = {
    "model": MODEL, "prompt": "Hi", "max_tokens": 8, "temperature": 0, "stream": True, "return_token_ids": True}


def say(text):
    print(text, flush=True)


class Gateway:
    def __init__(self, engines, options):
        urls = ",".join(each.url for each in engines)
        self.process = subprocess.Popen(
            [*END_WITH_PARENT, PROGRAM, "up", "--json", "--engine", urls, *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)

    def events(self):
        for line in self.process.stdout:
            yield json.loads(line)

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def watch(engines, home, mark, ending):
    """Starts an engine again that has ended."""
    for number in range(len(engines)):
        each = engines[number]
        if each.process.poll() is not None and not ending.is_set():
            say(f"engine-{number} (pid {each.process.pid}) is down; it is started again, which takes minutes")
            each.kill()  # what may be left of it
            engines[number] = RealVllm(home, f"engine-{number}", mark, each.port)
            say(f"  engine-{number}   pid {engines[number].process.pid}")


def tell_what_to_do(ready, engines):
    admin = "" if ready["admin"].endswith("127.0.0.1:8090") else " --admin " + ready["admin"].removeprefix("http://")
    say(f"""
  OpenAI API   {ready["http"]}   model {MODEL}
  operators    {ready["admin"]}

A streamed completion, with its token ids (the model is random, its text is no language):
  curl -N {ready["http"]}/v1/completions -H 'content-type: application/json' \\
    -d '{json.dumps(COMPLETION)}'

See more, in another terminal:
  {PROGRAM} status{admin}
  {PROGRAM} why REQUEST{admin}
  scripts/test_vllm.sh --engines {",".join(each.url for each in engines)}
  kill -9 -- -{engines[0].process.pid}     an engine dies with all its processes; its streams go on at the other

Ctrl-C stops the gateway and the engines""")


def serve(engines, home, mark, options):
    gateway, ending = Gateway(engines, options), threading.Event()

    def look_after():
        while not ending.wait(1):
            watch(engines, home, mark, ending)

    watcher = threading.Thread(target=look_after)
    try:
        for event in gateway.events():
            if event["event"] == "ready":
                tell_what_to_do(event, engines)
                watcher.start()
            elif event["event"] in ("node_down", "node_restarted"):
                say(f"{event['node']}: {event['event'].removeprefix('node_')}")
        return gateway.process.wait()
    finally:
        ending.set()
        if watcher.ident:
            watcher.join()
        say("Stopping")
        gateway.close()


def main(home, *options):
    end_in_order()
    mark, engines = uuid.uuid4().hex, []
    say("Starting two engines; two to five minutes, most of them for Python to import them")
    try:
        engines = start_engines(home, 2, mark, say)
        return serve(engines, home, mark, options)
    except KeyboardInterrupt:
        return 0
    except RuntimeError as failure:
        say(f"try_vllm: {failure}")
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        close_engines(engines)
        say("Stopped")


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), *sys.argv[2:]))
