"""The chunk keys of a prompt: scheduling.md 8.1."""

import hashlib

from scene_form import SceneError

MASK64 = (1 << 64) - 1


def cbor_head(major, n):
    for size, extra in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if n < 24:
            return bytes([major << 5 | n])
        if n < 1 << 8 * size:
            return bytes([major << 5 | extra]) + n.to_bytes(size, "big")
    raise ValueError(n)


class Xxh64:
    """XXH64 with seed 0, fed with whole 64-bit words; a digest may be taken at any time."""

    P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

    def __init__(self):
        self.lanes = [(self.P1 + self.P2) & MASK64, self.P2, 0, -self.P1 & MASK64]
        self.rest, self.length = [], 0

    @staticmethod
    def rotated(x, by):
        return (x << by | x >> 64 - by) & MASK64

    def round(self, lane, word):
        return self.rotated((lane + word * self.P2) & MASK64, 31) * self.P1 & MASK64

    def feed(self, word):
        self.length += 8
        self.rest.append(word & MASK64)
        if len(self.rest) == 4:
            self.lanes = [self.round(lane, w) for lane, w in zip(self.lanes, self.rest)]
            self.rest = []

    def digest(self):
        h = self.P5
        if self.length >= 32:
            h = sum(self.rotated(lane, by) for lane, by in zip(self.lanes, (1, 7, 12, 18))) & MASK64
            for lane in self.lanes:
                h = ((h ^ self.round(0, lane)) * self.P1 + self.P4) & MASK64
        h = (h + self.length) & MASK64
        for word in self.rest:
            h = (self.rotated(h ^ self.round(0, word), 27) * self.P1 + self.P4) & MASK64
        h = (h ^ h >> 33) * self.P2 & MASK64
        h = (h ^ h >> 29) * self.P3 & MASK64
        return h ^ h >> 32


def chunk_keys(tokens, flags, environment):
    size = flags["kvs-chunk-size"]
    if not tokens:
        raise SceneError("request.prompt_token_ids", "empty")
    if size <= 0:
        raise SceneError("config.flags.kvs-chunk-size", "not positive")
    full = len(tokens) // size
    chunks = [tokens[k * size:(k + 1) * size] for k in range(full)]
    tail = tokens[full * size:] if flags["kvs-enable-save-unfull-chunk"] else []
    if tail:
        chunks.append(tail)
    keys, algorithm = [], flags["kvs-hash-algo"]
    if algorithm == "sha256_cbor":
        seed = (environment.get("GO_HASH_SEED") or "0").encode()
        digest = hashlib.sha256(cbor_head(3, len(seed)) + seed).digest()
        for chunk in chunks:
            image = (cbor_head(4, 3) + cbor_head(2, 32) + digest + cbor_head(4, len(chunk))
                     + b"".join(cbor_head(0, token) for token in chunk) + b"\xf6")
            digest = hashlib.sha256(image).digest()
            keys.append(digest.hex() + "_0")
    elif algorithm == "sha256_hex":
        digest = b""
        for index, chunk in enumerate(chunks):
            digest = hashlib.sha256(digest + b"".join(token.to_bytes(4, "little") for token in chunk)).digest()
            keys.append(digest.hex() + ("_0" if index == full else ""))
    else:
        state = Xxh64()
        for chunk in chunks:
            for token in chunk + [0] * (size - len(chunk)):
                state.feed(token)
            keys.append(f"{flags['kvs-iris-meta-prefix']}{flags['kvs-vllm-block-prefix']}{state.digest()}")
    return keys
