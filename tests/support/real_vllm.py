"""A real vLLM on the CPU, as scripts/try_vllm.sh installs it, serving the tiny model."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

MARK = "LLUMNIX_TEST_RUN"  # as in tests/integration/cluster.py
MODEL = "tiny"
CONTEXT_TOKENS = 4096
START_S = 900  # 110 s on an idle machine, four minutes on a busy one
END_S = 15
END_WITH_PARENT = ["setpriv", "--pdeathsig", "TERM"]  # nothing outlives a starter that was killed
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two engines are not to sit on the same cores
    "OMP_NUM_THREADS": "1",  # the same sums in the same order
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONHASHSEED": "0"}
OPTIONS = ["--served-model-name", MODEL, "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager",
           "--max-model-len", str(CONTEXT_TOKENS), "--block-size", "32", "--max-num-seqs", "32", "--enable-scale-out"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class RealVllm:
    """Three processes that end together: in a group of their own, all carrying `mark`."""

    def __init__(self, home, name, mark, port=None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / f"{name}-{self.port}.log"
        # Sockets between the processes, which a killed engine leaves behind. Not in `home`: paths of sockets are short.
        self.scratch = tempfile.TemporaryDirectory(prefix="llumnix-vllm-")
        environment = {**os.environ, **SETTINGS, MARK: mark, "TMPDIR": self.scratch.name,
                       "VLLM_CACHE_ROOT": str(home / "cache"), "HF_HOME": str(home / "cache")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*END_WITH_PARENT, home / "venv/bin/python", "-m", "vllm.entrypoints.openai.api_server",
                 "--model", home / "model", "--port", str(self.port), *OPTIONS],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)

    @property
    def id(self):
        """As the gateway calls it."""
        return self.url.removeprefix("http://")

    def is_ready(self):
        """Raises RuntimeError for one that has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"an engine ended with {self.process.returncode}; the end of {self.log}:\n{self.tail()}")
        return answers(self.url)

    def tail(self, lines=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def warm_up(self):
        """The first request takes up to half a minute, for what is imported late."""
        post(self.url, "/v1/chat/completions", {
            "model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}, seconds=180)

    def kill(self):
        """As a power cut: every process of it, at once."""
        signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.scratch.cleanup()



def end_in_order():
    """SIGTERM and SIGINT, also an ignored one, raise KeyboardInterrupt: what was started is ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def close_engines(engines):
    """In order if they end soon, else at once; no process of them is left."""
    for each in engines:
        signal_group(each.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    for each in engines:
        try:
            each.process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        each.kill()


def signal_group(group, number):
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def answers(url):
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def post(url, path, body, seconds=60, headers=()):
    """Status and JSON document of a whole reply."""
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"content-type": "application/json", **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def metric(url, name):
    """The sum over the labels of a Prometheus metric."""
    with urllib.request.urlopen(url + "/metrics", timeout=30) as reply:
        page = reply.read().decode()
    found = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
    if not found:
        raise KeyError(name)
    return sum(map(float, found))


def start_engines(home, count, mark, say=print, ports=()):
    """Engines that are ready and warm. What was started is ended again if one fails."""
    started = time.monotonic()
    engines = []
    try:
        for number in range(count):
            engines.append(RealVllm(home, f"engine-{number}", mark, ports[number] if ports else None))
            say(f"  engine-{number}   pid {engines[-1].process.pid:<8} {engines[-1].url}   log {engines[-1].log}")
        waiting, told = list(engines), started
        while waiting:
            waiting = [each for each in waiting if not each.is_ready()]
            if time.monotonic() - started > START_S:
                raise RuntimeError(f"not ready within {START_S} s; the end of {waiting[0].log}:\n{waiting[0].tail()}")
            if time.monotonic() - told >= 30:
                told = time.monotonic()
                say(f"  ... {count - len(waiting)} of {count} ready after {told - started:.0f} s")
            time.sleep(0.5)
        for each in engines:
            each.warm_up()
    except BaseException:
        close_engines(engines)
        raise
    say(f"Ready after {time.monotonic() - started:.0f} s")
    return engines
