"""The explorer's widgets. All of them say what they are, and all can be used from the keyboard."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bandit import presets
from bandit.cases import reads_preferences
from bandit.explorer import words
from bandit.explorer.picture import png
from bandit.explorer.state import PREFERENCES, Choice, View, explore

if TYPE_CHECKING:
    import ipywidgets

ARMS = (1, 2, 3)
# The handles of ipywidgets' sliders have no names for a screen reader, and on a logarithmic scale
# they say the exponent: give them the label's name, and the number that is shown.
NAMES = """<script>
(() => {
  const tell = (element, what, text) => {
    if (element && element.getAttribute(what) !== text) element.setAttribute(what, text);
  };
  const name = () => document.querySelectorAll(".widget-slider").forEach((slider) => {
    const label = slider.querySelector(".widget-label");
    const shown = slider.querySelector(".widget-readout");
    if (!label || !shown) return;
    const handle = slider.querySelector(".noUi-handle");
    tell(handle, "aria-label", label.textContent);
    tell(handle, "aria-valuetext", shown.textContent);
    tell(shown, "role", "textbox");
    tell(shown, "aria-label", label.textContent + ", as a number");
  });
  const what = { childList: true, subtree: true, characterData: true, attributes: true,
                 attributeFilter: ["aria-valuetext"] };
  new MutationObserver(name).observe(document.body, what);
  name();
})();
</script>"""


def app(choice: Choice | None = None) -> ipywidgets.Widget:
    """The explorer, to be shown by a notebook; needs the extra ``apps``.

    A script that names the sliders for screen readers is shown before it.

    Parameters
    ----------
    choice : Choice, optional
        Where the sliders stand at first. Default: our three-armed bandit, and CoPG.

    Returns
    -------
    ipywidgets.Widget

    Raises
    ------
    ModuleNotFoundError
        Without ipywidgets, with what to install.
    """
    explorer = _Explorer(Choice() if choice is None else choice)
    from IPython.display import HTML, display

    display(HTML(NAMES))
    return explorer.box


def _widgets() -> Any:
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the explorer needs ipywidgets: pip install 'copg-bandit[apps]'", name=error.name
        ) from None
    return ipywidgets


class _Explorer:
    """Sliders, and what follows from where they stand."""

    def __init__(self, choice: Choice) -> None:
        w = _widgets()
        self.controls = _controls(w, choice)
        self.note, self.verdict, self.picture, self.numbers = (w.HTML() for _ in range(4))
        self.box = _arranged(
            w, self.controls, self.note, [self.verdict, self.picture, self.numbers]
        )
        for control in self.controls.values():
            control.observe(self.update, "value")
        self.update()

    def choice(self) -> Choice:
        """What the sliders say now."""
        value = {name: control.value for name, control in self.controls.items()}
        arms = {
            field: tuple(float(value[f"{field} {arm}"]) for arm in ARMS)
            for field in ("reward", "reference", "behavior")
        }
        return Choice(
            beta=value["beta"],
            method=value["method"],
            preferences=value["preferences"],
            learning_rate=value["learning rate"],
            **arms,
        )

    def update(self, _: Any = None) -> None:
        """Show what follows; sliders that make no problem are answered in words."""
        choice = self.choice()
        judged = reads_preferences(presets.method(choice.method))
        self.controls["preferences"].disabled = not judged
        try:
            view = explore(choice)
        except ValueError as error:
            self.picture.value = self.numbers.value = ""
            self.verdict.value = words.announced(str(error))
            return
        self.note.value = f"<i>{html.escape(view.method.label)} {words.note(view)}.</i>"
        self.show(view)

    def show(self, view: View) -> None:
        """One state of the page."""
        encoded = base64.b64encode(png(view)).decode()
        self.picture.value = (
            f'<img class="explorer-picture" src="data:image/png;base64,{encoded}" '
            f'style="width:100%;max-width:940px" alt="{html.escape(words.described(view))}">'
        )
        self.verdict.value = words.announced(words.verdict(view))
        self.numbers.value = words.table(view)


def _controls(w: Any, choice: Choice) -> dict[str, Any]:
    """Every control, by the name that :meth:`_Explorer.choice` knows it under, in reading order."""
    look: dict[str, Any] = {
        "style": {"description_width": "7.5em"},
        "layout": w.Layout(width="24em"),
        "continuous_update": False,
    }
    found: dict[str, Any] = {
        "method": w.Dropdown(
            options=[(method.label, name) for name, method in presets.METHODS.items()],
            value=choice.method,
            description="Method",
            style=look["style"],
            layout=look["layout"],
        ),
        "preferences": w.Dropdown(
            options=[(label, kind) for kind, label in PREFERENCES.items()],
            value=choice.preferences,
            description="Preferences",
            style=look["style"],
            layout=look["layout"],
        ),
    }
    ranges = {
        "reward": ("Reward, arm {}", -1.0, 4.0, 0.1),
        "reference": ("π_ref, arm {}", 0.5, 10.0, 0.5),
        "behavior": ("μ, arm {}", 0.0, 10.0, 0.5),
    }
    for field, (label, low, high, step) in ranges.items():
        for arm, value in zip(ARMS, getattr(choice, field), strict=True):
            found[f"{field} {arm}"] = w.FloatSlider(
                value=value,
                min=low,
                max=high,
                step=step,
                description=label.format(arm),
                tooltip=label.format(arm),
                readout_format=".1f",
                **look,
            )
    for name, label, value, low, high in (
        ("beta", "KL strength β", choice.beta, -1.3, 0.7),
        ("learning rate", "Learning rate", choice.learning_rate, -2.0, 1.5),
    ):
        found[name] = w.FloatLogSlider(
            value=value,
            min=low,
            max=high,
            step=0.05,
            description=label,
            tooltip=label,
            readout_format=".3g",
            **look,
        )
    return found


def _arranged(w: Any, controls: Mapping[str, Any], note: Any, shown: list[Any]) -> Any:
    """Controls in groups with headings on the left, or above on a narrow screen."""

    def group(title: str, *names: str) -> list[Any]:
        return [w.HTML(f"<b>{title}</b>"), *(controls[name] for name in names)]

    def arms(field: str) -> tuple[str, ...]:
        return tuple(f"{field} {arm}" for arm in ARMS)

    left = w.VBox(
        [
            *group("Objective", "method"),
            note,
            controls["preferences"],
            *group("Problem", "beta", *arms("reward")),
            *group("Shares of the arms in the reference", *arms("reference")),
            *group("Shares of the arms in the data", *arms("behavior")),
            *group("Descent", "learning rate"),
        ],
        layout=w.Layout(flex="0 1 25em", min_width="20em"),
    )
    right = w.VBox(shown, layout=w.Layout(flex="1 1 30em", min_width="20em"))
    return w.Box([left, right], layout=w.Layout(display="flex", flex_flow="row wrap"))
