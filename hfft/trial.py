"""Trial: what foreign content does to a process, tried in one of its own, which `hfft/safety.py` starts.

A request is one JSON object on standard input, the answer JSON on standard output. There is no hfft in here, and of the
libraries only tokenizers, so that a trial takes a tenth of a second.
"""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

TOO_MANY = 100  # tokens of a letter; letters that a chain of replacements makes of one: ten times that


def limit(seconds: int, memory: int) -> None:
    """End this process where it takes more: seconds of CPU, bytes of address space. Not on Windows."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def matches(pattern: str, names: list[str]) -> list[str]:
    """The names that a regular expression matches whole."""
    compiled = re.compile(pattern)
    return [name for name in names if compiled.fullmatch(name)]


def encodes(file: str) -> str:
    """What is wrong with a tokenizer.json, or nothing: every letter is encoded, and runs of each common one."""
    from tokenizers import Tokenizer

    try:
        with open(file, encoding="utf-8") as opened:
            wrong = grows(json.load(opened))
        tokenizer = Tokenizer.from_file(file)
    except Exception:  # no tokenizer at all: who loads it says so
        return ""
    if wrong:
        return wrong
    tokenizer.no_truncation()
    tokenizer.no_padding()
    letters = [chr(code) for code in range(32, 0xFFFE) if not 0xD800 <= code < 0xE000]
    texts = [" ".join(letters[i : i + 64]) for i in range(0, len(letters), 64)]
    texts += [letter * 64 + "!" for letter in letters[:160]]
    texts += [word * 500 for word in ("a", " ", "\n", "the cat ", "aA1 ", "://")]
    worst = max(len(tokenizer.encode(text).ids) / len(text) for text in texts)
    return f"makes {worst:,.0f} tokens of a letter" if worst > TOO_MANY else ""


def grows(tokenizer: dict[str, Any]) -> str:
    """What a chain of replacements makes of one letter at most, where that is too much."""
    factor, places = 1, [tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")]
    while places:
        place = places.pop()
        if isinstance(place, list):
            places += place
        elif isinstance(place, dict):
            places += [place.get("normalizers"), place.get("pretokenizers")]
            old, new = place.get("pattern"), place.get("content")
            text = old.get("String") if isinstance(old, dict) else None
            if place.get("type") == "Replace" and isinstance(new, str):
                factor *= max(1, len(new) // max(1, len(text or "")))
    return f"makes {factor:,} letters of one" if factor > 10 * TOO_MANY else ""


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    sys.path[:] = asked["path"]
    limit(asked["seconds"], asked["memory"])
    functions: dict[str, Callable[..., Any]] = {"matches": matches, "encodes": encodes}
    print(json.dumps(functions[asked["what"]](**asked["given"])))
