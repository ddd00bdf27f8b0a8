"""What a stock vLLM 0.32 reads and says: requests understood, replies and chunks with its keys in its order.

`expected(path, body)` is what a request must get, worked out without any server.
"""

import json
import time
import uuid

from scripted_tokens import (VOCABULARY, Output, Refused, Sampling, alternatives, chat_ids, decode, encode)

VERSION = "0.32.0"
FINGERPRINT = "vllm-0.32.0-5c217ed0"
MAX_MODEL_LEN = 4096
CHOICES_MAX = 128
LOGPROBS_MAX = 20
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
BAD_REQUEST = "Bad Request"  # the type where vLLM's request model refuses; its engine says BadRequestError


def dumps(document):
    """As pydantic writes JSON: no spaces, no escapes but the needed."""
    return _ENCODER.encode(document).encode("utf-8", "surrogatepass")


def error(message, kind=BAD_REQUEST, status=400, param=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def invalid(kind, where, message):
    """What the request model of vLLM says of a field."""
    return Refused(f"1 validation error:\n  {{'type': '{kind}', 'loc': '{where}', 'msg': '{message}'}}", where,
                   kind=BAD_REQUEST)


def parse(body):
    """A request's JSON object, or Refused."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as failure:
        at = getattr(failure, "pos", 0)
        raise invalid("json_invalid", f"body.{at}", f"JSON decode error: {getattr(failure, 'msg', failure)}") from None
    if not isinstance(document, dict):
        raise invalid("model_attributes_type", "body", "Input should be a valid dictionary")
    return document


class Job:
    """One generation request understood: what to generate, and how its API tells it."""

    def __init__(self, body, model="tiny", max_model_len=MAX_MODEL_LEN, header_id=None):
        self.body, self.max_model_len = body, max_model_len
        if body.get("model") not in (None, model):
            raise Refused(f"The model `{body['model']}` does not exist.", "model", 404, "NotFoundError")
        self.name = header_id or body.get("request_id") or uuid.uuid4().hex
        self.id, self.model, self.created = f"{self.prefix}-{self.name}", model, int(time.time())
        self.stream = bool(body.get("stream"))
        self._read_stream_options(body.get("stream_options"))
        self.prompts = self.read_prompts()
        self.external_ids = self.read_external_ids()
        self.parameters = self.read_parameters()
        self.n = self._read_n()
        self.return_ids = bool(body.get("return_token_ids"))
        self.logprobs = self.read_logprobs()  # alternatives asked for at each token, or None
        if (self.logprobs or 0) > LOGPROBS_MAX:
            raise Refused(f"Requested sample logprobs of {self.logprobs}, which is greater than max allowed: "
                          f"{LOGPROBS_MAX}", "logprobs")
        self.outputs = [Output(prompt, self._max_tokens(prompt), Sampling.of(self.parameters), choice)
                        for prompt in self.prompts for choice in range(self.n)]
        self._check_min_tokens()
        self._told = [False] * len(self.outputs)  # whether a choice said its prompt's ids
        self._characters = [0] * len(self.outputs)  # sent
        self._tokens = [0] * len(self.outputs)

    # --- reading

    def _read_stream_options(self, options):
        if options and not self.stream:
            raise Refused("Stream options can only be defined when `stream=True`.", "stream_options", kind=BAD_REQUEST)
        self.include_usage = options is not None and bool(options.get("include_usage", True))
        self.continuous_usage = self.include_usage and bool(options.get("continuous_usage_stats"))

    def _read_n(self):
        n = self.parameters.get("n", 1) or 1
        if not isinstance(n, int) or not 1 <= n <= CHOICES_MAX:
            raise Refused(f"n must be between 1 and {CHOICES_MAX}, got {n}.", "n")
        if n > 1 and self.parameters.get("temperature") == 0:
            raise Refused(f"n must be 1 when using greedy sampling, got {n}.")
        return n

    def _max_tokens(self, prompt):
        """Checks the prompt, and gives what may follow it."""
        for token in prompt:
            if not 0 <= token < VOCABULARY:
                raise Refused(f"Token id {token} is out of vocabulary")
        if len(prompt) > self.max_model_len:
            raise Refused(f"This model's maximum context length is {self.max_model_len} tokens. However, your prompt "
                          f"contains {len(prompt)} input tokens, which exceeds this limit even without any output "
                          "tokens. Please reduce the length of the input prompt.", "input_tokens")
        name, asked = self.read_max_tokens()
        room = self.max_model_len - len(prompt)
        if asked is None:
            asked = room
        if isinstance(asked, bool) or not isinstance(asked, int):
            raise Refused(f"{name} must be an integer, got {asked!r}.", name, kind=BAD_REQUEST)
        if asked > self.max_model_len:
            raise Refused(f"{name}={asked} cannot be greater than max_model_len={self.max_model_len}. Please request "
                          "fewer output tokens.", name)
        if min(asked, room) < 1:
            raise Refused(f"max_tokens must be at least 1, got {min(asked, room)}.", "max_tokens")
        return min(asked, room)

    def _check_min_tokens(self):
        for output in self.outputs:
            if output.sampling.min_tokens > output.max_tokens:
                raise Refused(f"min_tokens must be less than or equal to max_tokens={output.max_tokens}, "
                              f"got {output.sampling.min_tokens}.")

    def read_external_ids(self):
        """The ids that an abort names."""
        return [self.id]

    def read_parameters(self):
        """Where the sampling parameters stand."""
        return self.body

    # --- telling

    def opening(self):
        """Chunks before the first token."""
        return []

    def chunk(self, index, delta):
        """What is sent of choice `index` now, or None."""
        self._tokens[index] += len(delta.ids)
        if not (delta.text or delta.ids or self._tokens[index]):
            return None  # as in vLLM: whoever is aborted before its first token is not told why it ended
        document = self.envelope([self.chunk_choice(index, delta)])
        if self.continuous_usage:
            document["usage"] = self.chunk_usage(len(self.outputs[index].prompt_ids), self._tokens[index])
        if delta.finish_reason and not self.include_usage:
            document["system_fingerprint"] = FINGERPRINT
        self._characters[index] += len(delta.text)
        return self.marked(document)

    def chunk_usage(self, prompt, completion):
        return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}

    def closing(self):
        """Chunks after the last token, before [DONE]."""
        if not self.include_usage:
            return []
        return [self.marked(self.envelope([]) | {"usage": self.short_usage(), "system_fingerprint": FINGERPRINT})]

    def short_usage(self):
        prompt, completion = sum(map(len, self.prompts)), sum(len(output.ids) for output in self.outputs)
        return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}

    def usage(self):
        return self.short_usage() | {"prompt_tokens_details": None, "completion_tokens_details": None}

    def envelope(self, choices, kind=None):
        return {"id": self.id, "object": kind or self.chunk_object, "created": self.created, "model": self.model,
                "choices": choices}

    def marked(self, document):
        """With the unknown fields that the request asked for."""
        if "x_reply_extra" in self.body:
            document["x_extra"] = self.body["x_reply_extra"]
        if "x_choice_extra" in self.body:
            for choice in document["choices"]:
                choice["x_extra"] = self.body["x_choice_extra"]
        return document

    def prompt_ids_once(self, index):
        told, self._told[index] = self._told[index], True
        return self.outputs[index].prompt_ids if self.return_ids and not told else None

    def token_name(self, token, text):
        return f"token_id:{token}" if self.body.get("return_tokens_as_token_ids") else text


class Completion(Job):
    prefix, chunk_object = "cmpl", "text_completion"

    def read_prompts(self):
        if self.body.get("echo"):
            raise Refused("the scripted engine does not know `echo`", "echo")
        prompt = self.body.get("prompt")
        if not prompt:
            raise Refused("Either prompt or prompt_embeds must be provided and non-empty.", "prompt", kind=BAD_REQUEST)
        several = isinstance(prompt, list) and isinstance(prompt[0], (str, list))
        return [encode(each) if isinstance(each, str) else list(each) for each in (prompt if several else [prompt])]

    def read_external_ids(self):
        return [f"{self.id}-{index}" for index in range(len(self.prompts))]

    def read_max_tokens(self):
        asked = self.body.get("max_tokens")
        return "max_tokens", 16 if asked is None else asked

    def read_logprobs(self):
        return self.body.get("logprobs")

    def chunk_choice(self, index, delta):
        return {"index": index, "text": delta.text, "logprobs": self.logprobs_of(delta, self._characters[index]),
                "finish_reason": delta.finish_reason, "stop_reason": delta.stop_reason,
                "prompt_token_ids": self.prompt_ids_once(index), "token_ids": delta.ids if self.return_ids else None}

    def logprobs_of(self, delta, offset=0):
        if self.logprobs is None:
            return None
        said = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for token, (text, logprob) in zip(delta.ids, delta.logprobs):
            said["text_offset"].append(offset)
            said["token_logprobs"].append(logprob)
            said["tokens"].append(self.token_name(token, text))
            said["top_logprobs"].append({self.token_name(each, name): value for each, name, value
                                         in alternatives(token, text, logprob, max(1, self.logprobs))})
            offset += len(said["tokens"][-1])
        return said

    def whole(self):
        choices = []
        for index, output in enumerate(self.outputs):
            all_of_it = output.whole()
            choices.append({
                "index": index, "text": output.text, "logprobs": self.logprobs_of(all_of_it),
                "finish_reason": output.finish_reason, "stop_reason": output.stop_reason,
                "token_ids": output.ids if self.return_ids else None, "prompt_logprobs": None,
                "prompt_token_ids": self.prompt_ids_once(index), "routed_experts": None})
        return self.marked(self.envelope(choices) | {
            "service_tier": None, "system_fingerprint": FINGERPRINT, "usage": self.usage(),
            "kv_transfer_params": None, "ec_transfer_params": None, "metrics": None})


class Chat(Job):
    prefix, chunk_object = "chatcmpl", "chat.completion.chunk"

    def read_prompts(self):
        messages = self.body.get("messages")
        if not isinstance(messages, list):
            raise invalid("missing", "body.messages", "Field required")
        goes_on = bool(self.body.get("continue_final_message"))
        answers = self.body.get("add_generation_prompt", True)
        if goes_on and answers:
            raise Refused("Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
                          kind=BAD_REQUEST)
        if goes_on and messages[-1]["role"] != "assistant":
            raise Refused("the final message is not the assistant's")  # the real one goes on with any
        return [chat_ids(messages, answers)]

    def read_max_tokens(self):
        name = "max_completion_tokens" if self.body.get("max_completion_tokens") is not None else "max_tokens"
        return name, self.body.get(name)

    def read_logprobs(self):
        top = self.body.get("top_logprobs") or 0
        if top and not self.body.get("logprobs"):
            raise Refused("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs",
                          kind=BAD_REQUEST)
        return top if self.body.get("logprobs") else None

    def opening(self):
        said = []
        for index, output in enumerate(self.outputs):
            document = self.envelope([{"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None,
                                       "finish_reason": None}])
            if self.continuous_usage:
                document["usage"] = self.chunk_usage(len(output.prompt_ids), 0)
            document |= {"prompt_token_ids": output.prompt_ids if self.return_ids else None, "prompt_text": None}
            said.append(self.marked(document))
        return said

    def chunk_choice(self, index, delta):
        choice = {"index": index, "delta": {"content": delta.text}, "logprobs": self.logprobs_of(delta),
                  "finish_reason": delta.finish_reason}
        if delta.finish_reason:
            choice["stop_reason"] = delta.stop_reason
        return choice | {"token_ids": delta.ids if self.return_ids else None}

    def chunk_usage(self, prompt, completion):
        return super().chunk_usage(prompt, completion) | {"completion_tokens_details": None}

    def logprobs_of(self, delta):
        if self.logprobs is None:
            return None
        return {"content": [
            self.token_logprob(token, text, logprob) | {
                "top_logprobs": [self.token_logprob(*each) for each
                                 in alternatives(token, text, logprob, self.logprobs)[:self.logprobs]]}
            for token, (text, logprob) in zip(delta.ids, delta.logprobs)]}

    def token_logprob(self, token, text, logprob):
        return {"token": self.token_name(token, text), "logprob": logprob, "bytes": list(text.encode())}

    def whole(self):
        choices = [{
            "index": index,
            "message": {"role": "assistant", "content": output.text, "refusal": None, "annotations": None,
                        "audio": None, "function_call": None, "reasoning": None},
            "logprobs": self.logprobs_of(output.whole()), "finish_reason": output.finish_reason,
            "stop_reason": output.stop_reason, "token_ids": output.ids if self.return_ids else None,
            "routed_experts": None} for index, output in enumerate(self.outputs)]
        return self.marked(self.envelope(choices, "chat.completion") | {
            "service_tier": None, "system_fingerprint": FINGERPRINT, "usage": self.usage(), "prompt_logprobs": None,
            "prompt_token_ids": self.prompts[0] if self.return_ids else None, "prompt_text": None,
            "kv_transfer_params": None, "ec_transfer_params": None, "metrics": None})


class TokensInTokensOut(Job):
    """/inference/v1/generate; with `output_mode` "text" it tells the text, too."""
    prefix, chunk_object = "generate-tokens", None

    def read_prompts(self):
        self.mode = self.body.get("output_mode", "tokens")
        if self.mode not in ("tokens", "text"):
            raise invalid("literal_error", "body.output_mode", "Input should be 'tokens' or 'text'")
        if not self.body.get("token_ids"):
            raise invalid("missing", "body.token_ids", "Field required")
        return [list(self.body["token_ids"])]

    def read_parameters(self):
        if not isinstance(self.body.get("sampling_params"), dict):
            raise invalid("missing", "body.sampling_params", "Field required")
        return self.body["sampling_params"]

    def read_max_tokens(self):
        return "max_tokens", self.parameters.get("max_tokens")

    def read_logprobs(self):
        return self.parameters.get("logprobs")

    def chunk(self, index, delta):
        self._tokens[index] += len(delta.ids)
        if not delta.ids and delta.finish_reason is None and not (self.mode == "text" and delta.text):
            return None
        usage = self.chunk_usage(len(self.prompts[0]), self._tokens[index]) if self.continuous_usage else None
        prompt = self.prompt_ids_once(index)
        return self.marked({"request_id": self.id, "usage": usage, **({"prompt_token_ids": prompt} if prompt else {}),
                            "output_mode": self.mode, "choices": [self.choice(index, delta)]})

    def chunk_usage(self, prompt, completion):
        return super().chunk_usage(prompt, completion) | {"prompt_tokens_details": None,
                                                          "completion_tokens_details": None}

    def choice(self, index, delta):
        return {"index": index, "finish_reason": delta.finish_reason, "stop_reason": delta.stop_reason,
                "token_ids": delta.ids, "routed_experts": None, "sampling_mask": None, "weight_versions": None,
                **({"text": delta.text} if self.mode == "text" else {}), "logprobs": self.logprobs_of(delta)}

    def logprobs_of(self, delta):
        if self.logprobs is None:
            return None
        return {"content": [
            self.told(token, text, logprob, 1) | {"top_logprobs": [
                self.told(*each, rank + 1) for rank, each
                in enumerate(alternatives(token, text, logprob, max(1, self.logprobs)))]}
            for token, (text, logprob) in zip(delta.ids, delta.logprobs)]}

    def told(self, token, text, logprob, rank):
        if self.mode == "text":
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
        return {"token_id": token, "logprob": logprob, "rank": rank}

    def closing(self):
        if not self.include_usage:
            return []
        usage = self.short_usage()
        return [self.marked({"request_id": self.id, "usage": usage, "output_mode": self.mode, "choices": []})]

    def whole(self):
        return self.marked({
            "request_id": self.id, "model": self.model, "created": self.created, "usage": self.usage(),
            "prompt_logprobs": None, "prompt_token_id_logprobs": None,
            "prompt_token_ids": self.prompts[0] if self.return_ids else None, "mm_placeholders": None, "metrics": None,
            "kv_transfer_params": None, "ec_transfer_params": None, "output_mode": self.mode,
            "choices": [self.choice(index, output.whole()) for index, output in enumerate(self.outputs)]})


JOBS = {"/v1/completions": Completion, "/v1/chat/completions": Chat, "/inference/v1/generate": TokensInTokensOut}


def understand(path, body, model="tiny", max_model_len=MAX_MODEL_LEN, header_id=None):
    """The Job of a request; raises Refused, whatever is wrong with it."""
    try:
        return JOBS[path](body, model, max_model_len, header_id)
    except Refused:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as failure:
        raise invalid("value_error", "body", repr(failure)) from failure


def expected(path, body, max_model_len=MAX_MODEL_LEN):
    """The finished Outputs that a request must get, one a choice, whatever happens to engines on the way."""
    body = {name: value for name, value in body.items() if name != "model"}
    return [output.run() for output in understand(path, body, max_model_len=max_model_len).outputs]


# --- the smaller routes

def models(model, max_model_len, owned_by="vllm", adapters=()):
    """The model, and the LoRA adapters loaded for it: pairs of name and path."""
    served = [(model, model, None, max_model_len)] + [(name, path, model, None) for name, path in adapters]
    return {"object": "list", "data": [{
        "id": name, "object": "model", "created": int(time.time()), "owned_by": owned_by, "root": root, "parent": parent,
        "max_model_len": longest, "permission": [{
            "id": f"modelperm-{uuid.uuid4().hex}", "object": "model_permission", "created": int(time.time()),
            "allow_create_engine": False, "allow_sampling": True, "allow_logprobs": True, "allow_search_indices": False,
            "allow_view": True, "allow_fine_tuning": False, "organization": "*", "group": None,
            "is_blocking": False}]} for name, root, parent, longest in served]}


def tokenize(body, max_model_len):
    if "messages" in body:
        ids = chat_ids(body["messages"], body.get("add_generation_prompt", True))
    else:
        ids = encode(body["prompt"])
    names = [decode([token]) for token in ids] if body.get("return_token_strs") else None
    return {"count": len(ids), "max_model_len": max_model_len, "tokens": ids, "token_strs": names}
