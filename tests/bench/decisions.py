"""Plays simulated worlds to `crossfade simulate --stream` and tells how it decided, and how fast.

The worlds are those of `world.py` (see --tools). A run is routed by the program's own decisions, with
the same draws, the same late judge scores and the same ends as `drive.py` there, only a whole second
at a time. A result is one JSON line; with --out they are kept, and a run that is there is not played again.
"""
import argparse, collections, heapq, itertools, json, multiprocessing, os, statistics, subprocess, sys, tempfile, time

# Both providers see the request, candidate alone of the rest: shadow, read-only, low-stakes, half, full.
PLAN = [(0.05, 0.0), (0.02, 0.05), (0.02, 0.20), (0.02, 0.50), (0.02, 1.0)]
JUDGED = 0.5
STAGE_SECONDS_MAX, WATCH_SECONDS = 14_400, 1_800
# Where providers have slow spells of their own, the program has stood in front of the primary for a day.
HISTORY_SECONDS = 86_400
IDENTICAL = ["aa", "aa_drift", "aa_bursts", "aa_episodes"]

# What other rules come to in the same worlds: percent rolled back, percent promoted, or median
# candidate calls until back. Theirs are our reading of the documented defaults, with the same margins.
RULES = ["bets (reference)", "Flagger-like 1 min", "Argo-like 1 min", "Argo-like 5 min", "Kayenta-like",
         "fixed test, peeked", "fixed test, one look", "asymptotic conf. seq."]
FIGURES = {
    "aa":          ("rolled back %", [0.05, 100.0, 100.0, 25.5, 0.5, 94.0, 66.5, 25.0]),
    "aa_episodes": ("rolled back %", [1.0, 100.0, 100.0, 34.0, 12.0, 95.0, 74.0, 49.0]),
    "acceptable":  ("promoted %",    [99.0, 0.0, 0.0, 58.0, 39.0, 0.0, 0.0, 21.0]),
    "judge_2":     ("promoted %",    [99.3, 0.0, 0.0, 80.0, 0.0, 0.0, 0.0, 0.0]),
    "p99_100":     ("promoted %",    [90.7, 0.0, 0.0, 35.0, 62.0, 2.0, 10.0, 65.0]),
    "outage":      ("calls", [5, 1499, 1200, 7168, 2996, 1206, 2996, 1002]),
    "err_5pp":     ("calls", [81, 1486, 1198, 7144, 2991, 1201, 2990, 1002]),
    "err_2pp":     ("calls", [279, 1502, 1198, 7158, 2994, 1200, 2993, 1002]),
    "err_1pp":     ("calls", [772, 1760, 1490, 7132, 3010, 1192, 3004, 1174]),
    "err_0.5pp":   ("calls", [2928, 2142, 1793, 35144, 7506, 1206, 2992, 4452]),
    "p99_1000":    ("calls", [914, 1510, 1214, 7130, 3026, 1193, 2996, 1003]),
    "p99_500":     ("calls", [3746, 2070, 1524, 7186, 6105, 1212, 3004, 2760]),
    "tail_1000":   ("calls", [1428, 1538, 1226, 7165, 3108, 1196, 3001, 1438]),
    "judge_10":    ("calls", [277, 1506, 1202, 7131, 3010, 1201, 2997, 1002]),
    "judge_5":     ("calls", [1048, 2143, 1535, 20245, 3006, 1198, 2998, 1002]),
}
# Worlds of our own. Regressions within the margin, which nobody should send back; worlds that are
# played otherwise, in the strict mode and without the primary's past; and five points more errors in
# one stage, at once and after a long good time.
WITHIN = {"err_0.3pp": 0.003, "err_0.45pp": 0.0045}
OTHERWISE = {"err_0.45pp_strict": "err_0.45pp", "aa_episodes_unknown": "aa_episodes"}
PLAN_FILE, STRICT = "config/simulate.toml", "\n[rollout.simulated.risk]\nalarm_from = \"100%\"\n"
HELD = {"shadow": 0, "half": 3, "full": 4}
GOOD_CALLS = 216_000
# How many seeds of each world the table in README has.
SEEDS = {
    "aa": 999, "aa_episodes": 112, "aa_episodes_unknown": 30, "better": 81,
    "p99_200": 20, "err_0.45pp": 40,
    "err_0.45pp_strict": 2, "err_0.5pp": 8, "fresh_shadow": 21, "late_shadow": 5,
    **{f"{when}_{stage}": 21 for when, stage in itertools.product(["fresh", "late"], ["half", "full"])},
}
SEEDS_OTHERWISE = 200
# Lines a second that `simulate --stream` is to take, and seconds of a world to measure that on.
RATE_MIN, RATE_SECONDS = 100_000, 3_000


class Program:
    """The release binary, which answers one line for each tick."""
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, lines):
        self.process.stdin.write("".join(lines).encode())

    def ask(self, lines):
        self.tell(lines)
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.process.args[0]} ended with {self.process.wait()}")
        answer = json.loads(answer)
        return answer["d"], answer["why"]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def stage_line(at, index):
    pair, share = PLAN[index]
    primary, candidate = pair + (1 - pair) * (1 - share), pair + (1 - pair) * share
    return f'{{"e":"stage","t":{at!r},"index":{index},"rho_p":{primary!r},"rho_c":{candidate!r}}}\n'


def seen(b, index):
    """Which sides of a second's requests are seen, by the draws of the world."""
    pair, share = PLAN[index]
    both = b["u"] < pair
    alone = (b["u"] - pair) / (1 - pair) < share
    return both, both | ~alone, both | alone


def side(ok, ms, usd):
    return f'{{"ok":{"true" if ok else "false"},"ms":{ms!r},"usd":{usd!r}}}'


def observations(b, number, sees_p, sees_c):
    """The lines of a second; `number` requests came before it."""
    columns = [b[it].tolist() for it in ("t", "p_ok", "p_ms", "p_usd", "c_ok", "c_ms", "c_usd")]
    lines = []
    for t, p_ok, p_ms, p_usd, c_ok, c_ms, c_usd, p, c in zip(*columns, sees_p.tolist(), sees_c.tolist()):
        number += 1
        primary = side(p_ok, p_ms, p_usd) if p else "null"
        candidate = side(c_ok, c_ms, c_usd) if c else "null"
        lines.append(f'{{"e":"obs","t":{t:.4f},"id":{number},"p":{primary},"c":{candidate}}}\n')
    return lines


def remember(b):
    """The lines of a second before the first stage: the primary alone, one call in ten."""
    columns = [b[it][::10].tolist() for it in ("t", "p_ok", "p_ms", "p_usd")]
    return [f'{{"e":"obs","t":{t:.4f},"p":{side(ok, ms, usd)},"c":null}}\n' for t, ok, ms, usd in zip(*columns)]


def play(program, world, name, seed, rps):
    """One run, from the first stage to its end: rollback, promoted or stalled. Where one stage is held
    whatever is decided, calls and time count from the fault on, and what goes back before it is early."""
    past = HISTORY_SECONDS if world.SCENARIOS[name].own_epi and not name.endswith("_unknown") else 0
    index, held = 0, held_stage(name)
    fault = int(world.SCENARIOS[name].start) if held is not None else past
    entered, scores = float(fault), []
    calls = served = bad_served = 0
    for second, b in world.seconds(OTHERWISE.get(name, name), seed, rps):
        if second < past:
            program.tell(remember(b))
            continue
        if second == past:
            program.tell([stage_line(float(past), 0)])
            if held:
                index = held
                program.tell([stage_line(float(past), held)])
        if second == fault:
            calls = served = bad_served = 0
        now = second + 1.0
        both, sees_p, sees_c = seen(b, index)
        lines = observations(b, b["i0"], sees_p, sees_c)
        alone = sees_c & ~both
        calls, served = calls + int(sees_c.sum()), served + int(alone.sum())
        bad_served += int((alone & ~b["c_ok"]).sum())
        for k in (both & b["p_ok"] & b["c_ok"] & (b["uj"] < JUDGED)).nonzero()[0].tolist():
            late = float(b["t"][k] + b["jd"][k])
            heapq.heappush(scores, (late, b["i0"] + k, float(b["jp"][k]), float(b["jc"][k])))
        while scores and scores[0][0] <= now:
            _, _, p, c = heapq.heappop(scores)
            lines.append(f'{{"e":"score","p":{p!r},"c":{c!r}}}\n')
        lines.append(f'{{"e":"tick","t":{now!r}}}\n')
        decision, why = program.ask(lines)
        last = index == len(PLAN) - 1
        outcome = None
        if decision == "rollback":
            outcome = "rollback" if fault <= second else "early"
        elif held is not None and now - entered < STAGE_SECONDS_MAX:
            continue
        elif last and held is None and now - entered >= WATCH_SECONDS:
            outcome = "promoted"
        elif decision == "advance" and not last and held is None:
            index, entered = index + 1, now
            program.tell([stage_line(now, index)])
        elif (decision != "advance" or held is not None) and now - entered >= STAGE_SECONDS_MAX:
            outcome = "stalled"
        if outcome:
            why = "" if outcome == "promoted" else why
            return dict(scenario=name, seed=seed, outcome=outcome, why=why, t=now - fault, stage=index,
                        cand_obs=calls, served=served, bad_served=bad_served)


def worlds(options):
    """The worlds, and ours."""
    sys.path.insert(0, options.stats)
    import world
    for name, err in WITHIN.items():
        world.SCENARIOS[name] = world.Scenario(truth="acceptable", gate="error", err=err)
    for name, base in OTHERWISE.items():
        world.SCENARIOS[name] = world.SCENARIOS[base]
    for stage, index in HELD.items():
        pair, share = PLAN[index]
        good = round(GOOD_CALLS / (options.rps * (pair + (1 - pair) * share)))
        for when, start in (("fresh", 0), ("late", good)):
            world.SCENARIOS[f"{when}_{stage}"] = world.Scenario(truth="bad", gate="error", err=0.05, start=float(start))
    return world


def held_stage(name):
    """The one stage that a world is played in, if it is."""
    when, _, stage = name.partition("_")
    return HELD.get(stage) if when in ("fresh", "late") else None


def refer(world, name, seed, rps):
    """A run of the reference."""
    import drive, refgate
    held = held_stage(name)
    if held is None:
        return {**drive.run(refgate.Controller(), OTHERWISE.get(name, name), seed, rps), "scenario": name}
    result = drive.run(refgate.Controller(), name, seed, rps, max_stage=1e9, watch=1e9, plan=[drive.PLAN[held]])
    fault = int(world.SCENARIOS[name].start)
    good = itertools.islice(world.seconds(name, seed, rps), fault)
    result["cand_obs"] -= sum(int(seen(b, held)[2].sum()) for _, b in good)
    return {**result, "t": result["t"] - fault, "outcome": result["outcome"] if fault <= result["t"] else "early"}


def plan_of(name, options):
    """The plan to try, where it is not the built-in one."""
    return options.strict_plan if name.endswith("_strict") else options.plan


def run(task):
    name, seed, options = task
    world = worlds(options)
    if options.reference:
        result = refer(world, name, seed, options.rps)
        result.pop("truth")
    else:
        plan = plan_of(name, options)
        program = Program([options.program, "simulate", "--stream"] + (["--plan", plan] if plan else []))
        result = play(program, world, name, seed, options.rps)
        program.close()
    return {"by": by(options), "rps": options.rps, **result}


def by(options):
    return "reference" if options.reference else "crossfade" + (f" {options.plan}" if options.plan else "")


def stream_rate(options, world):
    """Lines a second that the program takes, of a world in the first stage."""
    with tempfile.TemporaryFile() as lines:
        lines.write(stage_line(0.0, 0).encode())
        count = 1
        for second, b in itertools.islice(world.seconds("aa", 1, options.rps), RATE_SECONDS):
            told = observations(b, b["i0"], *seen(b, 0)[1:]) + [f'{{"e":"tick","t":{second + 1.0!r}}}\n']
            lines.write("".join(told).encode())
            count += len(told)
        lines.seek(0)
        started = time.monotonic()
        subprocess.run([options.program, "simulate", "--stream"], stdin=lines, stdout=subprocess.DEVNULL, check=True)
        return count / (time.monotonic() - started)


def clopper_pearson(hits, n):
    """The 95 % interval of a share."""
    from scipy.stats import beta
    low = beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
    return low, (beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0)


def share(hits, n):
    low, high = clopper_pearson(hits, n)
    return {"hits": hits, "n": n, "percent": 100 * hits / n, "low": 100 * low, "high": 100 * high}


def summary(name, results):
    n = len(results)
    back = [it for it in results if it["outcome"] == "rollback"]
    promoted = [it for it in results if it["outcome"] == "promoted"]
    median = lambda values: statistics.median(values) if values else None
    calls = sorted(it["cand_obs"] for it in back)
    row = {
        "world": name, "n": n, "rolled_back": share(len(back), n), "promoted_percent": 100 * len(promoted) / n,
        "stalled_percent": 100 * (n - len(back) - len(promoted)) / n,
        "calls_median": median(calls), "calls_p90": calls[min(len(calls) - 1, int(0.9 * len(calls)))] if calls else None,
        "back_seconds": median([it["t"] for it in back]), "promoted_seconds": median([it["t"] for it in promoted]),
        "why": dict(collections.Counter(it["why"].split(":")[0] for it in back).most_common()),
    }
    if name in FIGURES:
        unit, figures = FIGURES[name]
        row["others"] = {"unit": unit, **dict(zip(RULES, figures))}
        if unit == "calls" and calls:
            row["ratio"] = row["calls_median"] / figures[0]
    return row


def report(results, form, rps, world, rate):
    of_world = collections.defaultdict(list)
    for it in results:
        of_world[it["scenario"]].append(it)
    rows = [summary(name, its) for name, its in of_world.items()]
    identical = [it for name in IDENTICAL for it in of_world[name]]
    false = share(sum(it["outcome"] == "rollback" for it in identical), len(identical)) if identical else None
    bad = [it for it in results if world.SCENARIOS[it["scenario"]].truth == "bad"]
    missed = share(sum(it["outcome"] == "promoted" for it in bad), len(bad)) if bad else None
    if form == "json":
        print(json.dumps({"rps": rps, "worlds": rows, "false_rollbacks": false, "missed": missed,
                          "stream_lines_per_second": rate}))
        return
    heads = ["world", "n", "back %", "promoted %", "stalled %", "calls", "p90", "s back", "s promoted", "reference", "x ref"]
    lines = [heads + RULES[1:] + ["gates"]]
    number = lambda it: "-" if it is None else f"{it:,.0f}"
    for it in rows:
        others = it.get("others")
        figures = [f"{others[rule]:,g}" if others else "-" for rule in RULES]
        figures[0] += {"rolled back %": "% back", "promoted %": "% up", "calls": ""}[others["unit"]] if others else ""
        lines.append([
            it["world"], str(it["n"]), f"{it['rolled_back']['percent']:.1f}", f"{it['promoted_percent']:.1f}",
            f"{it['stalled_percent']:.1f}", number(it["calls_median"]), number(it["calls_p90"]),
            number(it["back_seconds"]), number(it["promoted_seconds"]), figures[0],
            f"{it['ratio']:.2f}" if "ratio" in it else "-", *figures[1:],
            ", ".join(f"{why} {count}" for why, count in it["why"].items())])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) if k in (0, len(line) - 1) else cell.rjust(width)
                        for k, (cell, width) in enumerate(zip(line, widths))).rstrip())
    if false:
        print(f"\nidentical arms: {false['hits']} of {false['n']} rolled back, {false['percent']:.2f} % "
              f"(95 % Clopper-Pearson {false['low']:.2f} to {false['high']:.2f} %); {rps:g} requests a second")
    if missed:
        print(f"bad candidates: {missed['hits']} of {missed['n']} promoted (95 % up to {missed['high']:.2f} %)")
    medians = {it["world"]: it["calls_median"] for it in rows}
    for stage in HELD:
        fresh, late = (medians.get(f"{when}_{stage}") for when in ("fresh", "late"))
        if fresh and late:
            print(f"+5 pp after {GOOD_CALLS:,} good candidate calls, {stage}: {late:,g} calls, "
                  f"{late / fresh:.2f} times the {fresh:,g} of a fresh one")
    if rate:
        print(f"simulate --stream: {rate:,.0f} lines a second (at least {RATE_MIN:,} wanted)")


def main():
    a = argparse.ArgumentParser(prog="scripts/bench decisions", description=__doc__.split("\n")[0])
    a.add_argument("--seeds", type=int, metavar="N", help="seeds 1 to N, N below 1000; else as many as the table in README has")
    a.add_argument("--worlds", default="all", metavar="A,B", help="which worlds")
    a.add_argument("--rps", type=float, default=100.0, help="requests a second")
    a.add_argument("--jobs", type=int, default=2, help="runs at a time")
    a.add_argument("--plan", metavar="FILE", help="the plan to try instead of the built-in one")
    a.add_argument("--out", metavar="FILE", help="keep results here, and play only what is missing")
    a.add_argument("--reference", action="store_true", help="play the reference controller instead")
    a.add_argument("-o", "--output", choices=["table", "json"], default="table")
    a.add_argument("--program", required=True, help=argparse.SUPPRESS)
    a.add_argument("--stats", required=True, help=argparse.SUPPRESS)
    options = a.parse_args()
    world = worlds(options)
    names = list(world.SCENARIOS) if options.worlds == "all" else options.worlds.split(",")
    unknown = [it for it in names if it not in world.SCENARIOS]
    if unknown or not 1 <= (options.seeds or 1) < 1000:
        a.error(f"no such world: {', '.join(unknown)}" if unknown else "seeds are 1 to 999")
    kept = {}
    if options.out and os.path.exists(options.out):
        with open(options.out) as file:
            for it in map(json.loads, file):
                if it["by"] == by(options) and it["rps"] == options.rps:
                    kept[it["scenario"], it["seed"]] = it
    seeds = {name: range(1, 1 + (options.seeds or SEEDS.get(name, SEEDS_OTHERWISE))) for name in names}
    wanted = [(name, seed) for name in names for seed in seeds[name]]
    missing = [(name, seed, options) for name, seed in wanted if (name, seed) not in kept]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as strict, open(PLAN_FILE) as plan:
        strict.write(plan.read() + STRICT)
        strict.flush()
        options.strict_plan = strict.name
        with multiprocessing.Pool(options.jobs) as pool:
            for done, it in enumerate(pool.imap_unordered(run, missing), 1):
                kept[it["scenario"], it["seed"]] = it
                if options.out:
                    with open(options.out, "a") as file:
                        file.write(json.dumps(it) + "\n")
                print(f"\r{done} of {len(missing)} ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rate = None if options.reference else stream_rate(options, world)
    report([kept[it] for it in wanted], options.output, options.rps, world, rate)


if __name__ == "__main__":
    main()
