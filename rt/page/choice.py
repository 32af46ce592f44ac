"""The choice of an object on the live page: a click on the drawn view, and a button that clears it.

viser's images do not tell of clicks. So a script of the page's own puts where the view was clicked into a
text field, which viser brings to this process; the field is hidden.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from contextlib import suppress

import viser

_MARK = "grasp-servo-choice"
_SCRIPT = """
(() => {
  if (window.graspServoChoice) return;
  window.graspServoChoice = true;
  const mark = () => document.getElementById('MARK');
  const after = (kind) => [...document.querySelectorAll(kind)].find(
    (e) => mark() && mark().compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING);
  const view = () => after('img:not([id=MARK-script])');
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  document.addEventListener('mouseover', (e) => {
    if (e.target === view()) e.target.style.cursor = 'crosshair';
  });
  document.addEventListener('click', (e) => {
    const image = view(), field = after('input');
    if (!field || e.target !== image) return;
    const box = image.getBoundingClientRect();
    const across = (e.clientX - box.left) / box.width, down = (e.clientY - box.top) / box.height;
    set.call(field, `${across.toFixed(5)} ${down.toFixed(5)} ${Date.now()}`);
    field.dispatchEvent(new Event('input', { bubbles: true }));
  });
  const hide = () => {
    const field = after('input');
    if (!field) return setTimeout(hide, 100);
    let row = field;
    while (row.parentElement && !row.parentElement.contains(mark())) row = row.parentElement;
    row.style.display = 'none';
  };
  hide();
})()
""".replace("MARK", _MARK)


class Choice:
    """The field for clicks, to be added just before the view's picture, and the words and button below it."""

    def __init__(
        self, gui: viser.GuiApi, clicked: Callable[[float, float], str], clear: Callable[[], None]
    ) -> None:
        """clicked: called with the place in the picture, across and down from 0 to 1; returns words for the
        user. clear: called when any object will do."""
        self._gui, self._clear = gui, clear
        # No script element runs that is added to a page later; an image that fails to load does.
        run = html.escape(_SCRIPT, quote=True)
        gui.add_html(
            f"<div id='{_MARK}'></div><img id='{_MARK}-script' style='display:none' src='data:,' "
            f'onerror="{run}">'
        )
        field = gui.add_text("click", "")

        @field.on_update
        def _(_: object) -> None:
            with suppress(ValueError):
                across, down, _at = map(float, str(field.value).split())
                if 0 <= across <= 1 and 0 <= down <= 1:
                    self.say(clicked(across, down))

    def add_button(self) -> None:
        """Below the picture."""
        self._words = self._gui.add_html("")
        self.say("Click the view to choose the object that is wanted.")
        self._gui.add_button("Any object").on_click(lambda _: self._cleared())

    def _cleared(self) -> None:
        self._clear()
        self.say("Any object. Click the view to choose one.")

    def say(self, words: str) -> None:
        """Show the user what was chosen."""
        self._words.content = (
            f"<div id='{_MARK}-words' style='padding:0 10px 6px;font-size:11.5px;color:#2667c9'>"
            f"{html.escape(words)}</div>"
        )
