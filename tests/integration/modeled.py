"""The arithmetic of a modeled engine, for tests: what a client must receive.

Worked out from the specification alone; shares nothing with the engine or with `llumnix load`.
"""

BOS, EOS, BROKEN, SYSTEM, USER, ASSISTANT, TOOL, END = range(256, 264)
ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL}
FIRST_WORD = 512
MASK = (1 << 64) - 1


def mix(z):
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def step(digest, token):
    return mix(digest ^ mix(token))


def digest_of(ids):
    digest = 0
    for token in ids:
        digest = step(digest, token)
    return digest


def chat_ids(messages):
    ids = [BOS]
    for message in messages:
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(part["text"] for part in content)
        ids += [ROLES[message["role"]], *content.encode(), END]
    return ids + [ASSISTANT]


def prompt_ids(prompt):
    return list(prompt.encode()) if isinstance(prompt, str) else list(prompt)


def word(token):
    """The text of one id."""
    if token < 256:
        return bytes([token]).decode("utf-8", "replace")
    if token == BROKEN:
        return "⟂"
    if token < FIRST_WORD:
        return ""
    first, last = divmod(token - FIRST_WORD, 16)
    return " " + "bdfgklmn"[first // 4] + "aeio"[first % 4] + "rstv"[last // 4] + "aeiu"[last % 4]


class Output:
    """One choice: `ids`, `text`, `finish_reason`, and `logprob`s of each token with its alternatives."""

    def __init__(self, ids, max_tokens, choice=0, seed=None, min_tokens=0, ignore_eos=False, stop=()):
        key = (mix(choice) if choice else 0) if seed is None else mix((seed & MASK) ^ mix(choice))
        digest, position = digest_of(ids), len(ids)
        self.ids, self.pieces, self.logprobs, self.alternatives = [], [], [], []
        self.text, self.finish_reason = "", "length"
        while len(self.ids) < max_tokens:
            value = mix(digest ^ mix((key + position) & MASK))
            ends = value % 256 == 0 and not ignore_eos and len(self.ids) >= min_tokens
            token = EOS if ends else FIRST_WORD + (value >> 8) % 512
            digest, position = step(digest, token), position + 1
            logprob = -((value >> 32) & 1023) / 256
            self.ids.append(token)
            self.pieces.append(word(token))
            self.logprobs.append(logprob)
            self.alternatives.append(
                [(FIRST_WORD + ((value >> 8) + j) % 512, logprob - 0.5 * j) for j in range(1, 21)])
            self.text += word(token)
            if ends:
                self.finish_reason = "stop"
                break
            found = [self.text.find(s) for s in stop if s in self.text]
            if found:
                self.text, self.finish_reason = self.text[:min(found)], "stop"
                break


def chat(content, max_tokens, **how):
    """The answer to one user message."""
    return Output(chat_ids([{"role": "user", "content": content}]), max_tokens, **how)


def completion(prompt, max_tokens, **how):
    return Output(prompt_ids(prompt), max_tokens, **how)
