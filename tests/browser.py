"""The host's own editor in headless Chromium, driven as a user does."""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from pathlib import Path

from host_server import PACK, HostServer, find_hosts
from PIL import Image
from playwright.sync_api import Browser, Playwright, sync_playwright

NO_BROWSER = "no browser found: install Chromium or Google Chrome (chromium, chromium-browser or google-chrome on PATH)"
LOAD_MS = 240_000
TAB = "app.extensionManager.workflow.activeWorkflow?.path"
DRAW = "app.canvas.draw(true, true)"  # as when the mouse moves; a node takes up and makes room for its pictures then
REQUESTS = ("Failed to load resource", "Failed to fetch")
LOADING = "ComfyApp graph accessed before initialization"  # what the frontend says of itself while a page loads
COMPLAINTS = "[role=dialog], [role=alert], [data-testid=error-overlay], .p-toast-message-error"


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def launch(playwright: Playwright) -> Browser:
    root = hasattr(os, "getuid") and os.getuid() == 0  # whom Chromium refuses a sandbox
    return playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"] if root else [])


class Editor:
    """The page of a user who knows the editor of `host`.

    `errors` are those that the page has logged since the last workflow was opened.
    """

    def __init__(self, browser: Browser, host: HostServer):
        self.page = browser.new_page(viewport={"width": 1920, "height": 1080})
        self.page.set_default_timeout(LOAD_MS)
        self.page.route(lambda url: not url.startswith(host.url), lambda route: route.abort())
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)
        host.post("/settings", {"Comfy.TutorialCompleted": True})  # else dialogs greet the user
        self.page.goto(host.url)
        self.page.wait_for_function(f"window.app?.graph?.nodes.length && {TAB}")

    def _note(self, message) -> None:
        """Keeps errors, but those about requests: a frontend may ask for what an older host or no network has."""
        if message.type == "error" and not any(words in message.text for words in (*REQUESTS, LOADING)):
            self.errors.append(message.text)

    def open(self, workflow: Path) -> None:
        """Open a workflow file, as the menu's Open does."""
        self.errors.clear()
        before = self.page.evaluate(TAB)
        self.page.set_input_files("#comfy-file-input", workflow)
        self.page.wait_for_function(f"before => {TAB} !== before", arg=before)

    def open_template(self, pack: str, name: str) -> None:
        """By the button Templates, the pack's name in the dialog, and the template's picture."""
        self.errors.clear()
        before = self.page.evaluate(TAB)
        self.page.get_by_role("button", name="Templates").first.click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text(pack, exact=True).click()
        cards = dialog.get_by_test_id(re.compile("^template-workflow-"))
        wanted = dialog.get_by_test_id(f"template-workflow-{name}")
        cards.first.wait_for()
        while not wanted.count():  # the dialog makes more cards as one scrolls
            known = cards.count()
            cards.last.scroll_into_view_if_needed()
            cards.nth(known).wait_for(state="attached")
        wanted.click()
        self.page.wait_for_function(f"before => {TAB} !== before", arg=before)

    def help(self, kind: str) -> str:
        """The text of the help page that the (i) of a node of this type opens."""
        self.page.evaluate(
            """kind => {
                app.canvas.deselectAll();
                app.canvas.selectNode(app.graph.nodes.find(n => n.type === kind));
            }""",
            kind,
        )
        self.page.get_by_test_id("info-button").click()
        self.page.locator(".node-help-content h1").wait_for()
        return self.page.locator(".node-help-content").inner_text()

    def missing_nodes(self) -> list[str]:
        """The types that the editor does not know, also of nodes inside subgraphs."""
        return self.page.evaluate(
            """[app.graph, ...app.graph.subgraphs.values()].flatMap(g => g.nodes).map(n => n.type)
                .filter(t => !LiteGraph.registered_node_types[t])"""
        )

    def complaints(self) -> list[str]:
        """The text of every dialog, error panel and error toast on the page."""
        return self.page.locator(COMPLAINTS).all_inner_texts()

    def api_form(self) -> dict:
        """The workflow in API form, as the editor would queue it."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def run(self) -> str:
        """Presses Run; the id of the queued prompt."""
        with self.page.expect_response(lambda reply: reply.url.endswith("/prompt")) as reply:
            self.page.get_by_role("button", name="Run", exact=True).first.click()
        assert reply.value.ok, reply.value.text()
        return reply.value.json()["prompt_id"]

    def boxes(self) -> dict[str, list[float]]:
        """x, y, width, height of the nodes by title, title bars included, and of the groups as `group <title>`."""
        return self.page.evaluate(f"""() => {{
            {DRAW};
            return Object.fromEntries([
                ...app.graph.nodes.map(n => [n.title, [...n.getBounding()]]),
                ...app.graph.groups.map(g => ["group " + g.title, [...g._bounding]])]);
        }}""")

    def wires_behind_nodes(self) -> list[str]:
        """Titles of the open nodes that hide a part of a wire. Wires end within 14 pixels of a node's sides."""
        return self.page.evaluate(f"""() => {{
            {DRAW};
            const boxes = app.graph.nodes.map(n => [n, ...n.getBounding()]);
            const least = [1, 2].map(i => Math.min(...boxes.map(b => b[i])));
            const most = [1, 2].map(i => Math.max(...boxes.map(b => b[i] + b[i + 2])));
            const canvas = new OffscreenCanvas(most[0] - least[0], most[1] - least[1]);
            const context = canvas.getContext("2d", {{ willReadFrequently: true }});
            context.translate(-least[0], -least[1]);
            for (const {{ path }} of app.canvas.renderedPaths) if (path) context.stroke(path);
            const inside = ([x, y, width, height]) => context.getImageData(
                x - least[0] + 14, y - least[1] + 4, width - 28, height - 8).data;
            return boxes.filter(([node, ...box]) => !node.flags.collapsed && inside(box).some(Boolean))
                .map(([node]) => node.title);
        }}""")

    def pictures(self, node_id: str) -> list[tuple[bytes, tuple[int, int]]]:
        """Once they are there, the pictures that the node shows: their bytes, and their size in pixels as shown."""
        find = "id => app.graph.nodes.find(n => String(n.id) === id).imgs"
        self.page.wait_for_function(
            f"id => {{ {DRAW}; return ({find})(id)?.every(i => i.complete && i.naturalWidth) }}", arg=node_id
        )
        shown = self.page.evaluate(f"id => ({find})(id).map(i => [i.src, [i.naturalWidth, i.naturalHeight]])", node_id)
        return [(self.page.request.get(url).body(), tuple(size)) for url, size in shown]

    def screenshot(self, node_id: str | None = None) -> Image.Image:
        """The page, or the part of it where the node is."""
        clip = node_id and self.page.evaluate(
            """id => {
                const [x, y, width, height] = app.graph.nodes.find(n => String(n.id) === id).getBounding();
                const [left, top] = app.canvas.ds.convertOffsetToCanvas([x, y]);
                const [origin, scale] = [app.canvas.canvas.getBoundingClientRect(), app.canvas.ds.scale];
                return {x: origin.x + left, y: origin.y + top, width: width * scale, height: height * scale};
            }""",
            node_id,
        )
        return Image.open(io.BytesIO(self.page.screenshot(clip=clip or None))).convert("RGB")


def picture_for_readme() -> None:
    """`workflows/quickstart_editor.png`: the quickstart when it has run."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        host = HostServer(find_hosts()[0], Path(folder) / "base", folder="realcompo")
        try:
            editor = Editor(launch(playwright), host)
            editor.open(PACK / "workflows" / "quickstart.json")
            for key, output in host.wait(editor.run())["outputs"].items():
                if "images" in output and ":" not in key:  # not inside a subgraph
                    editor.pictures(key)
            editor.screenshot().save(PACK / "workflows" / "quickstart_editor.png", optimize=True)
        finally:
            host.stop()


if __name__ == "__main__":
    picture_for_readme()
