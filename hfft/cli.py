"""hfft train|check|eval|predict|export|seal|verify|schema|list: one thin function each, over the Python API."""

import argparse
import contextlib
import gc
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hfft import __version__, launch, lookup, safety
from hfft.messages import HfftError, InputError, is_main_process, logger, pass_warnings_on, printed, redacted, speak


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 2 input, 3 machine, 4 checkpoint, 5 Hub, 70 our bug, 75 stopped."""
    speak()
    _set_up_the_hub()
    debug = False
    try:
        args = _parsed(argv)
        debug = args.debug
        answer = args.run(args)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = None  # type: ignore[assignment]
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            print(redacted(traceback.format_exc()), file=sys.stderr)
        code = launch.exit_code(error)
        launch.failed(code)
        for line in filter(launch.first_to_say, _lines(error)):
            print(printed(line), file=sys.stderr)
        return code
    if args.json and answer is not None and is_main_process():
        print(json.dumps(answer, ensure_ascii=False, default=str))
    return 0


def _lines(error: BaseException) -> list[str]:
    """What is said of the error that ended the command."""
    if isinstance(error, HfftError):
        return [f"hfft: error: {line}" for line in error.lines]
    if isinstance(error, KeyboardInterrupt):
        return [f"hfft: {str(error) or 'stopped'}"]
    if launch.is_of_another(error):
        return ["hfft: error: another process of this run is gone; its own line or the launcher's report says why"]
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError | MemoryError):
        return [f"hfft: error: {what}"]
    return [f"hfft: error: a bug of hfft: {what}; --debug shows where"]


class Parser(argparse.ArgumentParser):
    """argparse with hfft's one-line errors."""

    def error(self, message: str):
        """Usage mistakes end like all others."""
        raise InputError(f"command line: {message}; {self.prog} --help shows what there is")


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """key=value words may stand anywhere among the options, which argparse alone does not allow."""
    top = parser()
    args, rest = top.parse_known_args(argv)
    extra = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(extra) < len(rest) or (extra and not hasattr(args, "overrides")):
        top.error(
            f"unknown argument {next(word for word in rest if word not in extra or not hasattr(args, 'overrides'))!r}"
        )
    if extra:
        args.overrides = [*args.overrides, *extra]
    return args


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="hfft", description=__doc__)
    top.add_argument("--version", action="version", version=f"hfft {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, run, add in COMMANDS:
        sub = commands.add_parser(name, help=(run.__doc__ or "").split("\n")[0], description=run.__doc__)
        add(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
    return top


def train(args) -> dict[str, Any]:
    """Fine-tune as the recipe says and leave the run in train.output_dir."""
    launch.begin()
    recipe = _recipe(args)
    with _fast_imports():
        from hfft.pipeline import finetune

    _quiet()
    with _located(recipe):
        result = finetune(recipe, resume=args.resume, overwrite=args.overwrite, allow_change=args.allow_change)
    return {"folder": str(result.folder), **result.metrics}


def check(args) -> dict[str, Any]:
    """Find every mistake of recipe, data, model and machine, without training."""
    try:
        recipe = _recipe(args)
        with _fast_imports():
            from hfft.preflight import check as check_recipe

        _quiet()
        with _located(recipe):
            return check_recipe(recipe, show=args.show, full=args.full)
    except HfftError as error:
        if args.json:
            told = error.answer or {"problems": [{"code": error.exit_code, "message": line} for line in error.lines]}
            print(json.dumps(told, ensure_ascii=False, default=str))
        raise


def evaluate(args) -> dict[str, Any]:
    """Metrics of a finished run, on its own evaluation split or on new data."""
    with _fast_imports():
        from hfft.evaluation import of_run

    _quiet()
    found = of_run(args.folder, data=args.data, split=args.split, trust_code=args.trust_code)
    if not args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return found


def predict(args) -> None:
    """Answers for new rows, one JSON line each."""
    with _fast_imports():
        from hfft.predict import load
    from hfft.reading.inputs import named

    _quiet()
    result = load(args.folder, trust_code=args.trust_code)
    given = named(args.input, "image" in result.task.columns)
    answers = result.predict(given, batch_size=args.batch_size, top_k=args.top_k)
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    if args.output:
        Path(args.output).write_text(lines, encoding="utf-8")
    else:
        sys.stdout.write(lines)


def export(args) -> dict[str, Any]:
    """One of export/ on a finished run: a merged model, another format, the Hub."""
    from hfft.recipe import export_part

    part = export_part(args.name, args.options, trust_code=args.trust_code)
    with _fast_imports():
        from hfft.predict import load
        from hfft.seal import of_export

    _quiet()
    result = load(args.folder, trust_code=args.trust_code)
    path = lookup.call("export", part, result, result.folder / "exports" / part.name)
    of_export(path)
    logger.info("written: %s", path)
    return {"path": str(path)}


def seal(args) -> dict[str, Any]:
    """Write the hash of each file of a run or an export, and with a key a signature."""
    from hfft import seal as sealing

    found = sealing.seal(args.folder, key=args.sign)
    logger.info("sealed: %s files of %s%s", found["files"], args.folder, ", signed" if args.sign else "")
    return found


def verify(args) -> dict[str, Any]:
    """Find what was changed or added in a run or an export since it was sealed; exit code 4 names the file."""
    from hfft import seal as sealing

    found = sealing.verify(args.folder, public_key=args.public_key)
    signed = ", signed with this key" if args.public_key else ""
    logger.info("verified: %s files of %s are as they were sealed%s", found["files"], args.folder, signed)
    return found


def schema(args) -> None:
    """The JSON Schema of a recipe, for an editor's completion."""
    from hfft.recipe import json_schema

    print(json.dumps(json_schema(), indent=2))


def listing(args) -> dict[str, Any] | None:
    """Every part with its first sentence."""
    kinds = [args.kind] if args.kind else list(lookup.KINDS)
    found = {kind: {name: lookup.summary(kind, name) for name in lookup.names(kind)} for kind in kinds}
    if not args.json:
        for kind, parts in found.items():
            print(kind)
            for name, summary in parts.items():
                print(f"  {name:<22} {summary}")
    return found


@contextlib.contextmanager
def _fast_imports() -> Iterator[None]:
    """No garbage collection while torch and transformers are imported: there is no garbage, and it costs a quarter."""
    safety.versions()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _set_up_the_hub() -> None:
    """What the libraries read when they are imported: no code (kernels) from the Hub, no telemetry to it.

    Xet uploads would go to the Hub's own storage whatever HF_ENDPOINT is.
    """
    os.environ.setdefault("USE_HUB_KERNELS", "NO")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname != "huggingface.co":
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")


def _quiet() -> None:
    """Our lines instead of the libraries' bars and reports, which say the same at more length."""
    import datasets
    import huggingface_hub
    import transformers

    huggingface_hub.utils.disable_progress_bars()
    huggingface_hub.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)  # one library tells another of its next version
    pass_warnings_on()


def _recipe(args):
    from hfft.recipe import Recipe

    if args.paranoid:
        safety.paranoid(args.trust_code)
    recipe = Recipe.read(args.recipe, args.overrides, trust_code=args.trust_code)
    if args.require_pinned or args.paranoid:
        from hfft.data import require_pinned

        require_pinned(recipe)
    return recipe


@contextlib.contextmanager
def _located(recipe) -> Iterator[None]:
    """Errors about a key of the recipe say where the recipe has it."""
    try:
        yield
    except InputError as error:
        error.lines = [recipe.located(line) for line in error.lines]
        raise


def _takes_recipe(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("recipe", help="a recipe's YAML file")
    sub.add_argument("overrides", nargs="*", metavar="key.path=value", help="override one value of the recipe")
    sub.add_argument("--trust-code", action="store_true", help="allow the recipe's own .py parts and evaluate: metrics")
    sub.add_argument("--require-pinned", action="store_true", help="refuse a model or data of the Hub without a commit")
    sub.add_argument("--paranoid", action="store_true", help="--require-pinned, no network, and no --trust-code")


def _takes_check(sub: argparse.ArgumentParser) -> None:
    _takes_recipe(sub)
    sub.add_argument("--show", metavar="DIR", help="write there what the model will see: augmented pictures, or tokens")
    sub.add_argument("--full", action="store_true", help="decode every picture, also of a set of more than 20,000")


def _takes_train(sub: argparse.ArgumentParser) -> None:
    _takes_recipe(sub)
    sub.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of train.output_dir")
    sub.add_argument("--overwrite", action="store_true", help="empty train.output_dir first, if it is a run")
    sub.add_argument("--allow-change", metavar="KEY", action="append", default=[], help="with --resume: KEY may differ")


def _takes_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", metavar="RUN", help="train.output_dir of a finished run")
    sub.add_argument("--trust-code", action="store_true", help="allow the run's own code and evaluate: metrics")


def _takes_eval(sub: argparse.ArgumentParser) -> None:
    _takes_run(sub)
    sub.add_argument("--data", help="other data than the run's: a file or folder with the recipe's columns")
    sub.add_argument("--split", help="a split of the data (default: the run's evaluation split)")


def _takes_predict(sub: argparse.ArgumentParser) -> None:
    _takes_run(sub)
    sub.add_argument("input", metavar="INPUT", help="csv, jsonl, parquet, text, an image, a folder of images, or -")
    sub.add_argument("--output", help="a file instead of stdout")
    sub.add_argument("--top-k", type=_positive, help="only the k best of `scores`")
    sub.add_argument("--batch-size", type=_positive, default=32)


def _takes_export(sub: argparse.ArgumentParser) -> None:
    _takes_run(sub)
    sub.add_argument("name", help="a part of export/: " + ", ".join(lookup.names("export")))
    sub.add_argument("options", nargs="*", metavar="key=value")


def _takes_seal(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", metavar="RUN", help="train.output_dir of a finished run, or a folder in its exports/")
    sub.add_argument("--sign", metavar="KEY", help="sign with this private key (PEM, elliptic curve; hfft[sign])")


def _takes_verify(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", metavar="RUN", help="a sealed run or export, also one that was downloaded")
    sub.add_argument("--public-key", metavar="KEY", help="the signature must be this key's (PEM)")


def _takes_kind(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("kind", nargs="?", choices=lookup.KINDS)


def _takes_nothing(sub: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


COMMANDS: list[tuple[str, Callable, Callable[[argparse.ArgumentParser], None]]] = [
    ("train", train, _takes_train),
    ("check", check, _takes_check),
    ("eval", evaluate, _takes_eval),
    ("predict", predict, _takes_predict),
    ("export", export, _takes_export),
    ("seal", seal, _takes_seal),
    ("verify", verify, _takes_verify),
    ("schema", schema, _takes_nothing),
    ("list", listing, _takes_kind),
]
