"""What the scripts of this folder share: the program, processes and their CPU time. Leaves nothing behind."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "release"
PROGRAM = os.environ.get("LLUMNIX") or BUILD / "llumnix"
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_us(pid):
    """CPU microseconds of a process and its children, user and system; by thread where the kernel counts finely."""
    pids, total = [pid], 0.0
    for one in pids:
        for task in pathlib.Path(f"/proc/{one}/task").iterdir():
            with contextlib.suppress(OSError):
                pids += map(int, (task / "children").read_text().split())
    for one in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) * 1e6 / TICKS
    return total


def get_json(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)


def await_true(reached, what, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if value := reached():
                return value
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def accepts(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


@contextlib.contextmanager
def running(*argv, **options):
    """A process of ours, ended with the block."""
    child = subprocess.Popen([str(x) for x in argv], **options)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def cluster(*options):
    """`llumnix up`; gives its `ready` event."""
    with running(PROGRAM, "up", "--json", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain", "1s", *options,
                 stdout=subprocess.PIPE, text=True) as child:
        ready = None
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                ready = event
                break
        if ready is None:
            raise SystemExit("llumnix up did not become ready")
        threading.Thread(target=child.stdout.read, daemon=True).start()
        yield ready
