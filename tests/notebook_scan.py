"""A pytest plugin (`-p notebook_scan`) for errors that nbmake cannot see: those inside widgets and
threads, and outputs that a reader cannot use.

nbmake asks whether a cell raised. An exception inside `interactive_output`, `@interact`, `with
out:` or a thread raises
in no cell: it is printed into a widget, or on standard error, and the notebook passes. This plugin
looks there too.

What it cannot see: callbacks that only a front end calls (nobody moves a slider here), errors that
were cleared from an `Output` before the end, and what a thread says after the last cell has ended.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete
from nbclient.output_widget import OutputWidget
from nbclient.util import ensure_async
from nbformat import NotebookNode
from nbmake import nb_run
from nbmake.nb_result import NotebookError, NotebookResult
from nbmake.pytest_items import NotebookItem

WIDGETS = "application/vnd.jupyter.widget-state+json"
TRACEBACK = "Traceback (most recent call last)"
WIDEST = 100  # characters of a printed line that fit a page of 1280 pixels
NOT_YET = ("06_background_bias.ipynb",)  # its captions are still wider than that


def hidden_errors(nb: NotebookNode) -> list[str]:
    """What went wrong in an executed notebook, one line for each error; empty if nothing did.

    Looks at the outputs of cells and of `ipywidgets.Output`, for errors and for tracebacks on
    standard error, and at the `error` trait of every widget, where this package's own put theirs.
    Cells tagged `raises-exception` may fail.

    Args:
        nb: a notebook with its outputs and its widget state (nbclient stores it unless told
            otherwise).
    """
    found = [
        f"cell {index}: {line}"
        for index, cell in enumerate(nb.cells)
        if "raises-exception" not in cell.metadata.get("tags", [])
        for line in _failures(cell.get("outputs", []))
    ]
    for model, widget in nb.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {}).items():
        name, state = f"{widget.get('model_name', 'widget')} {model[:8]}", widget.get("state", {})
        found += [f"{name}: {line}" for line in _failures(state.get("outputs") or [])]
        if isinstance(error := state.get("error"), str) and error.strip():
            found.append(f"{name} shows the error: {error.strip()}")
    return found


def _failures(outputs: list[dict]) -> Iterator[str]:
    """The last lines of the errors and tracebacks among the outputs of one cell or widget."""
    for output in outputs:
        if output["output_type"] == "error":
            yield f"{output['ename']}: {output['evalue']}"
        if (
            output["output_type"] == "stream"
            and output["name"] == "stderr"
            and TRACEBACK in output["text"]
        ):
            yield f"traceback on standard error: {output['text'].strip().splitlines()[-1]}"


def reader_faults(nb: NotebookNode) -> list[str]:
    """What a reader of an executed notebook cannot use, one line for each fault; empty if nothing.

    A printed line wider than the page, which is broken inside its words; a figure that is only
    named; an exercise that scores before anybody has touched it.

    Args:
        nb: a notebook with its outputs.
    """
    found = []
    for index, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            said, shown = output.get("text", ""), output.get("data", {})
            widest = max(said.splitlines(), key=len, default="")
            if len(widest) > WIDEST:
                found.append(f"cell {index}: a line of {len(widest)} characters: {widest[:60]}…")
            if "<Figure size" in shown.get("text/plain", "") and "image/png" not in shown:
                found.append(f"cell {index}: a figure that does not appear")
            if "# your turn" in cell.source or "print(check(" in cell.source:
                if score := re.search(r"^([1-9]\d*) of \d+ cases|^right$", said, re.M):
                    found.append(f"cell {index}: the untouched exercise scores: {score[0]}")
    return found


class ListeningClient(NotebookClient):
    """Also hears what a thread tells its widgets after its cell has ended, as a front end does;
    nbclient drops that.
    """

    async def async_start_new_kernel_client(self):
        """A client whose messages for cells that have ended go where they belong."""
        client = await super().async_start_new_kernel_client()
        receive, self._seen, self._current = client.iopub_channel.get_msg, {}, None

        async def get_msg(*args, **kwargs):
            msg = await ensure_async(receive(*args, **kwargs))
            if (
                parent := msg["parent_header"].get("msg_id")
            ) != self._current and parent in self._seen:
                self._late(msg, *self._seen[parent])
            return msg

        client.iopub_channel.get_msg = get_msg
        return client

    def process_message(
        self, msg: dict, cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        """As nbclient's; remembers whose message it was."""
        self._current = msg["parent_header"].get("msg_id")
        self._seen[self._current] = cell, cell_index
        return super().process_message(msg, cell, cell_index)

    def _late(self, msg: dict, cell: NotebookNode, cell_index: int) -> None:
        try:
            super().process_message(msg, cell, cell_index)
        except CellExecutionComplete:  # the cell was complete before
            pass


def scanned(execute: Callable) -> Callable:
    """`NotebookRun.execute` whose result has an error where the notebook hides one, or has outputs
    that cannot be read.
    """

    def execute_and_scan(self) -> NotebookResult:
        result = execute(self)
        kinds = {"hides errors": hidden_errors, "cannot be read": reader_faults}
        for words, look in kinds.items():
            if look is reader_faults and Path(self.filename).name in NOT_YET:
                continue
            if result.error is None and (found := look(result.nb)):
                head = f"{self.filename}: no cell raised, but the notebook {words}"
                result.error = NotebookError(
                    summary=f"{words}: {found[0]}",
                    trace="\n  ".join([head, *found]),
                    failing_cell_index=-1,
                )
        return result

    return execute_and_scan


def awake(send: Callable) -> Callable:
    """`OutputWidget.send` that does not swallow the wake-up of whoever waits on the same socket.

    Without it nbclient can wait for ever for a cell that prints into an `Output` (nbclient issue
    312).
    """

    def send_and_wake(self, *args, **kwargs) -> None:
        send(self, *args, **kwargs)
        # private in pyzmq
        wake = getattr(self.kernel_client.shell_channel.socket, "_schedule_remaining_events", None)
        if wake is not None:
            wake()

    return send_and_wake


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every notebook is a slow test."""
    for item in items:
        if isinstance(item, NotebookItem):
            item.add_marker(pytest.mark.slow)


def pytest_configure(config: pytest.Config) -> None:
    """Every notebook of this run is scanned."""
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(nb_run, "NotebookClient", ListeningClient)
    patch.setattr(nb_run.NotebookRun, "execute", scanned(nb_run.NotebookRun.execute))
    patch.setattr(OutputWidget, "send", awake(OutputWidget.send))
