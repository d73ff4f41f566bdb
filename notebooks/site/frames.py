"""A picture with a slider for pages that no kernel stands behind: every state is drawn beforehand."""

from __future__ import annotations

import base64
import html
import io

from bandit.explorer import Choice, explore, picture, words
from bandit.tables import probabilities
from PIL import Image

SHARES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 12.0, 25.0)
FIRST = SHARES.index(7.0)

# The script shows the state that the slider says; without a script there is the first one.
PAGE = """<figure class="frames">
<p><label for="frames-share">Share of arm 3 in the behavior</label>
<input type="range" id="frames-share" min="0" max="{last}" value="{first}" step="1"></p>
{states}
</figure>
<script>
(() => {{
  const slider = document.getElementById("frames-share");
  const states = document.querySelectorAll(".frames-state");
  const show = () => states.forEach((state, at) => {{
    state.hidden = at !== Number(slider.value);
    if (!state.hidden) slider.setAttribute("aria-valuetext", state.dataset.behavior);
  }});
  slider.addEventListener("input", show);
  show();
}})();
</script>
"""
STATE = """<div class="frames-state" data-behavior="behavior {behavior}"{hidden}>
<img src="data:image/png;base64,{image}" alt="{alt}">
<p role="status">Behavior {behavior}. {verdict}</p>
</div>"""


def frames() -> str:
    """IPO on our three-armed bandit, as the data have more and more of the worst arm."""
    states = []
    for place, share in enumerate(SHARES):
        view = explore(Choice(behavior=(1.0, 2.0, share), method="ipo")).searched()
        states.append(
            STATE.format(
                behavior=probabilities(view.behavior),
                hidden="" if place == FIRST else " hidden",
                image=base64.b64encode(small(picture.png(view, size=(7.8, 3.7), dpi=110))).decode(),
                alt=html.escape(words.described(view)),
                verdict=html.escape(words.verdict(view)),
            )
        )
    return PAGE.format(last=len(SHARES) - 1, first=FIRST, states="\n".join(states))


def small(png: bytes) -> bytes:
    """The same picture in 64 colors, a third of the size."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()
