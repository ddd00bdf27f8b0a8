"""Compares `llumnix decide` with the second opinion, over scenes by hand and random ones.

    LLUMNIX=… python3 test_decide.py [--scenes 20000] [--seed 1] [--first 0] [--jobs 2] [--all]

The first difference is printed with the scene, both answers, and a scene made smaller that still
differs; the exit status is then 1. `--all` counts the differences by kind instead of stopping.
"""

import argparse
import collections
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import subprocess
import sys

import random_scenes
import second_opinion
from scene_form import ACCOUNT, STEPS, float32

HERE = pathlib.Path(__file__).parent
BATCH = 500


# ---- asking the program ---------------------------------------------------------------------------

def ask_program(program, lines):
    """Its answers to scenes, one for each line. A scene that ends the program has the outcome `ended`."""
    answers = []
    while len(answers) < len(lines):
        rest = lines[len(answers):]
        done = subprocess.run([program, "decide", "-"], input="".join(line + "\n" for line in rest),
                              capture_output=True, text=True, timeout=600)
        given = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        answers += given[:len(rest)]
        if len(given) > len(rest):
            answers[-1] = {"outcome": f"{len(given) - len(rest)} answers too many"}
        elif len(given) < len(rest):
            answers.append({"outcome": "ended", "status": done.returncode, "message": done.stderr[-500:]})
    return answers


def as_line(scene):
    return scene if isinstance(scene, str) else json.dumps(scene)


# ---- comparing ------------------------------------------------------------------------------------

def as_float(value):
    if value in ("inf", "-inf"):
        return math.inf if value == "inf" else -math.inf
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def same_float32(a, b):
    return float32(as_float(a)) == float32(as_float(b))


def close(a, b, relative, absolute=0.0):
    if a is None or b is None:
        return a is b
    return as_float(a) == as_float(b) or math.isclose(as_float(a), as_float(b), rel_tol=relative, abs_tol=absolute)


def unlike(what, mine, theirs, same=None):
    if same(mine, theirs) if same else mine == theirs:
        return None
    return f"{what}: {mine!r} expected, {theirs!r} answered"


def drops(stage, where):
    """What was dropped, as a mapping from who, when and by which filter to the numbers compared."""
    found = {}
    for entry in stage.get("dropped", []):
        key = (entry.get(where), entry.get("instance"), entry.get("filter"), entry.get("metric"))
        if key in found and found[key] != (entry.get("value"), entry.get("threshold")):
            return {"twice": key}
        found[key] = (entry.get("value"), entry.get("threshold"))
    return found


def unlike_drops(what, mine, theirs, where):
    mine, theirs = drops(mine, where), drops(theirs, where)
    if set(mine) != set(theirs):
        return (f"{what}.dropped: missing {sorted(set(mine) - set(theirs), key=str)}, "
                f"unexpected {sorted(set(theirs) - set(mine), key=str)}")
    for key, numbers in mine.items():
        for one, other in zip(numbers, theirs[key]):
            if one is not None and not same_float32(one, other):
                return f"{what}.dropped {key}: {numbers} expected, {theirs[key]} answered"
    return None


def unlike_values(what, mine, theirs, whole):
    """Metrics by instance; with `whole` none of mine may be missing."""
    for instance, values in mine.items():
        for name, value in values.items():
            answered = theirs.get(instance, {}).get(name)
            if answered is None and not whole:
                continue
            near = name in STEPS or name.startswith("predicted_t")
            same = (lambda a, b: close(a, b, 2e-7)) if near else same_float32
            problem = unlike(f"{what}.{instance}.{name}", value, answered, same)
            if problem:
                return problem
    return None


def unlike_stage(what, mine, theirs):
    yield unlike(f"{what}.for", mine["for"], theirs.get("for"))
    yield unlike(f"{what}.considered", sorted(mine["considered"]), sorted(theirs.get("considered", [])))
    if "sources" in mine:
        for side in ("sources", "destinations"):
            yield unlike(f"{what}.{side}", sorted(mine[side]), sorted(theirs.get(side, [])))
        yield unlike_drops(what, mine, theirs, "side")
        return
    yield unlike_drops(what, mine, theirs, "pass")
    winner = theirs.get("winner") or None
    if mine["winner"] is None:
        yield unlike(f"{what}.winner", None, winner)
    else:
        yield unlike(f"{what}.winner", mine["winners"], winner, lambda ids, one: one in ids)
        yield unlike(f"{what}.fallback", mine["fallback"], theirs.get("fallback"))
    if theirs.get("scores"):
        yield unlike(f"{what}.scores", sorted(mine["scored"]), sorted(theirs["scores"]))
    yield unlike_values(f"{what}.metrics", mine["metrics"], theirs.get("metrics", {}), whole=False)


def unlike_stages(mine, theirs):
    mine, theirs = mine.get("stages", []), theirs.get("stages", [])
    yield unlike("stages", [s["for"] for s in mine], [s.get("for") for s in theirs])
    for index, (one, other) in enumerate(zip(mine, theirs)):
        yield from unlike_stage(f"stages[{index}]", one, other)


def unlike_placement(mine, theirs):
    allowed = {s["for"]: s["winners"] for s in mine["stages"]}
    answered = [(p.get("infer_type"), p.get("instance")) for p in theirs.get("placement") or []]
    yield unlike("placement", [p["infer_type"] for p in mine["placement"]], [role for role, _ in answered])
    for role, instance in answered:
        yield unlike(f"placement of {role}", allowed.get(role, []), instance, lambda ids, one: one in ids)


def differences(mine, theirs):
    """Everything that is not alike, the gravest first; `None` stands for what is."""
    yield unlike("outcome", mine["outcome"], theirs.get("outcome"))
    yield unlike("name", mine.get("name"), theirs.get("name"))
    outcome = mine["outcome"]
    if outcome == "error":
        path, answered = mine["error"]["path"], (theirs.get("error") or {}).get("path", "")
        yield unlike("error.path", path, answered, lambda a, b: a.split(".")[-1] in b)
    elif outcome == "chosen" or "chosen" in mine:
        yield unlike("chosen", mine["chosen"], theirs.get("chosen") or [])
    elif outcome in ("placed", "refused"):
        yield unlike("http_status", mine["http_status"], theirs.get("http_status"))
        yield from unlike_placement(mine, theirs)
        yield from unlike_stages(mine, theirs)
    elif outcome == "planned":
        keys = ("from", "to", "policy", "rule", "order")
        moves = theirs.get("moves") or []
        yield unlike("moves", [[m[k] for k in keys] for m in mine["moves"]],
                     [[m.get(k) for k in keys] for m in moves])
        for index, (one, other) in enumerate(zip(mine["moves"], moves)):
            yield unlike(f"moves[{index}].value", one["value"], other.get("value"), same_float32)
        yield from unlike_stages(mine, theirs)
    elif outcome == "computed":
        yield unlike("account", mine["account"],
                     {i: {k: v for k, v in a.items() if k in ACCOUNT}
                      for i, a in theirs.get("account", {}).items()})
        yield unlike_values("metrics", mine["metrics"], theirs.get("metrics", {}), whole=True)
    elif outcome == "predicted":
        for name, values in mine["predicted"].items():
            yield unlike(f"predicted.{name}", values, theirs.get("predicted", {}).get(name) or [],
                         lambda a, b: len(a) == len(b) and all(close(x, y, 1e-9, 1e-9) for x, y in zip(a, b)))
        model, answered = mine["step_model"], theirs.get("step_model")
        yield unlike("step_model", model, answered,
                     lambda a, b: a is b or (a and b and all(close(a[k], b.get(k), 1e-7, 1e-9) for k in "abc")))
    elif outcome == "reserved":
        answered = theirs.get("reserved", {})
        yield unlike("reserved", mine["reserved"], {role: answered.get(role) or "" for role in ("prefill", "decode")})
    elif outcome == "keyed":
        yield unlike("keys", mine["keys"], theirs.get("keys"))
    elif outcome == "scaled":
        yield unlike("scale.action", mine["scale"]["action"], theirs.get("scale", {}).get("action"))
        yield unlike("scale.average", mine["scale"]["average"], theirs.get("scale", {}).get("average"),
                     lambda a, b: close(a, b, 2e-7))
    elif outcome == "configured":
        for name, value in mine["flags"].items():
            same = same_float32 if isinstance(value, float) else None
            if name != "extra-args" and not name.endswith("password"):  # secrets are not printed
                yield unlike(f"flags.{name}", value, theirs.get("flags", {}).get(name), same)


def difference(mine, theirs):
    return next((d for d in differences(mine, theirs) if d), None)


# ---- making a scene smaller -----------------------------------------------------------------------

def without_one(value):
    """Every value like this one with a single member left out, the largest members first."""
    if isinstance(value, dict):
        for name in sorted(value, key=lambda n: -len(json.dumps(value[n]))):
            yield {n: v for n, v in value.items() if n != name}
        for name, inner in value.items():
            for smaller in without_one(inner):
                yield {**value, name: smaller}
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value[:index] + value[index + 1:]
        for index, inner in enumerate(value):
            for smaller in without_one(inner):
                yield value[:index] + [smaller] + value[index + 1:]


def differs_alike(scene, theirs, kind):
    try:
        mine = second_opinion.answer(scene)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return False
    found = difference(mine, theirs)
    return found is not None and (mine["outcome"], theirs.get("outcome"), found.split(":")[0]) == kind


def shrunk(program, scene):
    """The scene with everything left out that the difference does not need."""
    if isinstance(scene, str):
        return scene
    mine, theirs = second_opinion.answer(scene), ask_program(program, [as_line(scene)])[0]
    kind = (mine["outcome"], theirs.get("outcome"), difference(mine, theirs).split(":")[0])
    smaller = True
    while smaller:
        smaller = False
        tries = without_one(scene)
        while batch := list(itertools.islice(tries, 200)):
            answers = ask_program(program, [as_line(one) for one in batch])
            found = next((one for one, theirs in zip(batch, answers) if differs_alike(one, theirs, kind)), None)
            if found is not None:
                scene, smaller = found, True
                break
    return scene


# ---- the runs -------------------------------------------------------------------------------------

def compare_batch(job):
    """(scenes compared, [(index, difference)]) of one batch of random scenes."""
    program, seed, first, count = job
    scenes = [random_scenes.scene(seed, index) for index in range(first, first + count)]
    lines = [as_line(scene) for scene in scenes]
    answers = ask_program(program, lines)
    found = [(first + offset, difference(second_opinion.answer_line(line), theirs))
             for offset, (line, theirs) in enumerate(zip(lines, answers))]
    return count, [(index, problem) for index, problem in found if problem]


def report(program, scene, problem, where):
    line = as_line(scene)
    print(f"{where}: {problem}\nscene: {line}\nexpected: {json.dumps(second_opinion.answer_line(line))}\n"
          f"answered: {json.dumps(ask_program(program, [line])[0])}")
    small = shrunk(program, scene)
    line = as_line(small)
    mine, theirs = second_opinion.answer_line(line), ask_program(program, [line])[0]
    print(f"smaller scene: {line}\nexpected: {json.dumps(mine)}\nanswered: {json.dumps(theirs)}\n"
          f"difference: {difference(mine, theirs)}", flush=True)


def expected_part(expected, answered, path=""):
    """What a scene by hand asks for and the answer lacks; lists must agree in length and order."""
    if isinstance(expected, dict) and isinstance(answered, dict):
        for name, value in expected.items():
            yield from expected_part(value, answered.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(expected, list) and isinstance(answered, list) and len(expected) == len(answered):
        for index, (one, other) in enumerate(zip(expected, answered)):
            yield from expected_part(one, other, f"{path}[{index}]")
    elif expected is None or isinstance(expected, bool) or isinstance(expected, str) and math.isnan(as_float(expected)):
        if expected != answered:
            yield f"{path}: {expected!r} expected, {answered!r} answered"
    elif isinstance(expected, (int, float, str)):
        if not close(expected, answered, 1e-6):
            yield f"{path}: {expected!r} expected, {answered!r} answered"
    else:
        yield f"{path}: {expected!r} expected, {answered!r} answered"


def scenes_by_hand():
    return json.loads((HERE / "scenes_by_hand.json").read_text())


def compare_by_hand(program):
    rows, failed = scenes_by_hand(), 0
    lines = [as_line(row["scene"]) for row in rows]
    answers = ask_program(program, lines)
    if answers != ask_program(program, lines):
        failed += 1
        print("the same scenes, other answers")
    for row, answered in zip(rows, answers):
        problems = list(expected_part(row["expect"], answered))
        other = difference(second_opinion.answer_line(as_line(row["scene"])), answered)
        for problem in problems + ([other] if other else []):
            print(f"by hand, {row['rule']}: {problem}\n  scene: {as_line(row['scene'])}\n"
                  f"  answered: {json.dumps(answered)}")
        failed += bool(problems or other)
    print(f"{len(rows)} scenes by hand, {failed} differ", flush=True)
    return failed == 0


def compare_exit_statuses(program):
    """Surface 1 and 5: one scene (over several lines, too) by its outcome, several by whether all were answered."""
    request = {"scheduling_mode": "neutral"}
    good, refused = {"instances": [{"id": "i1"}], "request": request}, {"instances": [], "request": request}
    bad = {**good, "asks": "place"}
    rows = ((json.dumps(good), 0, 1), (json.dumps(good, indent=1), 0, 1), (json.dumps(refused), 4, 1),
            (json.dumps(bad), 2, 1), ("{", 2, 1), (json.dumps(good) + "\n" + json.dumps(refused) + "\n", 0, 2),
            (json.dumps(good) + "\n" + json.dumps(bad) + "\n\n" + json.dumps(good), 2, 3))
    failed = 0
    for text, status, answers in rows:
        done = subprocess.run([program, "decide", "-"], input=text, capture_output=True, text=True, timeout=60)
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        if (done.returncode, len(lines)) != (status, answers):
            failed += 1
            print(f"exit status {done.returncode}, {len(lines)} lines; expected {status}, {answers}; scene: {text}")
    return failed == 0


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--program", default=os.environ.get("LLUMNIX", ""), help="default: $LLUMNIX")
    options.add_argument("--scenes", type=int, default=20000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--first", type=int, default=0, help="index of the first scene")
    options.add_argument("--jobs", type=int, default=1)
    options.add_argument("--all", action="store_true", help="count the differences by kind, one example each")
    options = options.parse_args()
    if not options.program:
        options.error("LLUMNIX names the program to compare with")
    alike = all([compare_by_hand(options.program), compare_exit_statuses(options.program)])
    jobs = [(options.program, options.seed, first, min(BATCH, options.first + options.scenes - first))
            for first in range(options.first, options.first + options.scenes, BATCH)]
    compared, kinds, examples = 0, collections.Counter(), {}
    with multiprocessing.Pool(options.jobs) as pool:
        for count, found in pool.imap(compare_batch, jobs):
            compared += count
            for index, problem in found:
                kind = problem.split(":")[0]
                kinds[kind] += 1
                examples.setdefault(kind, (index, problem))
            if found and not options.all:
                break
        pool.terminate()
    print(f"{compared} random scenes of seed {options.seed}, {sum(kinds.values())} differ", flush=True)
    for kind, number in kinds.most_common():
        index, problem = examples[kind]
        print(f"--- {number} times {kind}")
        report(options.program, random_scenes.scene(options.seed, index), problem, f"scene {index}")
    return 0 if alike and not kinds else 1


if __name__ == "__main__":
    sys.exit(main())
