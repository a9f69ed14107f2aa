"""The pack in a folder whose name has spaces and dots, which ComfyUI itself serves nothing from."""

import urllib.error
import urllib.request
from urllib.parse import quote

import browser
import host_server
import pytest
from playwright.sync_api import sync_playwright

FOLDER = "Real Compo 1.5 (copy)"
PACK = host_server.PACK
NODE = "RealCompoAttentionMapViewer"


@pytest.fixture(scope="module")
def oddly_named(host_folder, tmp_path_factory):
    server = host_server.HostServer(host_folder, tmp_path_factory.mktemp("odd") / "base", folder=FOLDER)
    yield server
    server.stop()


def fetched(host, path: str) -> bytes:
    with urllib.request.urlopen(host.url + quote(path), timeout=30) as reply:
        return reply.read()


def test_templates_help_pages_and_scripts_are_served(oddly_named):
    names = oddly_named.get("/workflow_templates")[FOLDER]
    assert sorted(names) == sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
    for name in names:
        for file in (f"{name}.json", f"{name}.jpg"):
            assert (
                fetched(oddly_named, f"/api/workflow_templates/{FOLDER}/{file}")
                == (PACK / "workflows" / file).read_bytes()
            )
    module = oddly_named.get(f"/object_info/{NODE}")[NODE]["python_module"]
    where = module.split(".")[1]  # the editor's own rule
    for page in (PACK / "web" / "docs").iterdir():
        assert fetched(oddly_named, f"/extensions/{where}/docs/{page.name}") == page.read_bytes()
    scripts = [url for url in oddly_named.get("/extensions") if "attention_viewer" in url]
    assert len(scripts) > 5
    for url in scripts:
        assert urllib.request.urlopen(oddly_named.url + url, timeout=30).status == 200


def test_nothing_outside_the_folder_is_served(oddly_named):
    for path in ("/%2e%2e/__init__.py", "/..%2f__init__.py", "/docs/%2e%2e/%2e%2e/README.md", "/docs"):
        with pytest.raises(urllib.error.HTTPError, match="404|403"):
            urllib.request.urlopen(f"{oddly_named.url}/extensions/{quote(FOLDER)}{path}", timeout=30)


@pytest.mark.skipif(not browser.find_browser(), reason=browser.NO_BROWSER)
def test_the_editor_opens_a_template_its_panel_and_its_help(oddly_named):
    with sync_playwright() as playwright:
        editor = browser.Editor(browser.launch(playwright), oddly_named)
        editor.open_template(FOLDER, "attention_maps")
        assert not editor.missing_nodes()
        assert "Hover a word" in editor.help(NODE)
        editor.page.get_by_text("Run the workflow to see its maps.").wait_for()
        assert not editor.errors


def test_a_folder_named_like_the_part_before_the_dot_is_said(host_folder, tmp_path):
    base = tmp_path / "base"
    other = tmp_path / "other"
    other.mkdir()
    (other / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")

    class Beside(host_server.HostServer):
        def __init__(self):
            link = base / "custom_nodes" / "realcompo"
            link.parent.mkdir(parents=True)
            link.symlink_to(other)
            super().__init__(host_folder, base, folder="realcompo.new")

    host = Beside()
    host.stop()
    (said,) = [line for line in host.start_log.splitlines() if "help pages" in line]
    assert "realcompo.new" in said and "without dots" in said
