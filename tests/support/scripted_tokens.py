"""The arithmetic of the scripted engine: text to ids and back, and which token follows which.

Nothing here knows HTTP or time, so a test works out with it what a client must receive:

    generate(encode("Hi"), 20).text
    expected("/v1/chat/completions", body)        (scripted_openai.py; from the request itself)

Ids are those of guides/vllm.md's tiny model: 0 <s>, 1 </s> (ends), 2 <pad>; then one id per UTF-8 byte, 3 + rank of
the byte in GPT-2's alphabet (printable bytes first, in order, then the others in order), so "Hi" is [42, 75]; then
259 <|system|>, 260 <|user|>, 261 <|assistant|>. Markers in a text become their ids, as a tokenizer does it.

The next token is a hash of all ids so far, prompt and output alike: a request that goes on elsewhere from its prompt
and the ids delivered gets just the tokens of the unbroken run. Exceptions, as with a real vLLM:
  seed (with temperature > 0), response_format, structured_outputs   count the tokens since the request began
  presence_penalty, frequency_penalty                                count how often each token came since then
  choice i > 0 of n                                                  differs in its first token, and so from there on
Without temperature the engine is greedy; without a seed it samples without chance: parameters that look at the whole
sequence (repetition_penalty, logit_bias, bad_words, allowed_token_ids, and with temperature > 0 also temperature,
top_p, top_k, min_p) change the tokens, so whoever loses one of them on the way is found out. With "x_chance": true it samples
as if by chance: each token hangs on where its request began, too, so whoever has one computed again gets another.
"""

import codecs
import functools
import hashlib
import re
from array import array
from collections import Counter
from dataclasses import dataclass, field

BOS, EOS, PAD, SYSTEM, USER, ASSISTANT = 0, 1, 2, 259, 260, 261
VOCABULARY = 262
MARKERS = {"<s>": BOS, "</s>": EOS, "<pad>": PAD,
           "<|system|>": SYSTEM, "<|user|>": USER, "<|assistant|>": ASSISTANT}
MARKER_OF = {token: marker for marker, token in MARKERS.items()}
_SPLIT = re.compile("(" + "|".join(map(re.escape, MARKERS)) + ")")

_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = [*_PRINTABLE, *(byte for byte in range(256) if byte not in set(_PRINTABLE))]  # by rank
BYTE_OF = {3 + rank: byte for rank, byte in enumerate(_BYTES)}
ID_OF = {byte: token for token, byte in BYTE_OF.items()}

# What the engine writes: a character's first byte is drawn from here, and its other bytes must then follow.
CHARACTERS = 2 * (" " * 9 + "eeeetttaaaooiinnsshhrrddllcumwfgypbvkETAOIN.,?") + "\"\\\n" + "éßжλ€→日本🙂🚀"
ENDS_ONE_IN = 128  # tokens
REDRAWS = 16  # when the token drawn is not allowed


class Refused(ValueError):
    """A request that the engine answers with an error. Status, and type and param of the OpenAI error."""

    def __init__(self, message, param=None, status=400, kind="BadRequestError"):
        super().__init__(message)
        self.message, self.param, self.status, self.kind = message, param, status, kind


def encode(text):
    ids = []
    for part in _SPLIT.split(text):
        if part in MARKERS:
            ids.append(MARKERS[part])
        else:
            ids += [ID_OF[byte] for byte in part.encode()]
    return ids


def decode(ids):
    """Markers and unknown ids are skipped; bytes that are no UTF-8 become U+FFFD."""
    return _bytes_of(ids).decode("utf-8", "replace")


def detokenize(ids):
    """As vLLM's /detokenize has it: markers are told, too."""
    known = (MARKER_OF[token].encode() if token in MARKER_OF else bytes([BYTE_OF[token]])
             for token in ids if token in MARKER_OF or token in BYTE_OF)
    return b"".join(known).decode("utf-8", "replace")


def _bytes_of(ids):
    return bytes(BYTE_OF[token] for token in ids if token in BYTE_OF)


def chat_text(messages, add_generation_prompt=True):
    """What the tiny model's chat template makes of a conversation."""
    text = "<s>" + "".join(f"<|{message['role']}|>{_content_text(message.get('content'))}" for message in messages)
    return text + ("<|assistant|>" if add_generation_prompt else "")


def _content_text(content):
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def chat_ids(messages, add_generation_prompt=True):
    return encode(chat_text(messages, add_generation_prompt))


# --- characters of several tokens

def _is_incomplete(prefix):
    """Whether these bytes begin a character and do not end it."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(prefix) == ""
    except UnicodeDecodeError:
        return False


def _unfinished(ids):
    """The bytes of the character that the ids end in the middle of; mostly none."""
    for count in (1, 2, 3):
        tail = ids[-count:]
        if len(tail) < count or not all(token in BYTE_OF for token in tail):
            return b""
        if _is_incomplete(_bytes_of(tail)):
            return _bytes_of(tail)
    return b""


@functools.cache
def _continuations(prefix):
    """Bytes that may follow: those of our own characters, or any valid one where the prompt began another."""
    own = {character.encode()[len(prefix)] for character in CHARACTERS
           if character.encode().startswith(prefix) and character.encode() != prefix}
    valid = sorted(own) or [byte for byte in range(0x80, 0xC0) if _may_follow(prefix, byte)]
    return valid or list(range(0x80, 0xC0))  # what the prompt began can become no character


def _may_follow(prefix, byte):
    whole = prefix + bytes([byte])
    if _is_incomplete(whole):
        return True
    try:
        return len(whole.decode()) == 1
    except UnicodeDecodeError:
        return False


class Decoder:
    """Text of a growing sequence, piece by piece, as vLLM 0.32 gets it from its tokenizer's DecodeStream.

    A piece is empty while the bytes of a character are incomplete. The stream starts knowing the prompt; and, as the
    real one does, it gives the *whole prompt* as text once it can, when that prompt ends inside a character.
    """

    def __init__(self, prompt_ids=()):
        self.ids, self.prefix, self.known = list(prompt_ids), "", 0

    def step(self, token):
        if not self.prefix and self.ids:
            text = decode(self.ids)
            if not text.endswith("\ufffd"):
                self.prefix, self.known = text, len(self.ids)
        self.ids.append(token)
        text = decode(self.ids)
        if len(text.encode()) <= len(self.prefix.encode()) or text.endswith("\ufffd"):
            return ""
        if not text.startswith(self.prefix):  # the real one raises here, and vLLM starts a new stream
            self.ids, self.prefix, self.known = [], "", 0
            return self.step(token)
        piece, added = text[len(self.prefix):], len(self.ids) - self.known
        del self.ids[:self.known]
        self.prefix, self.known = decode(self.ids), added
        return piece


# --- what a request may ask of generation

_SEQUENCE = {"repetition_penalty": 1, "logit_bias": None, "bad_words": None, "allowed_token_ids": None}
_SAMPLED = {"temperature": None, "top_p": 1, "top_k": 0, "min_p": 0}
_GRAMMARS = {"response_format": None, "structured_outputs": None}


@dataclass(frozen=True)
class Sampling:
    stop: tuple = ()
    stop_token_ids: frozenset = frozenset()
    include_stop: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    seed: int | None = None  # only where there is a temperature
    shape: tuple = ()  # parameters that look at the whole sequence
    grammar: tuple = ()  # parameters that start anew with each request
    penalties: tuple = (0, 0)  # presence, frequency
    chance: bool = False  # only where there is a temperature

    @staticmethod
    def of(options):
        """From a request's fields; raises Refused as vLLM would."""
        temperature = _number(options, "temperature", 0, 2)
        penalties = tuple(_number(options, name, -2, 2) for name in ("presence_penalty", "frequency_penalty"))
        if (options.get("response_format") or {}).get("type") == "text":
            options = {**options, "response_format": None}
        stop = options.get("stop") or []
        stop = [stop] if isinstance(stop, str) else stop
        if not all(isinstance(text, str) for text in stop):
            raise Refused("stop must be a string or a list of strings", "stop")
        if "" in stop:
            raise Refused("stop cannot contain an empty string.")
        return Sampling(
            stop=tuple(stop), stop_token_ids=frozenset(options.get("stop_token_ids") or ()),
            include_stop=bool(options.get("include_stop_str_in_output")),
            ignore_eos=bool(options.get("ignore_eos")), min_tokens=_whole(options, "min_tokens") or 0,
            seed=_whole(options, "seed") if temperature else None, penalties=penalties,
            chance=bool(temperature and options.get("x_chance")),
            shape=_given(options, _SEQUENCE) + (_given(options, _SAMPLED) if temperature else ()),
            grammar=_given(options, _GRAMMARS))


def _given(options, defaults):
    return tuple((name, repr(options[name])) for name, default in defaults.items()
                 if options.get(name) not in (None, default, [], {}))


def _number(options, name, least, most):
    value = options.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise Refused(f"{name} must be in [{least}, {most}], got {value}.", name)
    return value


def _whole(options, name):
    value = options.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise Refused(f"{name} must be an integer, got {value!r}.", name)
    return value


# --- generation

@dataclass
class Delta:
    """What one chunk says of one choice."""
    text: str = ""
    ids: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)  # beside `ids`: (text of the token, logprob)
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class Output:
    """One choice as it grows: `step()` adds a token, `take()` gives what a stream sends for what was added."""

    def __init__(self, prompt_ids, max_tokens, sampling=Sampling(), choice=0):
        self.prompt_ids, self.max_tokens, self.sampling, self.choice = list(prompt_ids), max_tokens, sampling, choice
        self.ids, self.pieces, self.logprobs, self.text = [], [], [], ""
        self.finish_reason = self.stop_reason = None
        self._hash = hashlib.blake2b(array("I", self.prompt_ids).tobytes(), digest_size=16)
        self._inside = _unfinished(self.prompt_ids)
        self._decoder = Decoder(self.prompt_ids)
        self._counts = Counter()
        self._taken_text = self._taken_ids = 0
        held = 0 if sampling.include_stop else max(map(len, sampling.stop), default=1) - 1
        self._held = held  # characters kept back while they may begin a stop string

    @property
    def finished(self):
        return self.finish_reason is not None

    def run(self):
        while not self.finished:
            self.step()
        return self

    def step(self):
        token, logprob = self._draw()
        self.logprobs.append((self._token_text(token), logprob))
        self.ids.append(token)
        self._counts[token] += 1
        self._hash.update(array("I", [token]).tobytes())
        self._inside = _unfinished([*map(ID_OF.get, self._inside), token])
        ends = token == EOS and not self.sampling.ignore_eos or token in self.sampling.stop_token_ids
        piece = "" if ends and not self.sampling.include_stop else self._decoder.step(token)
        before, self.text = len(self.text), self.text + piece
        self.pieces.append(piece)
        if ends:
            self.finish_reason, self.stop_reason = "stop", None if token == EOS else token
        elif len(self.ids) >= self.max_tokens:
            self.finish_reason = "length"
        if len(self.ids) > self.sampling.min_tokens:
            self._stop_at_string(before)

    def abort(self):
        if not self.finished:
            self.finish_reason = "abort"

    def take(self):
        end = len(self.text) if self.finished else max(self._taken_text, len(self.text) - self._held)
        delta = Delta(self.text[self._taken_text:end], self.ids[self._taken_ids:], self.logprobs[self._taken_ids:],
                      self.finish_reason, self.stop_reason)
        self._taken_text, self._taken_ids = end, len(self.ids)
        return delta

    def whole(self):
        return Delta(self.text, self.ids, self.logprobs, self.finish_reason, self.stop_reason)

    def _stop_at_string(self, before):
        """Ends at the stop string completed first in the text from `before` on."""
        found = []
        for stop in self.sampling.stop:
            at = self.text.find(stop, max(0, before - len(stop) + 1))
            if at >= 0:
                found.append((at + len(stop), len(found), at, stop))
        if found:
            end, _, at, stop = min(found)
            self.text = self.text[:end if self.sampling.include_stop else at]
            self.finish_reason, self.stop_reason = "stop", stop

    def _draw(self):
        """The next token and its logprob."""
        early = len(self.ids) < self.sampling.min_tokens
        barred = self.sampling.stop_token_ids if early else ()
        for attempt in range(REDRAWS):
            value = self._value(attempt)
            token = self._token(value, may_end=not early and not self.sampling.ignore_eos)
            if token not in barred:
                break
        return token, -(value >> 64 & 1023) / 256

    def _token(self, value, may_end):
        if self._inside:
            following = _continuations(self._inside)
            return ID_OF[following[value % len(following)]]
        if may_end and (value >> 96) % ENDS_ONE_IN == 0:
            return EOS
        return ID_OF[CHARACTERS[value % len(CHARACTERS)].encode()[0]]

    def _value(self, attempt):
        salt = self.sampling.shape + ((("again", attempt),) if attempt else ())
        if self.sampling.seed is not None:
            salt += (("seed", self.sampling.seed + self.choice, len(self.ids)),)
        elif self.choice and not self.ids:
            salt += (("choice", self.choice),)
        if self.sampling.chance:
            salt += (("chance", len(self.prompt_ids)),)
        if self.sampling.grammar:
            salt += self.sampling.grammar + (len(self.ids),)
        if any(self.sampling.penalties) and self.ids:
            salt += self.sampling.penalties + tuple(sorted(self._counts.items()))
        state = self._hash.copy()
        if salt:
            state.update(repr(salt).encode())
        return int.from_bytes(state.digest(), "little")

    def _token_text(self, token):
        """A token alone, in its place: a character's text belongs to its last token."""
        if token not in BYTE_OF:
            return MARKER_OF.get(token, "")
        whole = self._inside + bytes([BYTE_OF[token]])
        return "" if _is_incomplete(whole) else whole.decode("utf-8", "replace")


def alternatives(token, text, logprob, count):
    """The `count` best tokens at a place, the drawn one first: (id, text, logprob)."""
    others = (other for other in range(3 + token % 40, VOCABULARY) if other != token)  # printable ones first
    return [(token, text, logprob)] + [(other, decode([other]), logprob - 0.5 * rank)
                                       for rank, other in zip(range(1, count), others)]


def generate(prompt_ids, max_tokens, *, choice=0, **options):
    """The finished Output for these ids: `.ids`, `.text`, `.finish_reason`, `.stop_reason`, `.pieces`, `.logprobs`.

    `options` are fields of a request: stop, stop_token_ids, include_stop_str_in_output, ignore_eos, min_tokens, seed,
    temperature, the penalties, and the others named at the top of this file.
    """
    return Output(prompt_ids, max_tokens, Sampling.of(options), choice).run()
