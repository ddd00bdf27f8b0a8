"""A second opinion on `llumnix decide`: a slow and literal reading of the specification.

Shares no code with the scheduler. Each part names the section it reads aloud: "S" is scheduling.md,
"C" cms.md, "R" rescheduling.md and "surface" surface.md 5. `answer` takes a scene and returns what
the command should answer; where the specification leaves the words to the program (`reason`,
the text of an error) nothing is returned.
"""

import json
import math

from chunk_keys import chunk_keys
from scene_cluster import Cluster, NoPrediction, step_ms
from scene_form import ACCOUNT, CARRIED, METRICS, SCENE, STATUS, STEPS, SceneError, float32, real


# ---- S 5 and 6: better, and filters ---------------------------------------------------------------

def better(name, a, b):
    return a > b if name == "kv_cache_hit_len" else a < b


def order_key(names, instance):
    """Ascending: best first, ties by id."""
    return [-instance.metric(n) if n == "kv_cache_hit_len" else instance.metric(n) for n in names] + [
        instance.id.encode()]


class Filter:
    def __init__(self, name, keeps, skippable=False, metric=None, threshold=None, value=None):
        self.name, self.keeps, self.skippable = name, keeps, skippable
        self.metric, self.threshold, self.value = metric, threshold, value

    def drop(self, instance, where):
        entry = {"instance": instance.id, "filter": self.name, **where}
        if self.metric:
            entry.update(metric=self.metric, value=self.value(instance), threshold=self.threshold)
        return entry


def schedulability():
    def keeps(i):
        i.needs_failover = i.needs_failover or i.failing
        return i.schedulable
    return Filter("schedulability", keeps)


def staleness():
    def keeps(i):
        i.needs_failover = i.needs_failover or i.stale()
        return not i.stale()
    return Filter("staleness", keeps)


def metric_below(name, threshold, strict=False, with_request=True):
    def value(i):
        return i.metric(name, with_request)
    return Filter("metric", lambda i: better(name, value(i), threshold), not strict, name, threshold, value)


def inverted(f):
    return Filter("not_" + f.name, lambda i: not f.keeps(i), f.skippable, f.metric, f.threshold, f.value)


def not_reserved_for(role):
    return Filter("attribute", lambda i: i.reserved != role)


def infer_type(role):
    return Filter("infer_type", lambda i: i.role == role)


def failover_set(candidates, domain):
    f = [i for i in candidates if i.needs_failover]
    data_parallel = bool(candidates) and candidates[0].data_parallel_size > 1
    if domain in ("node", "node-unit"):
        nodes = {i.node for i in f if i.node}
        members = [i for i in candidates if i.node in nodes]
    else:
        members = f
    if domain in ("instance-unit", "node-unit") and data_parallel:
        units = {i.unit for i in members}  # empty included
        members = [i for i in candidates if i.unit in units]
    return {i.id for i in members}


def filtered(candidates, singles, overall, where, dropped, skip=False):
    """All singles for every candidate, then the ones that look at the whole set (S 3.1)."""
    rejected = set()
    for i in candidates:
        for f in singles:
            if skip and f.skippable:
                continue
            if not f.keeps(i):
                rejected.add(i.id)
                dropped.append(f.drop(i, where))
    for name, rejects in overall:
        for i in candidates:
            if i.id in rejects(candidates):
                rejected.add(i.id)
                dropped.append({"instance": i.id, "filter": name, **where})
    return [i for i in candidates if i.id not in rejected]


def failover(domain):
    return "failover", lambda candidates: failover_set(candidates, domain)


def failover_source(domain):
    def rejects(candidates):
        for i in candidates:
            i.needs_failover = i.needs_failover or i.failing or i.stale()
        return {i.id for i in candidates} - failover_set(candidates, domain)
    return "failover_source", rejects


# ---- S 3.1, 4 and 7: placing a request ------------------------------------------------------------

def by_metrics(names, k=1, settings={}, last=None):
    def select(survivors, fallback):
        ranked = sorted(survivors, key=lambda i: order_key(names, i))
        if settings.get("scheduler.power_of_two"):  # the better one of any two: everybody but the last
            return ranked[:-1] if len(ranked) > 2 else ranked[:1]
        before = [i for i in ranked if i.id == last]
        if settings.get("scheduler.hysteresis", 0) > 0 and before:
            return before if stays(names[0], before[0], ranked[0], settings["scheduler.hysteresis"]) else ranked[:1]
        return ranked[:max(k, 1)]
    return select, names


def stays(name, before, best, share):
    """Whether the last choice is kept: the best one has to be better by more than that share of its load."""
    is_now, could_be = before.metric(name), best.metric(name)
    if math.isinf(is_now):
        return could_be == is_now
    return not better(name, could_be, is_now) or (
        abs(float32(could_be - is_now)) <= float32(float32(share) * abs(is_now)))


def next_in_order(cluster, role):
    def select(survivors, fallback):
        last = cluster.last.get(role, "").encode()
        return ([i for i in survivors if i.id.encode() > last] or survivors)[:1]
    return select, []


def fixed_preference(cluster, role):
    def select(survivors, fallback):
        for i in survivors:
            if i.id == cluster.last.get(role):
                return [i]
        return survivors[:1]
    return select, []


def slo_prefill():
    def select(survivors, fallback):
        return sorted(
            survivors, key=lambda i: (i.metric("predicted_ttft"), i.reserved != "prefill", i.id.encode()))[:1]
    return select, ["predicted_ttft"]


def slo_decode(threshold):  # S 7.4
    def select(survivors, fallback):
        def tpot(i):
            return i.metric("predicted_tpot")
        if not fallback:
            for i in survivors:
                if i.reserved == "decode":
                    return [i]
            return sorted(survivors, key=lambda i: (-tpot(i), i.id.encode()))[:1]
        under = [i for i in survivors if tpot(i) < threshold]
        if under:
            return sorted(under, key=lambda i: (-tpot(i), i.metric("predicted_ttft", False), i.id.encode()))[:1]
        return sorted(survivors, key=lambda i: (tpot(i), i.id.encode()))[:1]
    return select, ["predicted_tpot"]


def factor_of(flags, slo, factor):
    return float32(float32(flags[slo]) * float32(flags[factor]))


def role_rules(cluster, role):
    """(candidates, single filters, global filters, selector and its metrics), or None: no such role."""
    flags = cluster.flags
    group = [i for i in cluster.instances if i.role == role]
    top_k = flags["dispatch-top-k"]
    if not cluster.full_mode:  # S 7.2, lite
        name = flags[f"dispatch-{role}-load-metric"]
        threshold = float32(flags[f"dispatch-{role}-load-threshold"])
        return group, [metric_below(name, threshold)], [], by_metrics([name], top_k)
    healthy = [schedulability(), staleness()]
    domain = [failover(flags["failover-domain"])]
    policy = flags["scheduling-policy"]
    if policy == "round-robin":  # our own, in full mode too
        return group, healthy, domain, next_in_order(cluster, role)
    if policy == "flood":  # S 7.3
        return group, healthy, domain, fixed_preference(cluster, role)
    if policy == "load-balance":  # S 7.2
        name = flags[f"dispatch-{role}-load-metric"]
        threshold = float32(flags[f"dispatch-{role}-load-threshold"])
        names = [name]
        if flags["enable-cache-aware-scheduling"] and role != "decode":
            names = [flags["dispatch-prefill-cache-locality-metric"], name]
        choose = by_metrics(names, top_k, cluster.settings, cluster.last.get(role))
        return group, healthy + [metric_below(name, threshold)], domain, choose
    if role == "neutral":
        return None  # S 7.3: slo has no neutral role
    ttft_limit = factor_of(flags, "ttft-slo", "ttft-slo-dispatch-threshold")
    tpot_limit = factor_of(flags, "tpot-slo", "tpot-slo-dispatch-threshold")
    if not cluster.adaptive:  # S 7.3
        name, limit = ("predicted_ttft", ttft_limit) if role == "prefill" else ("predicted_tpot", tpot_limit)
        return group, healthy + [metric_below(name, limit, strict=True)], domain, by_metrics([name], top_k)
    if role == "prefill":  # S 7.4
        singles = healthy + [not_reserved_for("decode"), metric_below("predicted_ttft", ttft_limit),
                             metric_below("decode_batch_size", float32(0.1), strict=True)]
        return cluster.instances, singles, domain, slo_prefill()
    singles = healthy + [not_reserved_for("prefill"), metric_below("predicted_ttft", tpot_limit, with_request=False),
                         metric_below("predicted_tpot", tpot_limit)]
    return cluster.instances, singles, domain, slo_decode(tpot_limit)


def choose_role(cluster, role, stages):
    """S 3.1. Returns those of whom one is chosen: more than one only with dispatch-top-k above 1."""
    rules = role_rules(cluster, role)
    if rules is None:
        return []
    candidates, singles, overall, (select, names) = rules
    dropped = []
    survivors, fallback = filtered(candidates, singles, overall, {"pass": 1}, dropped), False
    if not survivors:
        survivors, fallback = filtered(candidates, singles, overall, {"pass": 2}, dropped, skip=True), True
    chosen = select(survivors, fallback) if survivors else []
    names = names + [f.metric for f in singles if f.metric and f.metric not in names]
    if cluster.adaptive and role == "decode":
        names = [n for n in names if n != "predicted_ttft"]  # which form is shown is left open
    stages.append({
        "for": role, "considered": [i.id for i in candidates], "fallback": fallback, "dropped": dropped,
        "scored": [i.id for i in survivors], "winner": chosen[0].id if chosen else None,
        "winners": sorted(i.id for i in chosen),
        "metrics": {i.id: {n: i.metric(n) for n in names} for i in candidates}})
    return chosen


def place(cluster):  # S 4
    cluster.prepare()
    mode, stage = cluster.request.get("scheduling_mode", ""), cluster.request.get("scheduling_stage", "")
    groups = cluster.groups()
    if mode == "neutral":
        roles = ["neutral"] if "neutral" in groups else []
        if cluster.full_mode and cluster.flags["scheduling-policy"] == "slo":
            roles = []
    elif len(groups) <= 1:
        roles = []
    else:
        roles = {"pd_batch": ["prefill", "decode"],
                 "pd_staged": [stage] if stage in ("prefill", "decode") else []}.get(mode, [])
    stages, placement = [], []
    for role in roles:
        chosen = choose_role(cluster, role, stages)
        if chosen:
            placement.append({"infer_type": role, "instance": chosen[0].id})
    if roles and len(placement) == len(roles):
        return {"outcome": "placed", "http_status": 200, "placement": placement, "stages": stages}
    return {"outcome": "refused", "http_status": 429, "placement": [], "stages": stages}  # all roles or none


# ---- R 1 and 2: one cycle of the rescheduler ------------------------------------------------------

def heaviest_first(name, instances):
    return sorted(instances, key=lambda i: (i.metric(name) if name == "kv_cache_hit_len" else -i.metric(name),
                                            i.id.encode()))


def balance(name, sources, destinations):  # R 2.1
    pairs = []
    for source, destination in zip(heaviest_first(name, sources),
                                   sorted(destinations, key=lambda i: order_key([name], i))):
        if not better(name, destination.metric(name), source.metric(name)):
            break
        pairs.append((source, destination))
    return pairs


def load_policy(cluster, role):
    flags = cluster.flags
    name = flags[f"rescheduling-{role}-load-metric"]
    threshold = float32(flags[f"rescheduling-{role}-load-threshold"])
    least = float32(flags["rescheduling-load-balance-threshold"])
    by_unit = flags["rescheduling-load-balance-scope"] == "unit"
    healthy = [infer_type(role), schedulability(), staleness()]
    source, destination = list(healthy), list(healthy)
    if threshold > 0 and not by_unit:
        source.append(inverted(metric_below(name, threshold)))
        destination.append(metric_below(name, threshold))
    overall = [failover(flags["failover-domain"])]

    def pairing(sources, destinations):
        if by_unit:
            units = sorted({i.unit for i in sources} & {i.unit for i in destinations} - {""}, key=str.encode)
            pairs = [pair for unit in units for pair in balance(name, [i for i in sources if i.unit == unit],
                                                                [i for i in destinations if i.unit == unit])]
        else:
            pairs = balance(name, sources, destinations)
        if least > 0:
            pairs = [(s, d) for s, d in pairs if not float32(s.metric(name) - d.metric(name)) < least]
        return pairs

    wanted = (flags["rescheduling-req-select-rule"], flags["rescheduling-req-select-order"],
              flags["rescheduling-req-select-value"])
    return source, overall, destination, overall, pairing, wanted


def failover_policy(cluster, role):
    domain = cluster.flags["failover-domain"]

    def round_robin(sources, destinations):
        if not destinations:
            return []
        pairs = [(source, destinations[index % len(destinations)]) for index, source in enumerate(sources)]
        return [(source, destination) for source, destination in pairs if source is not destination]

    return ([infer_type(role)], [failover_source(domain)],
            [infer_type(role), schedulability(), staleness()], [failover(domain)], round_robin, ("NUM_REQ", "LR", -1))


def most_loaded(instances):
    return sorted(instances, key=lambda i: (-i.metric("predicted_tpot"), i.id.encode()))[0]


def binpacking_policy(cluster, mitigation):
    flags = cluster.flags
    ceil = factor_of(flags, "tpot-slo", "tpot-migrate-out-ceil-threshold")
    limit = factor_of(flags, "tpot-slo", "tpot-slo-dispatch-threshold")
    floor = factor_of(flags, "tpot-slo", "tpot-migrate-out-floor-threshold")
    healthy = [not_reserved_for("prefill"), schedulability(), staleness()]
    decodes = inverted(metric_below("decode_batch_size", float32(0.1)))
    overall = [failover(flags["failover-domain"])]

    def mitigate(sources, destinations):
        return [(most_loaded(sources), most_loaded(destinations))] if sources and destinations else []

    def consolidate(sources, destinations):
        if not destinations:
            return []
        reserved = [i for i in destinations if i.reserved == "decode"]
        destination = reserved[0] if reserved else most_loaded(destinations)
        others = [i for i in sources if i is not destination]
        if not others:
            return []
        return [(min(others, key=lambda i: (i.metric("predicted_tpot"), i.id.encode())), destination)]

    destination = healthy + [metric_below("predicted_tpot", limit)]
    if mitigation:
        source = healthy + [inverted(metric_below("predicted_tpot", ceil))]
        return source, overall, destination, overall, mitigate, ("NUM_REQ", "LCR", 1)
    source = healthy + [not_reserved_for("decode"), metric_below("predicted_tpot", floor), decodes]
    return source, overall, destination + [decodes], overall, consolidate, ("NUM_REQ", "LCR", 1)


def policy_rules(cluster, name):
    kind = name.split("_")[1]
    if kind == "load":
        return load_policy(cluster, name.split("_")[0])
    if kind == "failover":
        return failover_policy(cluster, name.split("_")[0])
    return binpacking_policy(cluster, kind == "mitigation")


def plan(cluster):  # R 1.1
    cluster.prompt_tokens = 0  # metrics without a request
    policies = cluster.flags["rescheduling-policies"].split(",")
    if cluster.adaptive:
        policies += [p for p in ("binpacking_consolidation", "binpacking_mitigation") if p not in policies]
    moves, stages = [], []
    for policy in policies:
        source, source_overall, destination, destination_overall, pairing, wanted = policy_rules(cluster, policy)
        dropped = []
        sources = filtered(cluster.instances, source, source_overall, {"side": "source"}, dropped)
        destinations = filtered(cluster.instances, destination, destination_overall, {"side": "destination"}, dropped)
        stages.append({"for": policy, "considered": [i.id for i in cluster.instances], "dropped": dropped,
                       "sources": [i.id for i in sources], "destinations": [i.id for i in destinations]})
        for s, d in pairing(sources, destinations):
            if not any(move["from"] == d.id and move["to"] == s.id for move in moves):
                moves.append({"from": s.id, "to": d.id, "policy": policy, "rule": wanted[0], "order": wanted[1],
                              "value": wanted[2]})
    return {"outcome": "planned", "moves": moves, "stages": stages}


# ---- R 4.1 and 4.2: choosing requests to move -----------------------------------------------------

def choose(cluster, block):
    if block.get("instance") not in cluster.by_id:
        raise SceneError("choose.instance", "no such instance")
    instance = cluster.by_id[block["instance"]]
    rule, order, value = block.get("rule", "NUM_REQ"), block.get("order", ""), real(block.get("value", 0))
    running, waiting = instance.running or [], instance.waiting or []
    if STATUS[29] in instance.status:  # R 4.1: bounds only where the status names it
        wanted = value if rule == "NUM_REQ" else 1
        if wanted > instance.field(29):
            return {"outcome": "refused", "chosen": []}
    if rule == "NUM_REQ" and value == -1:  # pre-stop
        chosen = [r for r in waiting + running if not r.get("migrating", False)]
        return {"outcome": "chosen", "chosen": [r["id"] for r in chosen]}
    budget = math.trunc(instance.field(14) * value) if rule == "RATIO" else math.trunc(value)

    def length(request):
        return request.get("len", 0)

    def walk(requests, total, are_running):
        spent, taken = 0, []
        for r in requests:
            if spent >= total:
                break
            if r.get("migrating", False) or (are_running and r.get("out", 0) == 0):
                continue
            cost = 1 if rule == "NUM_REQ" else length(r)
            if cost > total:
                continue
            spent += cost
            taken.append(r["id"])
        return taken, max(0, total - spent)

    shortest = sorted(running, key=length)
    if order == "LCR":
        chosen = walk(running[::-1], budget, True)[0]
    elif order == "LR":
        chosen = walk(sorted(running, key=lambda r: -length(r)), budget, True)[0]
    elif order == "SR":
        chosen = walk(shortest, budget, True)[0]
    elif order in ("FCW", "FCWSR"):
        chosen, left = walk(waiting, budget, False)
        if order == "FCWSR":
            chosen = chosen + walk(shortest, left, True)[0]
    else:
        chosen = walk(running, budget, True)[0]  # FCR, and anything else
    return {"outcome": "chosen", "chosen": chosen}


# ---- the other asks -------------------------------------------------------------------------------

def metrics(cluster):
    cluster.prepare()
    answers, accounts = {}, {}
    for i in cluster.instances:
        values = {}
        for name in METRICS:
            if name == "num_tokens" and cluster.full_mode:
                continue
            if not cluster.full_mode and name not in ("num_tokens", "num_requests") and name not in i.given:
                continue
            try:
                values[name] = i.metric(name)
            except SceneError:
                pass  # no profile: it cannot be computed
        if cluster.full_mode:
            for name in CARRIED:
                values[name] = float32(i.carried(name))
            for name in STEPS:
                value = i.steps_metric(name)
                if value is not None:
                    values[name] = value
        answers[i.id] = values
        a = i.account
        accounts[i.id] = dict(zip(ACCOUNT, (a.all, a.p, a.d, a.pt, a.dt)))
    return {"outcome": "computed", "metrics": answers, "account": accounts}


def predict(cluster, block):
    def maybe(compute):
        try:
            return compute()
        except (NoPrediction, SceneError):
            return None

    def table_lookup(tokens):
        if cluster.ttft is None:
            raise NoPrediction
        return cluster.ttft.lookup(tokens, 0)

    model = cluster.step_model
    predicted = {}
    if "prefill" in block:
        predicted["prefill"] = [maybe(lambda: table_lookup(tokens)) for tokens in block["prefill"]]
    if "decode" in block:
        predicted["decode"] = [maybe(lambda: cluster.decode_latency(*pair)) for pair in block["decode"]]
    if "step" in block:
        predicted["step"] = [step_ms(model, tokens) if model else None for tokens in block["step"]]
    return {"outcome": "predicted", "predicted": predicted,
            "step_model": dict(zip("abc", model)) if model else None}


def scale(cluster, block):  # R 7.3
    values = [i.steps_metric("freeness") for i in cluster.instances]
    if not values or None in values:
        raise SceneError("instances", "no freeness to take the average of")
    average = sum(values) / len(values)
    action = "none"
    if average < real(block["low"]) and len(values) < block["max"]:
        action = "scale_out"
    elif average > real(block["high"]) and len(values) > block["min"]:
        action = "scale_in"
    return {"outcome": "scaled", "scale": {"average": average, "action": action}}


def want(block, path, *names):
    for name in names:
        if name not in block:
            raise SceneError(f"{path}.{name}".lstrip("."), "missing")


def check(scene):
    SCENE(scene)
    ask = scene.get("ask", "place")
    for block in ("choose", "scale", "predict"):
        if block in scene and block != ask:
            raise SceneError(block, f"a block of another ask than {ask}")
        if block == ask and block not in scene:
            raise SceneError(block, "missing")
    if ask == "place":
        want(scene, "", "request")
    if ask == "scale":
        want(scene["scale"], "scale", "low", "high", "min", "max")
    for index, instance in enumerate(scene.get("instances", [])):
        where = f"instances[{index}]"
        want(instance, where, "id")
        for block, name in (("dispatched", "request_id"), ("running", "id"), ("waiting", "id")):
            for number, entry in enumerate(instance.get(block, [])):
                want(entry, f"{where}.{block}[{number}]", name)
    model = scene.get("config", {}).get("step_model")
    if model and "samples" in model and len(model) > 1:
        raise SceneError("config.step_model", "either coefficients or samples")


def decided(scene):
    check(scene)
    cluster = Cluster(scene)
    ask = scene.get("ask", "place")
    if ask == "place":
        return place(cluster)
    if ask == "plan":
        return plan(cluster)
    if ask == "choose":
        return choose(cluster, scene["choose"])
    if ask == "metrics":
        return metrics(cluster)
    if ask == "predict":
        return predict(cluster, scene["predict"])
    if ask == "reserve":
        return {"outcome": "reserved", "reserved": dict(zip(("prefill", "decode"), cluster.reservations()))}
    if ask == "keys":
        return {"outcome": "keyed", "keys": chunk_keys(cluster.request.get("prompt_token_ids") or [], cluster.flags,
                                                       cluster.environment)}
    if ask == "scale":
        return scale(cluster, scene["scale"])
    return {"outcome": "configured", "flags": cluster.flags}


def answer(scene):
    """What `llumnix decide` should answer to this scene."""
    try:
        result = decided(scene)
    except SceneError as error:
        result = {"outcome": "error", "error": {"path": error.path, "message": error.message}}
    if isinstance(scene, dict) and isinstance(scene.get("name"), str):
        result["name"] = scene["name"]
    return result


def answer_line(line):
    try:
        scene = json.loads(line)
    except ValueError as error:
        return {"outcome": "error", "error": {"path": "", "message": str(error)}}
    return answer(scene)
