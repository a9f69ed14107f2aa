"""The pictures of the panel on its help page, and the picture of its workflow: `python tests/panel_pictures.py`."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path

import browser
import host_server
from PIL import Image
from playwright.sync_api import sync_playwright
from test_attention_browser import WORKFLOW, Panel

DOCS = host_server.PACK / "web" / "docs"
WORD, SIDE, DIFFERENCE = (f"attention_viewer_{name}.png" for name in ("word", "branches", "difference"))


def picture(panel: Panel) -> Image.Image:
    shot = panel.page.locator(".dom-widget").filter(has=panel.page.locator("figure")).screenshot()
    return Image.open(io.BytesIO(shot)).convert("RGB")


def theme(panel: Panel, name: str) -> None:
    panel.page.evaluate("name => app.extensionManager.setting.set('Comfy.ColorPalette', name)", name)


def look_closely(panel: Panel, width: int, height: int) -> None:
    """The node at this size, in the middle."""
    panel.page.evaluate(
        """([id, size]) => {
            const node = app.graph.nodes.find(n => String(n.id) === id);
            node.setSize(size);
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [300 - node.pos[0], 30 - node.pos[1]];
            app.canvas.draw(true, true);
        }""",
        [panel.id, [width, height]],
    )


def take(panel: Panel) -> None:
    look_closely(panel, 520, 1040)
    theme(panel, "dark")
    panel.plain()
    panel.slide("opacity", 12)
    panel.page.locator("input[name=boxes]").check()
    panel.word("circle").hover()
    save(panel, WORD)
    theme(panel, "light")
    panel.choose("view", "side by side")
    panel.slide("step", 4)
    panel.word("square").hover()
    save(panel, SIDE)
    panel.choose("view", "difference: spatial − fidelity")
    panel.page.locator("caption").click()
    panel.word("square").hover()
    save(panel, DIFFERENCE)
    look_closely(panel, 1200, 1040)
    workflow_picture(panel).save(WORKFLOW.with_suffix(".jpg"), quality=88)


def save(panel: Panel, name: str) -> None:
    panel.page.wait_for_timeout(1000)
    picture(panel).save(DOCS / name, optimize=True)


def workflow_picture(panel: Panel) -> Image.Image:
    """Both branches' maps of one word, with the boxes."""
    panel.choose("view", "side by side")
    panel.slide("step", 0)
    panel.word("square").click()
    panel.page.wait_for_timeout(1000)
    both = Image.new("RGB", (1032, 512), "white")
    for number, canvas in enumerate(panel.canvas().all()):
        data = base64.b64decode(canvas.evaluate("canvas => canvas.toDataURL()").split(",")[1])
        both.paste(Image.open(io.BytesIO(data)).convert("RGB").resize((512, 512)), (520 * number, 0))
    return both


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        host = host_server.HostServer(host_server.find_hosts()[0], Path(folder) / "base", folder="realcompo")
        try:
            take(Panel(browser.Editor(browser.launch(playwright), host), host))
        finally:
            host.stop()
