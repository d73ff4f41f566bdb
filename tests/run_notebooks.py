"""Run notebooks in fresh kernels; ``python tests/run_notebooks.py FILE...`` rewrites their outputs.

Run twice, the files are the same to the last byte: no times, no counters that grow, no names of the
machine are kept.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

# The kernel itself raises the one kind of warning that is let through, when it shuts down.
HEAD = """\
import warnings
warnings.simplefilter("error")
warnings.simplefilter("ignore", PendingDeprecationWarning)
"""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What a picture shows, in words: the site hands it on to readers who don't see it.
KEPT = ("mystnb",)
# A widget lives in a kernel: of the file it is not a part.
WIDGET = "application/vnd.jupyter.widget-view+json"


HANGS = 3600  # seconds


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """A copy of ``notebook`` with the outputs of a new run in ``folder``.

    Warnings are errors in the kernel, and whatever it prints to stderr raises here.
    """
    fresh = copy.deepcopy(notebook)
    fresh.cells.insert(0, nbformat.v4.new_code_cell(HEAD, id="warnings-are-errors"))
    client = NotebookClient(
        fresh,
        # Against hanging, not against a busy machine: there a kernel may take minutes to begin,
        # and outputs that come later than the third of these are lost without a word.
        timeout=HANGS,
        startup_timeout=HANGS,
        iopub_timeout=HANGS,
        kernel_name="python3",
        record_timing=False,
        # A kernel sends what it prints five times a second: how many pieces come is chance.
        coalesce_streams=True,
        # A note that the kernel's sockets are not encrypted is no news on one's own machine.
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    client.execute(env={**os.environ, **inline})
    del fresh.cells[0]
    fresh.metadata = nbformat.from_dict(METADATA)
    code = [cell for cell in fresh.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in KEPT})
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                raise AssertionError(f"cell {count} wrote to stderr: {output.text}")
            if output.output_type == "execute_result":
                output.execution_count = count
    for place, cell in enumerate(fresh.cells):
        cell.id = f"cell-{place:02d}"
    return fresh


def text_of(notebook: nbformat.NotebookNode) -> str:
    """The notebook as its file has it."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def main(paths: list[str]) -> int:
    """Rewrite each file with the outputs of a new run."""
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        path.write_text(text_of(execute(notebook, path.parent)), encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
