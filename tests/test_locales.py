"""The pack's texts in other languages, as the editor gets them from the host."""

import json

import browser
import pytest
from locale_files import LOCALES, english
from playwright.sync_api import sync_playwright

LANGUAGES = ["de", "ja", "zh"]
OFFERED = ["ja", "zh"]  # by the editor, which has no German itself so far
NODE = "RealCompoBalanceReport"


def texts(language: str) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def test_english_is_what_the_nodes_say(host):
    assert texts("en") == english(host), "run `python tests/locale_files.py`"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_name_and_a_description_and_nothing_is_left_over(language):
    known, translated = texts("en"), texts(language)
    assert translated.keys() == known.keys()
    for kind, own in translated.items():
        assert own["display_name"] and own["description"] != known[kind]["description"]
        assert own["inputs"].keys() <= known[kind]["inputs"].keys()
        assert all(given["name"] for given in own["inputs"].values())
    names = [own["display_name"] for own in translated.values()]
    assert len(set(names)) == len(names)


def test_the_host_serves_every_language(host):
    served = host.get("/i18n")
    for language in ("en", *LANGUAGES):
        assert texts(language).items() <= served[language]["nodeDefs"].items()


@pytest.mark.skipif(not browser.find_browser(), reason=browser.NO_BROWSER)
@pytest.mark.parametrize("language", OFFERED)
def test_the_editor_shows_the_nodes_name(host, language):
    host.post("/settings", {"Comfy.Locale": language})
    try:
        with sync_playwright() as playwright:
            editor = browser.Editor(browser.launch(playwright), host)
            title = editor.page.evaluate("kind => LiteGraph.createNode(kind).title", NODE)
            assert title == texts(language)[NODE]["display_name"]
            assert not editor.errors
    finally:
        host.post("/settings", {"Comfy.Locale": "en"})
