"""Mutated recipes, data files, and configs, tokenizers and adapters, each through `hfft check` in a process of its own.

`python tests/fuzz.py --recipes 1000 --tables 1000 --models 500` (`make fuzz`) ends with 0 where every case ended within
30 seconds with one of hfft's exit codes and its lines. A case is its kind, seed and number: `--only tables:17` repeats
one and shows what was written; files of failing cases are kept in the folder that is printed.
"""

# ruff: noqa: E501 (values and pieces, side by side)

import argparse
import contextlib
import gc
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import tiny
import yaml

import hfft.cli

LIMIT, MEMORY = 30, 4 << 30  # seconds and bytes that a case may take
KINDS = ("recipes", "tables", "models")
VALUES = [
    None, True, False, 0, 1, 2, -1, 3, 7, 64, 3.7, -0.5, 1e-300, 1e308, 2**31, 10**12, 10**25, math.nan, math.inf, "", " ",
    "x", "no", "1e-4", "0", "-1", "nan", "ä", "a\nb", "${HOME}", "~", "../x", "/etc/passwd", "a/b", "*", "a\0b", "\ud83d",
    "𝕏" * 50, "x" * 5000, "steps", "epoch", "constant", "float16", "auto", "train.csv", "base", "run", "LORA", "q_proj",
    [], [1], ["a", "b"], [[]], [None], {}, {"a": 1}, {"name": "base"}, {"train": "train.csv"}, {"peft": {"peft_type": "LORA"}},
]  # fmt: skip
PIECES = [
    b",", b";", b"\t", b'"', b"'", b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"{", b"}", b"[", b"]", b":",
    b": ", b"- ", b"&a ", b"*a", b"!!str ", b"|\n", b"#", b"%YAML 1.2\n", b"---\n", b"\\", b"\\ud800", b"\\u0000", b"null", b"NaN",
    b"true", b"1e999", b"-1", b"-100", b"0.5", b" ", b"\xe2\x80\x8b", b"\xc3\xa9", b"9" * 5000, b"[" * 2000, b"x" * 70_000, b"<<: ",
]  # fmt: skip
LORA = {"peft": {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query", "value"]}}
RECIPE = {
    "task": "text_classification",
    "model": {"name": "base"},
    "data": {"path": {"train": "train.csv", "eval": "eval.csv"}},
    "train": {"output_dir": "out", "max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True},
}
RECIPES = [
    RECIPE,
    RECIPE | {"tuning": [LORA], "objectives": [{"label_smoothing": {"alpha": 0.1}}], "export": ["merge"]},
    RECIPE
    | {
        "task": {"text_classification": {"max_length": 32}},
        "data": {"path": "train.jsonl", "columns": {"text": "text", "label": "label"}, "filters": ["dedup"], "labels": {"pos": "good", "neg": "bad"}},
        "tuning": "frozen",
        "metrics": [],
    },
    RECIPE | {"data": {"path": "train.csv", "load": {"streaming": True, "sep": ","}, "eval_size": 8}},
]  # fmt: skip


# ---- what is mutated ------------------------------------------------------------------------------------------------
def build(folder: Path) -> None:
    """Model, data, a recipe and a finished run with an adapter."""
    tiny.build("bert", folder / "base")
    for seed, name in enumerate(("train", "eval")):
        rows = tiny.sentences(40, seed)
        (folder / f"{name}.csv").write_text("text,label\n" + "".join(f'"{r["text"]}",{r["label"]}\n' for r in rows))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "lora.yaml").write_text(yaml.safe_dump(RECIPES[1] | {"train": RECIPE["train"] | {"output_dir": "run"}}))
    code, said, _ = run(["train", "lora.yaml"], folder, limit=120)
    assert code == 0, said


def recipes(draw: random.Random, folder: Path) -> list[str]:
    """A recipe with other characters, with other keys and values, or with further ones that its keys allow."""
    data = json.loads(json.dumps(draw.choice(RECIPES)))
    if (form := draw.random()) < 0.35:
        for _ in range(draw.choice((1, 1, 2, 4))):
            change(draw, data, known_keys())
    elif form < 0.7:
        for _ in range(draw.choice((1, 2, 3))):
            allow(draw, data)
    if form < 0.7:
        content = yaml.dump(data, allow_unicode=draw.random() < 0.5, sort_keys=False).encode("utf-8", "surrogatepass")
    else:
        content = scramble(draw, yaml.safe_dump(data, sort_keys=False).encode())
    (folder / "case.yaml").write_bytes(content)
    return ["check", "case.yaml"]


def tables(draw: random.Random, folder: Path) -> list[str]:
    """A csv or JSON lines file with other characters, sometimes read with other options."""
    ending = draw.choice(("csv", "csv", "tsv", "jsonl", "jsonl", "json"))
    name = "train.jsonl" if "json" in ending else "train.csv"
    content = (folder / name).read_bytes()
    content = content.replace(b",", b"\t") if ending == "tsv" else content
    if name == "train.jsonl" and draw.random() < 0.5:
        rows = [json.loads(line) for line in content.splitlines()]
        for _ in range(draw.choice((1, 2, 4))):
            change(draw, rows, [])
        content = "\n".join(json.dumps(row) for row in rows).encode()
    else:
        content = scramble(draw, content)
    (folder / f"case.{ending}").write_bytes(content)
    how = draw.choice(([], [], ["data.on_bad_row=skip"], ["data.load.streaming=true", "data.eval_size=8"]))
    return ["check", "recipe.yaml", f"data.path=case.{ending}", *how]


def models(draw: random.Random, folder: Path) -> list[str]:
    """A config, a tokenizer or an adapter with other characters, or with other keys and values."""
    source, name = draw.choice(
        [("base", "config.json")] * 2
        + [("base", "tokenizer.json"), ("base", "tokenizer_config.json")] * 2
        + [("run", "adapter_config.json")] * 3
    )
    shutil.rmtree(folder / "case", ignore_errors=True)
    shutil.copytree(folder / source, folder / "case", copy_function=os.link)
    content = (folder / source / name).read_bytes()
    if draw.random() < 0.75:
        data = json.loads(content)
        for _ in range(draw.choice((1, 1, 2))):
            change(draw, data, [])
        content = json.dumps(data).encode()
    else:
        content = scramble(draw, content)
    (folder / "case" / name).unlink()
    (folder / "case" / name).write_bytes(content)
    if source == "run" and draw.random() < 0.7:
        return ["predict", "case", "eval.csv", "--output", "answers"]
    return ["check", "recipe.yaml", "model.name=case"]


def allow(draw: random.Random, data: dict) -> None:
    """One more key of a section, or another value of one, of the type that it takes."""
    from hfft.grammar import known, values

    lora = [part["peft"] for part in data.get("tuning", []) if "peft" in part]
    sections = [(data["train"], known.train_known())] * 3 + [(part, known.peft_known("LORA")) for part in lora]
    sections += [(data["model"], known.model_known()), (data["data"], known.DATA)]
    sections += [(data["data"].setdefault("load", {}), known.load_known())]
    section, kinds = draw.choice(sections)
    key = draw.choice(sorted(set(kinds) - {"output_dir", "path", "torch_compile"}))
    fitting = [value for value in VALUES if kinds[key] is not None and values.fits(value, kinds[key])]
    section[key] = draw.choice(fitting or VALUES)


def known_keys() -> list[str]:
    from hfft.grammar import known

    parts = (known.train_known(), known.DATA, known.MODEL, known.model_known(), known.peft_known("LORA"))
    return [*known.TOP, *(key for keys in (*parts, known.load_known()) for key in keys)]


# ---- how it is mutated ----------------------------------------------------------------------------------------------
def change(draw: random.Random, data, keys: list[str]) -> None:
    """One value, key or entry somewhere in lists and mappings becomes another, goes, or comes."""
    holders = [data]
    for holder in holders:
        inside = holder.values() if isinstance(holder, dict) else holder
        holders += [value for value in inside if isinstance(value, dict | list)]
    holder = draw.choice(holders[:200]) if draw.random() < 0.7 else data
    places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    value = json.loads(json.dumps(draw.choice(VALUES)))
    what = draw.choice(("set", "set", "set", "nudge", "delete", "add", "rename"))
    if not places or what == "add":
        name = draw.choice([*keys, "x", "text", "label"])
        holder.update({name: value}) if isinstance(holder, dict) else holder.append(value)
        return
    place = draw.choice(places)
    if what == "delete":
        del holder[place]
    elif what == "rename" and isinstance(holder, dict):
        holder[scramble(draw, place.encode()).decode("utf-8", "replace")] = holder.pop(place)
    elif what == "nudge" and isinstance(holder[place], int | float):
        holder[place] = draw.choice(
            (holder[place] + 1, -holder[place], holder[place] * 10, holder[place] / 2, str(holder[place]))
        )
    else:
        holder[place] = value


def scramble(draw: random.Random, content: bytes) -> bytes:
    """A few bytes flipped, cut, doubled, moved, replaced or inserted."""
    text = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice((0, 1, 1, 5, 40)))
        what = draw.choice(("flip", "delete", "double", "insert", "insert", "replace", "cut", "lines"))
        if what == "flip" and start < len(text):
            text[start] ^= 1 << draw.randrange(8)
        elif what == "delete":
            del text[start:end]
        elif what == "double":
            text[start:start] = text[start:end]
        elif what == "cut" and draw.random() < 0.3:
            del text[start:]
        elif what == "lines":
            lines = bytes(text).splitlines(keepends=True)
            if len(lines) > 1:
                i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
                lines[i], lines[j] = lines[j], lines[i]
                text = bytearray(b"".join(lines))
        else:
            text[start : end if what == "replace" else start] = draw.choice(PIECES)
    return bytes(text)


# ---- how it is judged -----------------------------------------------------------------------------------------------
def run(argv: list[str], folder: Path, limit: float = LIMIT) -> tuple[int | None, str, float]:
    """(exit code, negative for a signal, None where the limit ended it; what was written; seconds)."""
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        start, child = time.monotonic(), os.fork()
        if not child:
            alone(argv, folder, out.fileno())
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            seconds = time.monotonic() - start
            if pid or seconds > limit:
                break
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # and what it may have left
        if not pid:
            os.waitpid(child, 0)
        out.seek(0)
        return os.waitstatus_to_exitcode(status) if pid else None, out.read(), seconds


def alone(argv: list[str], folder: Path, out: int) -> None:
    """The child: `hfft ARGV` in the folder, with little memory and disk."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        code = hfft.cli.main(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout and sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def trouble(code: int | None, said: str) -> str:
    """What is wrong with how a case ended; empty where nothing is."""
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("hfft: error: ")]
    if code is None:
        return "hang"
    if code not in (0, 2, 3, 4, 5):
        return f"exit code {code}"
    if "Traceback" in said:
        return "traceback"
    if bool(code) != bool(errors):
        return f"exit code {code} with {len(errors)} lines of error"
    if any(re.match(r"hfft: error: \w+(Error|Exception): ", line) for line in errors):
        return "a library's error"
    long = [line for line in lines if len(line) > 300 and line.startswith("hfft: ")]  # others' are not ours to cut
    return "a long line" if long else ""


def case(kind: str, seed: int, number: int, folder: Path, *more: str) -> tuple[list[str], int | None, str, float]:
    """Make the case and run it."""
    argv = globals()[kind](random.Random(f"{kind} {seed} {number}"), folder)
    return argv, *run([*argv, *more], folder)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    for kind in KINDS:
        options.add_argument(f"--{kind}", type=int, default=0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="KIND:NUMBER")
    args = options.parse_args()
    import peft  # noqa: F401
    import transformers.models.bert.modeling_bert  # noqa: F401

    import hfft.evaluation
    import hfft.pipeline
    import hfft.preflight  # noqa: F401

    folder, kept = Path(tempfile.mkdtemp(prefix="hfft-fuzz-")), Path(tempfile.mkdtemp(prefix="hfft-fuzz-failed-"))
    os.environ["HFFT_CACHE"] = str(folder / "cache")
    gc.collect()
    gc.freeze()
    build(folder)
    if args.only:
        kept.rmdir()
        kind, number = args.only.split(":")
        argv, code, said, seconds = case(kind, args.seed, int(number), folder, "--debug")
        print(f"{' '.join(argv)}\n{said}{code} after {seconds:.1f} s in {folder}: {trouble(code, said) or 'good'}")
        return 0
    failed = 0
    for kind in KINDS:
        ends, start, slowest = Counter(), time.monotonic(), 0.0
        for number in range(getattr(args, kind)):
            argv, code, said, seconds = case(kind, args.seed, number, folder)
            ends[code], slowest = ends[code] + 1, max(slowest, seconds)
            if wrong := trouble(code, said):
                failed += 1
                last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
                print(f"{kind}:{number} (seed {args.seed}): {wrong}: hfft {' '.join(argv)}\n  {last[:400]}", flush=True)
                for path in folder.glob("case*"):
                    target = kept / f"{kind}-{number}-{path.name}"
                    shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)
        if sum(ends.values()):
            told = ", ".join(f"{count} x {code}" for code, count in sorted(ends.items(), key=str))
            took = f"{time.monotonic() - start:.0f} s, the slowest {slowest:.1f} s"
            print(f"{kind}: {sum(ends.values())} cases in {took}; exit codes {told}", flush=True)
    shutil.rmtree(folder)
    if not failed:
        kept.rmdir()
    print(f"{failed} failed" + (f", see {kept}" if failed else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
