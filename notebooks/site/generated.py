"""Pages that are made from the package itself: the gallery and the reference of the API."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import bandit
from frames import frames

# The order of reading; modules that are not named here come last, by name.
ORDER = ["problem", "losses", "pairs", "preferences", "policies", "analysis", "solutions"]
ORDER += ["training", "optimizers", "history", "presets", "flow", "plots", "explorer", "data"]
ORDER += ["ope", "offline", "pessimism", "verification", "sweeps", "related", "llm"]
LEFT_OUT = {"cli", "__main__", "selftest"}


def write_pages(site: Path, root: Path) -> None:
    """Write ``site/generated``: only files whose text changed, so that a second build is quick."""
    pages = {"gallery.md": gallery(root), "api/index.md": ""}
    modules = public_modules()
    for name in modules:
        pages[f"api/{name}.md"] = reference(name)
    pages["api/index.md"] = overview([n for n in modules if n.rpartition(".")[0] not in modules])
    pages["frames.html"] = frames()
    folder = site / "generated"
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*.*"):
        if str(path.relative_to(folder)) not in pages:
            path.unlink()


def gallery(root: Path) -> str:
    """The README's gallery: every picture with what it shows and the command that draws it."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    row = re.compile(
        r"^\| !\[(.*?)\]\((figures/\w+\.png)\) \| \*\*(.*?)\*\*: (.*?) `(python .*?)` \|$", re.M
    )
    blocks = [
        f"## {name}\n\n{text[0].upper()}{text[1:]}\n\n"
        f":::{{image}} ../../../{path}\n:alt: {alt}\n:::\n\n```sh\n{command}\n```\n"
        for alt, path, name, text, command in row.findall(readme)
    ]
    head = "# Gallery\n\nEvery picture is drawn by one command, `make figures` draws them all. "
    head += "The numbers behind it are in a CSV file beside it, in `figures/`.\n\n"
    return head + "\n".join(blocks)


def public_modules() -> list[str]:
    """Full names of the modules that a user imports, packages before what is in them."""
    found = [
        info.name
        for info in pkgutil.walk_packages(bandit.__path__, "bandit.")
        if not any(part.startswith("_") or part in LEFT_OUT for part in info.name.split(".")[1:])
    ]

    def place(name: str) -> tuple[int, str]:
        top = name.split(".")[1]
        return (ORDER.index(top) if top in ORDER else len(ORDER), name)

    # A package that only holds modules leads to them.
    shown = (n for n in found if members(n) or hasattr(importlib.import_module(n), "__path__"))
    return sorted(shown, key=place)


def members(name: str) -> list[str]:
    """What a module offers: its ``__all__``, else what it defines."""
    module = importlib.import_module(name)
    if hasattr(module, "__all__"):
        return [one for one in module.__all__ if not inspect.ismodule(getattr(module, one))]
    return [
        one
        for one, value in vars(module).items()
        if not one.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
    ]


def contents(title: str, modules: list[str]) -> str:
    """A page that lists pages."""
    lines = "\n".join(modules)
    return f"# {title}\n\n```{{toctree}}\n:maxdepth: 1\n\n{lines}\n```\n"


def overview(modules: list[str]) -> str:
    """The first page of the reference: every module with its first sentence."""
    called = [name for name in modules if name.split(".")[1] in ORDER]
    parts = {"What users call": called, "What it is built from": sorted({*modules} - {*called})}
    tables = "\n".join(
        f"## {title}\n\n| module | what is there |\n| --- | --- |\n"
        + "".join(f"| [{name}]({name}.md) | {summary(name)} |\n" for name in names)
        for title, names in parts.items()
    )
    pages = "\n".join([*called, *parts["What it is built from"]])
    return f"# Reference\n\n{tables}\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def summary(name: str) -> str:
    """The first sentence of a module's docstring, for the cell of a table."""
    paragraph = " ".join((importlib.import_module(name).__doc__ or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[a-z)`])\.( |$)", paragraph, maxsplit=1)[0].rstrip(".")
    plain = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", sentence).replace("``", "`")
    return re.sub(r"([|*\[\]])", r"\\\1", plain)


def reference(name: str) -> str:
    """The page of one module."""
    below = [
        f"{name}.{info.name}"
        for info in pkgutil.iter_modules(getattr(importlib.import_module(name), "__path__", []))
        if not info.name.startswith("_") and members(f"{name}.{info.name}")
    ]
    listing = contents("", below).partition("\n\n")[2] if below else ""
    directive = [
        "```{eval-rst}",
        f".. automodule:: {name}",
        "",
        *(
            f".. auto{'class' if inspect.isclass(value) else 'function'}:: {name}.{one}"
            + ("\n   :members:" if inspect.isclass(value) else "")
            for one in members(name)
            if callable(value := getattr(importlib.import_module(name), one))
            # Names of types, such as a Callable[...], have nothing to tell.
            and str(value.__module__).startswith("bandit")
        ),
        "```",
    ]
    return f"# {name}\n\n" + "\n".join(directive) + f"\n\n{listing}"


# Roles, code, references, strong and emphasized text: what is markup. All else is text.
SPANS = re.compile(
    r"(:\w+:`[^`]*`|``.*?``|`[^`]+`_?|\*\*[^*]+\*\*|(?<![\w*])\*[^*\s][^*]*\*(?!\w)|^ *\* )",
    flags=re.DOTALL | re.MULTILINE,
)


def as_rst(lines: list[str]) -> list[str]:
    """Docstrings are written to be read in a terminal: mark what is code, and only that.

    Single backquotes become code; a lone ``*`` or ``|`` of a formula stays what it is. Formulas and
    code blocks are left alone.
    """
    found: list[str] = []
    for is_block, part in itertools.groupby(_in_blocks(lines), key=lambda pair: pair[0]):
        text = "\n".join(line for _, line in part)
        found += (text if is_block else "\n\n".join(map(_marked, text.split("\n\n")))).split("\n")
    return found


def _in_blocks(lines: list[str]) -> Iterator[tuple[bool, str]]:
    """Each line, and whether it belongs to a directive or an example."""
    block: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None and re.match(r"\s*(\.\. \w+::|>>> )", line):
            block = indent
        yield block is not None, line


def _marked(paragraph: str) -> str:
    parts = SPANS.split(paragraph)
    parts[::2] = [text.replace("*", r"\*").replace("|", r"\|") for text in parts[::2]]
    parts[1::2] = [re.sub(r"^`([^`]+)`$", r"``\1``", span) for span in parts[1::2]]
    return "".join(parts)
