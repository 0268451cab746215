"""The rules of the house, held: direction of imports, size limits, a docstring, a test and a recipe per part."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hfft"
FILES = sorted(p for p in PACKAGE.rglob("*.py"))
FOLDERS = ("tasks", "tuning", "objectives", "filters", "augment", "export")
PARTS = [p for p in FILES if p.parent.name in FOLDERS and p.stem not in ("__init__", "base")]
FREE = ("__init__",)  # its imports are lazy, by name


def layers(start: str = "run >") -> dict[str, int]:
    """module or folder/* -> its place from the right, as a line of CONTRIBUTING.md states it."""
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    line = next(x for x in lines if x.startswith("`" + start))
    groups = [
        group.split(",") for group in line.strip("`").removeprefix(start if start.endswith(":") else "").split(">")
    ]
    return {name.strip(): len(groups) - i for i, group in enumerate(groups) for name in group}


def place(module: str) -> int:
    """`hfft.tuning.peft` -> the layer of `tuning/*`."""
    parts = module.split(".")[1:]
    found = layers()
    return found.get(f"{parts[0]}/*", found.get(parts[0], -1)) if parts else -1


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Names of hfft's own modules that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    modules = {name_of(p) for p in FILES}
    packages = {name_of(p) for p in FILES if p.stem == "__init__"}  # their parts are looked up by name
    return {name for name in found if name in modules - packages}


@pytest.mark.parametrize("path", [p for p in FILES if p.stem not in FREE], ids=name_of)
def test_a_file_imports_only_from_layers_to_its_right(path):
    own = place(name_of(path))
    assert own > 0, f"{path.name} stands in no layer of CONTRIBUTING.md"
    for module in imports(path):
        folder, name = module.split(".")[1:2], module.split(".")[-1]
        if folder == name_of(path).split(".")[1:2] and folder[0] in ("reading", "grammar"):
            inner = layers(folder[0] + ":")
            assert inner[name] < inner[path.stem], f"{name_of(path)} imports {module}, which is not to its right"
            continue
        same_folder = module.rsplit(".", 1)[0] == name_of(path).rsplit(".", 1)[0] != "hfft"
        if same_folder and module.endswith(".base"):
            continue
        assert place(module) < own, f"{name_of(path)} imports {module}, which is not to its right"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_within_their_limits(path):
    source = path.read_text()
    assert source.count("\n") <= 350
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 40, f"{node.name} has more than 40 lines"
            # the Trainer's own methods keep transformers' signatures
            named = [a for a in node.args.args + node.args.kwonlyargs if a.arg not in ("self", "cls")]
            assert len(named) <= 6 or path.parent.name in FOLDERS or node.name == "__init__", node.name


@pytest.mark.parametrize("path", [p for p in FILES if p.stem != "__init__"], ids=name_of)
def test_every_file_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), path
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name_of(path)}.{node.name} has no docstring"


def test_no_file_is_named_like_a_dependency_or_a_standard_module():
    taken = set(sys.stdlib_module_names) | {
        "evaluate",
        "datasets",
        "accelerate",
        "peft",
        "timm",
        "torch",
        "transformers",
    }
    assert not {p.stem for p in PACKAGE.glob("*.py")} & taken


@pytest.mark.parametrize("path", PARTS, ids=name_of)
def test_every_part_has_a_test_and_a_recipe(path):
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").glob("test_*.py"))
    recipes = "\n".join(p.read_text() for p in (ROOT / "recipes").glob("*.yaml"))
    assert re.search(rf"\b{path.stem}\b", tests), f"no test names {path.stem}"
    assert re.search(rf"\b{path.stem}\b", recipes), f"no recipe names {path.stem}"


def test_importing_hfft_and_its_help_import_no_torch():
    code = (
        "import sys; import hfft, hfft.cli; hfft.cli.parser().format_help();"
        "print([m for m in ('torch', 'transformers', 'datasets', 'peft', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


def test_the_tree_names_no_machine_and_holds_no_large_file():
    files = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT).stdout.split("\n")
    for name in filter(None, files):
        path = ROOT / name
        if path.is_file():
            assert path.stat().st_size < 1_000_000, name
