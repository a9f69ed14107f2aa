"""The Attention Map Viewer's panel in the host's own editor. Skipped without a host or a browser."""

import re

import browser
import host_server
import numpy as np
import pytest
from panel_file import PanelFile
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from realcompo_core.palettes import DIVERGING, PALETTES, colorize

WORKFLOW = host_server.PACK / "workflows" / "attention_maps.json"
NODE = "RealCompoAttentionMapViewer"
GONE = "Run the workflow to see its maps."
MODULES = re.compile(r"/attention_viewer[^?]*\.js$")

pytestmark = pytest.mark.skipif(not browser.find_browser(), reason=browser.NO_BROWSER)


class Panel:
    """The panel of the workflow's viewer; `file` is what it shows."""

    def __init__(self, editor, host):
        self.editor, self.page, self.host = editor, editor.page, host
        editor.open(WORKFLOW)
        self.run()
        self.id = self.page.evaluate("id => String(app.graph.nodes.find(n => n.type === id).id)", NODE)
        self.wait()

    def run(self):
        """Runs the workflow; the panel shows the new recording then."""
        entry = self.host.wait(self.editor.run())
        assert entry["status"]["status_str"] == "success", host_server.error_of(entry)
        (self.reference,) = next(output["attention"] for output in entry["outputs"].values() if "attention" in output)
        self.file = PanelFile(self.host.file(self.reference).parent, self.reference["filename"])
        self.page.wait_for_function(
            "([id, name]) => app.graph.nodes.find(n => n.type === id).properties.attention_maps?.filename === name",
            arg=[NODE, self.reference["filename"]],
        )

    def wait(self):
        self.canvas().first.wait_for()

    def word(self, text):
        return self.page.get_by_role("toolbar").get_by_role("button", name=text, exact=True).first

    def canvas(self):
        return self.page.locator("figure canvas:visible")

    def slide(self, name, index):
        self.page.locator(f"input[name={name}]").fill(str(index))

    def choose(self, name, label):
        self.page.locator(f"select[name={name}]").select_option(label=label)

    def plain(self):
        """The map alone, cell by cell: without the picture and the boxes; the mean of all, for `red`."""
        if self.page.locator("select[name=view]").input_value() != "0":
            self.choose("view", "fidelity")
        self.turn("opacity", 1.0)
        for name in ("step", "layer"):
            self.slide(name, 0)
        for name in ("boxes", "smooth", "oneScale"):
            self.page.locator(f"input[name={name}]").set_checked(False)
        self.word("red").click()

    def expect_shown(self, label, values, colors, low=0.0, high=None, number=0):
        """The canvas says that it shows `label`, and each cell has its value's colour."""
        canvas = self.canvas().nth(number)
        expect(canvas).to_have_attribute("aria-label", label)
        rows, columns = values.shape
        read = """(canvas, [rows, columns]) => Array.from({length: rows * columns}, (_, i) => {
            const x = (i % columns + 0.5) * canvas.width / columns;
            const y = (Math.floor(i / columns) + 0.5) * canvas.height / rows;
            return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3)];
        })"""
        high = values.max() if high is None else high
        expected = colorize((values - low) / (high - low), colors).reshape(-1, 3).astype(int)
        shown = None
        for _ in range(100):  # the maps come from the host
            shown = np.array(canvas.evaluate(read, [rows, columns]))
            if abs(shown - expected).max() <= 3:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{label}: the cells' colours differ by up to {abs(shown - expected).max()}")

    def widgets(self, names):
        """The values of the node's widgets by name."""
        read = """([id, names]) => {
            const { widgets } = app.graph.nodes.find(n => n.type === id);
            return Object.fromEntries(names.map(name => [name, widgets.find(w => w.name === name).value]));
        }"""
        return self.page.evaluate(read, [NODE, list(names)])

    def turn(self, name, value):
        """The node's widget, as the editor does it for the user."""
        set_value = """([id, name, value]) => {
            const node = app.graph.nodes.find(n => n.type === id);
            const widget = node.widgets.find(w => w.name === name);
            widget.setValue(value, { e: {}, node, canvas: app.canvas });
        }"""
        self.page.evaluate(set_value, [NODE, name, value])

    def map(self, word, branch=0, layer="all", step="all"):
        words = self.file.header["branches"][branch]["conditionings"]["positive"]["words"]
        index = next(i for i, own in enumerate(words) if own["text"] == word)
        return self.file.frame(branch, "positive", layer, step)[index]

    def numbers(self):
        """The table's rows: label, then numbers in percent."""
        rows = self.page.locator("tbody tr").all()
        return {
            row.locator("th").inner_text(): [int(cell.split()[0]) for cell in row.locator("td").all_inner_texts()]
            for row in rows
        }


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        yield browser.launch(playwright)


@pytest.fixture(scope="module")
def opened(chromium, host):
    panel = Panel(browser.Editor(chromium, host), host)
    yield panel
    panel.page.close()


@pytest.fixture
def panel(opened):
    opened.editor.errors.clear()
    opened.plain()
    yield opened
    assert not opened.editor.errors and not opened.editor.complaints()


def label(word, branch="fidelity"):
    return f"Attention of “{word}”, branch {branch}"


def test_hover_shows_a_word_and_click_keeps_it(panel):
    viridis = PALETTES["viridis"]
    panel.word("blue").hover()
    panel.expect_shown(label("blue"), panel.map("blue"), viridis)
    panel.page.locator("caption").hover()
    panel.expect_shown(label("red"), panel.map("red"), viridis)
    panel.word("square").click()
    panel.page.locator("caption").hover()
    panel.expect_shown(label("square"), panel.map("square"), viridis)
    expect(panel.word("square")).to_have_attribute("aria-pressed", "true")
    expect(panel.word("red")).to_have_attribute("aria-pressed", "false")


def test_keys_do_all_that_the_mouse_does(panel):
    place = "id => [...app.graph.nodes.find(n => n.type === id).pos]"
    before = panel.page.evaluate(place, NODE)
    keys = panel.page.keyboard
    panel.word("red").focus()
    keys.press("ArrowRight")
    panel.expect_shown(label("circle"), panel.map("circle"), PALETTES["viridis"])
    keys.press("Enter")
    expect(panel.word("circle")).to_have_attribute("aria-pressed", "true")
    keys.press("Home")
    panel.expect_shown(label("<start>"), panel.map("<start>"), PALETTES["viridis"])
    keys.press("Tab")  # leaves the words in one go
    expect(panel.page.locator("select[name=view]")).to_be_focused()
    panel.page.locator("input[name=step]").focus()
    keys.press("ArrowRight")
    panel.expect_shown(label("circle"), panel.map("circle", step=0), PALETTES["viridis"])
    assert panel.page.evaluate(place, NODE) == before


def test_sliders_go_through_steps_and_layers(panel):
    kept = panel.file.header["branches"][0]["conditionings"]["positive"]
    steps = [step["index"] for step in kept["steps"]]
    assert len(steps) > 5 and len(kept["layers"]) > 3
    for position in (1, len(steps)):
        panel.slide("step", position)
        panel.expect_shown(label("red"), panel.map("red", step=steps[position - 1]), PALETTES["viridis"])
    for position, layer in enumerate(kept["layers"]):
        panel.slide("layer", position)
        panel.expect_shown(label("red"), panel.map("red", layer=layer["name"], step=steps[-1]), PALETTES["viridis"])
        text = "all, mean" if layer["name"] == "all" else "{}, {}×{}".format(layer["name"], *layer["size"][::-1])
        expect(panel.page.locator("input[name=layer]")).to_have_attribute("aria-valuetext", text)


def test_the_panel_writes_the_nodes_widgets(panel):
    """So that the next run, and the saved workflow, have what is shown."""
    kept = panel.file.header["branches"][0]["conditionings"]["positive"]
    panel.slide("step", 3)
    panel.slide("layer", 1)
    panel.slide("opacity", 9)
    panel.choose("palette", "inferno")
    panel.choose("view", "spatial")
    panel.page.locator("input[name=oneScale]").check()
    written = {
        "branch": "spatial",
        "layer": kept["layers"][1]["name"],
        "step": kept["steps"][2]["index"],
        "palette": "inferno",
        "opacity": 0.45,
        "normalise": "together",
    }
    assert panel.widgets(written) == written
    saved = panel.page.evaluate("app.extensionManager.workflow.activeWorkflow.activeState.nodes")
    (node,) = [node for node in saved if node["type"] == NODE]
    assert set(written.values()) <= set(node["widgets_values"])
    panel.page.locator("input[name=oneScale]").uncheck()
    panel.choose("palette", "viridis")
    panel.plain()
    means = {"branch": "", "layer": "", "step": -1, "palette": "viridis", "opacity": 1.0, "normalise": "each"}
    assert panel.widgets(means) == means


def test_the_panel_shows_what_the_nodes_widgets_say(panel):
    kept = panel.file.header["branches"][1]["conditionings"]["positive"]
    layer, step = kept["layers"][2]["name"], kept["steps"][1]["index"]
    for name, value in (("branch", "spatial"), ("layer", layer), ("step", step), ("palette", "inferno")):
        panel.turn(name, value)
    panel.expect_shown(label("red", "spatial"), panel.map("red", 1, layer, step), PALETTES["inferno"])
    panel.turn("opacity", 0.33)
    expect(panel.page.locator("input[name=opacity] + output")).to_have_text("33 %")
    panel.turn("step", 77)
    expect(panel.page.locator("input[name=step] + output")).to_have_text("77, not recorded")
    expect(panel.page.locator(".absent")).to_have_text("Not recorded here.")
    panel.turn("step", -1)
    panel.turn("normalise", "together")
    expect(panel.page.locator("input[name=oneScale]")).to_be_checked()
    panel.turn("palette", "viridis")


def test_a_widget_that_is_wired_is_left_alone(panel):
    """Its value is the wire's, which the panel does not know."""
    wire = """id => {
        const node = app.graph.nodes.find(n => n.type === id);
        const number = LiteGraph.createNode("PrimitiveInt");
        app.graph.add(number);
        number.connect(0, node, node.inputs.findIndex(i => i.name === "step"));
        return number.id;
    }"""
    number = panel.page.evaluate(wire, NODE)
    before = panel.widgets(["step"])
    panel.slide("step", 3)
    steps = panel.file.header["branches"][0]["conditionings"]["positive"]["steps"]
    panel.expect_shown(label("red"), panel.map("red", step=steps[2]["index"]), PALETTES["viridis"])
    assert panel.widgets(["step"]) == before
    panel.page.evaluate("id => app.graph.remove(app.graph.getNodeById(id))", number)


def test_the_panel_begins_with_the_nodes_words(panel):
    """A phrase is the mean of its words; without the widget's words they are gone again."""
    panel.turn("words", "blue square, red circle")
    panel.run()
    buttons = panel.page.get_by_role("toolbar", name="Words of the prompt").get_by_role("button")
    expect(buttons.first).to_have_text("blue square")  # once it has read the recording
    assert buttons.all_inner_texts()[1:3] == ["red circle", "<start>"]
    expect(buttons.first).to_have_attribute("aria-pressed", "true")
    both = (panel.map("blue") + panel.map("square")) / 2
    panel.expect_shown(label("blue square"), both, PALETTES["viridis"])
    panel.turn("words", "")
    panel.run()
    expect(buttons.first).to_have_text("<start>")
    expect(panel.word("circle")).to_have_attribute("aria-pressed", "true")


def test_without_a_layout_the_panel_begins_with_a_noun(panel):
    (choices,) = [url for url in panel.host.get("/extensions") if url.endswith("/attention_viewer/choices.js")]
    first = """async ([url, branch]) => {
        const { firstOf } = await import(url);
        const { Maps } = await import(url.replace("choices", "maps"));
        return firstOf(new Maps({}, { branches: [branch] }).entries(0, "positive")).label;
    }"""
    branch = dict(panel.file.header["branches"][0])
    kept = branch["conditionings"]["positive"]
    words = [{**word, "regions": []} for word in kept["words"]]
    branch["conditionings"] = {"positive": {**kept, "words": words, "targets": [], "phrases": []}}
    assert panel.page.evaluate(first, [choices, branch]) == "circle"


def test_panel_and_widgets_are_one_where_nodes_are_elements_of_the_page(panel):
    """In Nodes 2.0 the user changes the widget's own element."""
    setting = "on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
    panel.page.evaluate(setting, True)
    try:
        field = panel.page.locator(f"[data-node-id='{panel.id}'] [aria-label=opacity]")
        panel.slide("opacity", 10)
        expect(field.get_by_role("spinbutton")).to_have_value("0.50")
        field.get_by_test_id("increment").click()
        expect(panel.page.locator("input[name=opacity] + output")).to_have_text("55 %")
    finally:
        panel.page.evaluate(setting, False)
        panel.wait()


def test_views_compare_the_branches(panel):
    colors = PALETTES["viridis"]
    maps = [panel.map("red", branch) for branch in (0, 1)]
    panel.choose("view", "spatial")
    panel.expect_shown(label("red", "spatial"), maps[1], colors)
    panel.choose("view", "side by side")
    for number, name in enumerate(("fidelity", "spatial")):
        panel.expect_shown(label("red", name), maps[number], colors, number=number)
    panel.choose("view", "difference: spatial − fidelity")
    difference = maps[1] - maps[0]
    most = abs(difference).max()
    panel.expect_shown("Attention of “red”, spatial − fidelity", difference, DIVERGING, -most, most)
    panel.choose("view", "weights")
    panel.slide("step", 3)
    panel.expect_shown("Weight of branch spatial", panel.file.weights(2)[1], DIVERGING, 0, 1)


def test_the_mean_weight_outside_a_box_that_covers_the_picture_is_left_out(panel):
    """There is nothing to take the mean of: the table would say "NaN %"."""
    (scenes,) = [url for url in panel.host.get("/extensions") if url.endswith("/attention_viewer/scenes.js")]
    means = """async url => {
        const maps = {
            weights: { branches: ["fidelity", "spatial"] },
            weightFrame: async () => ({ size: [1, 2], maps: [Float32Array.of(0.5, 0.75), Float32Array.of(0.5, 0.25)] }),
            regionMaps: async () => [Float32Array.of(1, 1), Float32Array.of(1, 0)],
        };
        const { readScene } = await import(url);
        const { groups } = await readScene(maps, { view: "weights" });
        return groups[0].columns.map(({ values }) => values);
    }"""
    assert panel.page.evaluate(means, scenes) == [[0.375, 0.5], [None, 0.25]]


def test_one_scale_and_palette(panel):
    words = panel.file.header["branches"][0]["conditionings"]["positive"]["words"]
    plain = [i for i, word in enumerate(words) if not word["text"].startswith("<")]
    objects = list(range(len(words), len(words) + 2))
    largest = panel.file.frame(0, "positive", "all", "all")[plain + objects].max()
    panel.page.locator("input[name=oneScale]").check()
    panel.word("to").click()
    panel.expect_shown(label("to"), panel.map("to"), PALETTES["viridis"], high=largest)
    panel.choose("palette", "inferno")
    panel.expect_shown(label("to"), panel.map("to"), PALETTES["inferno"], high=largest)
    panel.choose("palette", "viridis")


def test_numbers_are_shares_inside_the_boxes(panel):
    size = panel.map("red").shape
    regions = panel.file.regions(size)
    targets = panel.file.frame(0, "positive", "all", "all")[-2:]

    def share(values, region):
        return round(100 * float((values * region).sum() / values.sum()))

    panel.word("blue").hover()
    expected = [
        [share(panel.map("blue"), region), share(target, region), round(100 * region.mean())]
        for region, target in zip(regions, targets, strict=True)
    ]
    expect(panel.page.locator("thead")).to_contain_text("“blue”")
    for found, numbers in zip(panel.numbers().values(), expected, strict=True):
        assert max(abs(a - b) for a, b in zip(found, numbers, strict=True)) <= 1  # halves round up or down
    assert list(panel.numbers()) == [region["label"] for region in panel.file.header["regions"]]
    assert expected[1][1] > expected[1][2] and "own" in panel.page.locator("tbody tr").nth(1).get_attribute("class")


def test_boxes_and_picture(panel):
    """Where the box has its edge, and in its own colour; without opacity the picture is as it is."""
    panel.slide("opacity", 0)
    panel.page.locator("input[name=boxes]").check()
    panel.page.locator("caption").hover()
    box = panel.file.header["objects"][0]["box"]
    color = [int(panel.file.header["objects"][0]["color"][i : i + 2], 16) for i in (1, 3, 5)]
    read = """(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(
        Math.round(x * canvas.width), Math.round(y * canvas.height), 1, 1).data.slice(0, 3)]"""
    edge = [box[0], (box[1] + box[3]) / 2]
    assert panel.canvas().evaluate(read, edge) == color
    panel.page.locator("input[name=boxes]").uncheck()
    inside = panel.canvas().evaluate(read, edge)
    (picture,) = panel.file.header["pictures"]
    drawn = Image.open(panel.host.file(picture)).convert("RGB")
    expected = drawn.getpixel((round(edge[0] * drawn.width), round(edge[1] * drawn.height)))
    assert max(abs(a - b) for a, b in zip(inside, expected, strict=True)) < 30


def test_larger_node_shows_larger_maps(panel):
    width = panel.canvas().bounding_box()["width"]
    resize = """([id, more]) => {
        const node = app.graph.nodes.find(n => n.type === id);
        node.setSize([node.size[0] + more, node.size[1] + more]);
        app.canvas.draw(true, true);
    }"""
    panel.page.evaluate(resize, [NODE, 300])
    panel.page.wait_for_function(
        "([canvas, width]) => canvas.getBoundingClientRect().width > width + 50",
        arg=[panel.canvas().element_handle(), width],
    )
    panel.expect_shown(label("red"), panel.map("red"), PALETTES["viridis"])
    panel.page.evaluate(resize, [NODE, -300])


def test_the_editors_wheel_and_undo_work_over_the_panel(panel):
    view = "[app.canvas.ds.scale, ...app.canvas.ds.offset]"
    scale, *offset = panel.page.evaluate(view)
    panel.canvas().hover()
    panel.page.mouse.wheel(0, -100)
    panel.page.wait_for_function("scale => app.canvas.ds.scale > scale", arg=scale)
    panel.page.mouse.wheel(0, 100)
    box = panel.canvas().bounding_box()
    panel.page.mouse.move(box["x"] + 10, box["y"] + 10)
    panel.page.mouse.down(button="middle")
    panel.page.mouse.move(box["x"] + 60, box["y"] + 60, steps=4)
    panel.page.mouse.up(button="middle")
    moved = panel.page.evaluate(view)[1:]
    assert all(now > before + 20 for now, before in zip(moved, offset, strict=True))
    tracker = "app.extensionManager.workflow.activeWorkflow.changeTracker"
    kept = "id => app.graph.nodes.find(n => n.type === id).properties.attention_maps"
    panel.page.evaluate(f"async () => {{ while ({tracker}.undoQueue.length) await {tracker}.undo(); }}")
    assert panel.page.evaluate(kept, NODE) is None
    panel.wait()
    panel.page.evaluate(f"async () => {{ while ({tracker}.redoQueue.length) await {tracker}.redo(); }}")
    assert panel.page.evaluate(kept, NODE) == panel.reference
    panel.wait()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_text_stands_out_in_both_themes(panel, theme):
    panel.page.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme)
    colors = """() => {
        const root = [...document.querySelectorAll(".dom-widget > *")].find(e => e.shadowRoot).shadowRoot;
        const parts = [".words button", "[aria-pressed=true]", "select", "output", "td", "caption", "figcaption"];
        return parts.map(part => {
            const style = getComputedStyle(root.querySelector(part));
            return [part, style.color, style.backgroundColor];
        });
    }"""
    behind = np.asarray(panel.editor.screenshot(panel.id))[-20:, 20:-20].reshape(-1, 3)
    behind = "rgb({} {} {})".format(*np.median(behind, 0))
    assert (contrast(behind, "rgb(255 255 255)") > 4.5) == (theme == "dark")
    for part, text, ground in panel.page.evaluate(colors):
        ground = behind if ground.endswith(", 0)") else ground
        assert contrast(text, ground) > 3.5, f"{part}: {text} on {ground}"
    panel.page.evaluate("app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")


def contrast(*colors):
    """The ratio of WCAG 2."""
    lights = []
    for color in colors:
        channels = [float(c) / 255 for c in color[color.index("(") + 1 : -1].replace(",", " ").split()[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_nothing_leaks_into_the_page(panel):
    """No name in the window, and no style: what has the panel's tags and classes elsewhere looks as it does without."""
    probe = """() => {
        const made = document.createElement("div");
        made.innerHTML = `<div class="panel words"><button class="special shown" aria-pressed="true">x</button>
            <figure><figcaption class="legend">x</figcaption></figure>
            <table><tr class="own"><th><i>x</i></th></tr></table></div>`;
        document.body.append(made);
        const styles = [...made.querySelectorAll("*")].map(e => {
            const style = getComputedStyle(e);
            const names = [...style].filter(name => !name.startsWith("--"));  // those are the theme's
            return Object.fromEntries(names.map(name => [name, style.getPropertyValue(name)]));
        });
        made.remove();
        return [styles, Object.keys(window).sort()];
    }"""
    used = panel.page.evaluate(probe)
    plain = panel.page.context.browser.new_page(viewport=panel.page.viewport_size)
    plain.route(MODULES, lambda route: route.fulfill(body="", content_type="text/javascript"))
    plain.goto(panel.host.url)
    plain.wait_for_function("window.app?.graph?.nodes.length")
    unused = plain.evaluate(probe)
    plain.close()
    for own, other in zip(used[0], unused[0], strict=True):
        assert {name: value for name, value in own.items() if value != other[name]} == {}
    assert set(used[1]) - set(unused[1]) == set()


def test_reload_brings_the_maps_back_from_the_temp_folder(panel):
    """The workflow keeps where they are, and the node's size; without the files, it says what to do."""
    size = "id => [...app.graph.nodes.find(n => n.type === id).size]"
    before = panel.page.evaluate(size, NODE)
    saved = panel.page.evaluate("id => app.graph.serialize().nodes.find(n => n.type === id)", NODE)
    assert saved["properties"]["attention_maps"] == panel.reference
    assert panel.reference["filename"] not in str({**saved, "properties": {}}) and len(str(saved)) < 6000

    panel.page.reload()
    panel.wait()
    assert panel.page.evaluate(size, NODE) == before
    panel.plain()
    panel.expect_shown(label("red"), panel.map("red"), PALETTES["viridis"])

    file = panel.host.file(panel.reference)
    moved = file.rename(file.with_suffix(".moved"))
    panel.page.reload()
    panel.page.get_by_text(GONE).wait_for()
    moved.rename(file)
    panel.page.reload()
    panel.wait()
