"""The mask inspector: which filters are kept and which are replaced, redrawn in the browser without
the kernel.

`catchup.inspection.masks` computes everything once; the browser gets it in one buffer and draws
from there on, so that moves of λ, pair, layer and checkpoint cost milliseconds. The same JavaScript
makes a page that works without a kernel.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from torch import Tensor, nn

from ..inspection.masks import MaskInspection, inspect_masks
from ..utils.choices import pick

HERE = Path(__file__).parent
SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>@title@</title>
<style>
body { margin: 24px auto; max-width: 1060px; padding: 0 16px; background: #fff; }
@css@
</style>
</head>
<body>
<main id="inspector"></main>
<script type="application/json" id="state">@state@</script>
<script type="text/plain" id="buffer">@buffer@</script>
<script type="module">
const widget = (() => {
@js@
})();
const state = JSON.parse(document.getElementById("state").textContent);
const text = atob(document.getElementById("buffer").textContent);
state.buffer = new DataView(Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer);
const heard = {};
const model = {
  get: (name) => state[name], save_changes() {},
  on: (event, listener) => { heard[event] = listener; }, off() {},
  set: (name, value) => { state[name] = value; heard[`change:${name}`]?.(); },
};
widget.render({ model, el: document.getElementById("inspector") });
</script>
</body>
</html>
"""


class MaskInspector(anywidget.AnyWidget):
    """A canvas that shows what Catch-up Mix does to a pair of images, for any λ, layer and
    checkpoint.

    Traits, synced both ways: `lam` (λ in [0, 1]), `pair` (place in `inspection.pairs`), `layer` (a
    block's name), `checkpoint` (a label). `header` and `buffer` are the data, sent once.

    Args:
        inspection: what `catchup.inspection.masks.inspect_masks` returned.
        lam, pair, layer, checkpoint: where to start; None takes the first pair, the last block, the
            last checkpoint.
    Raises:
        traitlets.TraitError: if one of them does not exist, now or when it is set.
    """

    _esm = HERE / "inspector.js"
    _css = HERE / "inspector.css"
    header = traitlets.Dict().tag(sync=True)
    buffer = traitlets.Bytes().tag(sync=True)
    lam = traitlets.Float(0.5).tag(sync=True)
    pair = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    checkpoint = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        inspection: MaskInspection,
        *,
        lam: float = 0.5,
        pair: int = 0,
        layer: str | None = None,
        checkpoint: str | None = None,
    ):
        self.inspection = inspection
        header, buffer = inspection.packed()
        super().__init__(
            header=header,
            buffer=buffer,
            lam=lam,
            pair=pair,
            layer=layer or inspection.blocks[-1],
            checkpoint=checkpoint or inspection.checkpoints[-1],
        )

    @property
    def kept(self) -> tuple[int, ...]:
        """The channels that stay with the source at the present λ, by rising RFI."""
        order = self.inspection.layers[self.checkpoint, self.layer].order[self.pair]
        return tuple(order[: int(self.lam * len(order))].tolist())

    def to_html(self, path: str | Path) -> Path:
        """Writes one file that shows the same without kernel and network, from where the inspector
        stands now.

        Args:
            path: of the file, which is replaced if it exists; by custom *.html.
        Returns:
            The path.
        Raises:
            ValueError: before anything is written, if it is a directory or its directory does not
                exist.
        """
        path = Path(path)
        if path.is_dir():
            raise ValueError(f"to_html needs the path of a file, got the directory {str(path)!r}")
        if not path.parent.is_dir():
            raise ValueError(
                f"to_html cannot write {str(path)!r}: there is no directory {str(path.parent)!r}"
            )
        path.write_text(self._page(), encoding="utf-8")
        return path

    def _page(self) -> str:
        names = ("header", "lam", "pair", "layer", "checkpoint")
        state = {name: getattr(self, name) for name in names}
        js, css = ((HERE / f"inspector.{end}").read_text(encoding="utf-8") for end in ("js", "css"))
        parts = {
            "title": "Catch-up Mix: the mask inspector",
            "css": css,
            "js": js.replace("export default", "return"),
            # no name of a class can end the script
            "state": (json.dumps(state).replace("<", "\\u003c")),
            "buffer": base64.b64encode(self.buffer).decode(),
        }
        return re.sub(r"@(\w+)@", lambda match: parts[match[1]], SHELL)

    @traitlets.validate("lam")
    def _check_lam(self, proposal: dict) -> float:
        if not 0 <= proposal["value"] <= 1:
            raise traitlets.TraitError(f"lam must lie in [0, 1], got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("pair")
    def _check_pair(self, proposal: dict) -> int:
        if not 0 <= proposal["value"] < len(self.inspection.pairs):
            raise traitlets.TraitError(
                f"pair must lie in 0 … {len(self.inspection.pairs) - 1}, got {proposal['value']}"
            )
        return proposal["value"]

    @traitlets.validate("layer", "checkpoint")
    def _check_name(self, proposal: dict) -> str:
        kind = proposal["trait"].name
        names = {"layer": self.inspection.blocks, "checkpoint": self.inspection.checkpoints}[kind]
        try:
            return pick(kind, proposal["value"], names)
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None


def mask_inspector(
    models: nn.Module | dict[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    lam: float = 0.5,
    pair: int = 0,
    layer: str | None = None,
    checkpoint: str | None = None,
    **options: Any,
) -> MaskInspector:
    """`MaskInspector(inspection(models, images, labels, **options))`, standing at these values."""
    inspection = inspect_masks(models, images, labels, **options)
    return MaskInspector(inspection, lam=lam, pair=pair, layer=layer, checkpoint=checkpoint)
