"""The user study of a benchmark: its page, in headless Chromium where there is one, and the count of its votes."""

import json
import re
from base64 import b64decode
from collections import Counter
from io import BytesIO

import browser
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import expect, sync_playwright
from scipy.stats import binomtest

from realcompo_cli.bench.study import QUESTIONS, StudyRun, make_study
from realcompo_cli.bench.votes import Rate, read_key, read_votes, votes_table, win_rates
from realcompo_core.bench.scores import Picture
from realcompo_core.errors import RealCompoError

PROMPTS = {i: f"{number} birds on a wire" for i, number in enumerate(("no", "two", "three", "four", "five"))}
PAUSE = 350  # milliseconds: for less the page takes an answer to be to the pair before


@pytest.fixture
def run(tmp_path):
    """A run with a picture of its own for each prompt and number."""

    def make(name, prompts=PROMPTS, numbers=1, size=24):
        pictures = {}
        for picture in (Picture(index, number) for index in prompts for number in range(numbers)):
            path = tmp_path / f"{name} files" / f"{name}_{picture.index}_{picture.number}.png"
            path.parent.mkdir(exist_ok=True)
            noise = np.random.default_rng([*name.encode(), *picture]).integers(0, 256, (size, size, 3), np.uint8)
            text = PngImagePlugin.PngInfo()
            text.add_text("Comment", f"made by {name}")
            Image.fromarray(noise).save(path, pnginfo=text)
            pictures[picture] = path
        return StudyRun(name, prompts, pictures)

    return make


def content_of(study):
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', study.html)[1])


def embedded(study):
    return [b64decode(url.partition(",")[2]) for url in content_of(study)["pictures"]]


def test_page_and_key_say_the_same(run):
    """Each pair of the page is of the pictures of the runs that the key names."""
    runs = {r.name: r for r in (run("plainrun"), run("otherrun"))}
    study = make_study(list(runs.values()))
    content, pictures = content_of(study), embedded(study)
    assert study.key["study"] == content["study"] and study.key["runs"] == ["plainrun", "otherrun"]
    assert len(content["pairs"]) == len(PROMPTS) and len(pictures) == 2 * len(PROMPTS)
    for pair in content["pairs"]:
        meant = study.key["pairs"][pair["id"]]
        assert pair["prompt"] == meant["prompt"] == PROMPTS[meant["index"]]
        for side in ("left", "right"):
            file = runs[meant[side]].pictures[Picture(meant["index"], meant["number"])]
            shown = Image.open(BytesIO(pictures[pair[side]]))
            assert np.array_equal(np.asarray(shown), np.asarray(Image.open(file)))
    assert json.loads(json.dumps(study.key)) == study.key


def test_page_is_blind(run, tmp_path):
    """No name of a run, no path, no file's name, and nothing that the files say of themselves."""
    runs = [run("plainrun", size=160), run("otherrun")]
    study = make_study(runs, side=128)
    kinds = {url[:15] for url in content_of(study)["pictures"]}
    assert kinds == {"data:image/jpeg", "data:image/png;"}
    whole = [study.html.encode(), *embedded(study)]
    for secret in ("plainrun", "otherrun", "made by", str(tmp_path), "_0.png", "files"):
        assert not any(secret.encode() in text for text in whole), secret


def test_page_of_one_study_is_always_the_same(run):
    runs = [run("plainrun"), run("otherrun")]
    assert make_study(runs, seed=3) == make_study(runs, seed=3)
    assert make_study(runs, seed=3).key != make_study(runs, seed=4).key
    assert make_study(runs, title="Birds").key == make_study(runs).key


def test_large_pictures_are_shrunk_and_each_is_embedded_once(run):
    runs = [run(name, size=90) for name in ("plainrun", "otherrun", "thirdrun")]
    study = make_study(runs, side=40)
    assert len(study.key["pairs"]) == 3 * len(PROMPTS)
    assert [Image.open(BytesIO(data)).size for data in embedded(study)] == [(40, 40)] * 3 * len(PROMPTS)


def test_text_of_a_prompt_stays_text(run):
    prompts = {0: 'a </script><b>bold</b> & "quoted" {{study}} cat'}
    study = make_study([run("plainrun", prompts), run("otherrun", prompts)], title="<i>A & B</i> {{study}}")
    assert content_of(study)["pairs"][0]["prompt"] == prompts[0]
    assert "<b>" not in study.html and "<i>" not in study.html


@pytest.mark.parametrize("count", [None, 31, 6, 2, 1])
def test_pairs_are_even_over_runs_and_sides(run, count):
    runs = [run(name, numbers=4) for name in ("plainrun", "otherrun", "thirdrun")]
    chosen = make_study(runs, pairs=count, seed=1).key["pairs"].values()
    assert len(chosen) == (count or 3 * 4 * len(PROMPTS))
    assert len({tuple(sorted(pair.items())) for pair in chosen}) == len(chosen)
    of_runs = Counter(frozenset((pair["left"], pair["right"])) for pair in chosen)
    assert max(of_runs.values()) - min(of_runs.get(r, 0) for r in of_runs) <= 1 and len(of_runs) == min(3, len(chosen))
    for names, n in of_runs.items():
        left = Counter(pair["left"] for pair in chosen if {pair["left"], pair["right"]} == names)
        assert all(left[name] in (n // 2, n - n // 2) for name in names)
    if count is None:
        sides = [pair["left"] < pair["right"] for pair in chosen]
        changes = sum(a != b for a, b in zip(sides, sides[1:], strict=False))
        assert len(sides) / 4 < changes < len(sides) * 3 / 4, "the sides take turns, or are in blocks"


def test_only_what_runs_have_in_common_is_compared(run):
    fewer = run("plainrun", {i: PROMPTS[i] for i in (1, 3)}, numbers=2)
    pairs = make_study([fewer, run("otherrun")]).key["pairs"].values()
    assert sorted((pair["index"], pair["number"]) for pair in pairs) == [(1, 0), (3, 0)]


def test_what_makes_no_study(run, tmp_path):
    one, other = run("plainrun"), run("otherrun")
    broken = tmp_path / "broken.png"
    broken.write_bytes(next(iter(one.pictures.values())).read_bytes()[:300])
    for runs, options, words in (
        ([one], {}, "give two or more"),
        ([], {}, "there is none"),
        ([one, other, one], {}, "two runs have the name 'plainrun'"),
        ([one, run("otherrun", {7: "a cat"})], {}, "no two of the runs plainrun, otherrun"),
        ([one, run("otherrun", PROMPTS | {3: "a cat"})], {}, "prompt 3 is 'four birds on a wire' in the run plainrun"),
        ([one, other._replace(pictures={Picture(0, 0): broken})], {}, "broken.png cannot be read as a picture"),
        ([one, other._replace(pictures={Picture(0, 0): tmp_path / "gone.png"})], {}, "gone.png cannot be read"),
        ([one, other], {"pairs": 0}, "pairs is 0"),
        ([one, other], {"side": 0}, "side is 0"),
        ([one, other], {"title": "Is Plainrun better?"}, "which voters must not see"),
    ):
        with pytest.raises(RealCompoError, match=re.escape(words)):
            make_study(runs, **options)


# Votes.

KEY = {
    "study": "abc",
    "runs": ["one", "two"],
    "pairs": {
        f"p{i}": {"left": ("one", "two")[i % 2], "right": ("two", "one")[i % 2], "prompt": "", "index": i, "number": 0}
        for i in range(4)
    },
}


@pytest.fixture
def ballot(tmp_path):
    """Writes a voter's file: the run that is better, or "same", for each pair, and what else the file says."""

    def write(name, better, key=KEY, **other):
        sides = [
            {key["pairs"][pair]["left"]: "left", key["pairs"][pair]["right"]: "right", "same": "same"}[choice]
            for pair, choice in better.items()
        ]
        votes = [{"pair": p, "seconds": 1} | dict.fromkeys(QUESTIONS, s) for p, s in zip(better, sides, strict=True)]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"study": key["study"], "voter": name, "votes": votes} | other))
        return path

    return write


def test_rates_of_known_votes(ballot):
    """The sides are undone by the key; a tie is half a win."""
    paths = [
        ballot("ann", {"p0": "one", "p1": "one", "p2": "two", "p3": "same"}),
        ballot("bob", {"p0": "one", "p1": "same", "p2": "one", "p3": "one"}),
    ]
    votes = read_votes(paths, KEY)
    assert votes.notes == () and len(votes.votes) == 8
    rates = win_rates(votes)
    assert [rate.question for rate in rates] == list(QUESTIONS)
    for rate in rates:
        assert (rate.first, rate.second, rate.voters) == ("one", "two", 2)
        assert (rate.wins, rate.ties, rate.losses, rate.count, rate.rate) == (5, 2, 1, 8, 6 / 8)
    assert "| realism | one | two | 5 | 2 | 1 | 2 | 75.0% | 40.9% to 92.9% |" in votes_table(rates).split("\n")


@pytest.mark.parametrize(("wins", "count"), [(0, 5), (5, 5), (13, 20), (1, 1), (480, 1000)])
def test_interval_is_wilsons(wins, count):
    interval = binomtest(wins, count).proportion_ci(0.95, "wilson")
    assert Rate("", "one", "two", wins, 0, count - wins, 1).interval == pytest.approx(tuple(interval), abs=1e-12)


def test_each_question_has_its_own_rate(ballot, tmp_path):
    path = ballot("ann", {"p1": "same"})
    data = json.loads(path.read_text())
    data["votes"][0] |= {"realism": "left", "overall": "right"}  # of p1, whose left is "two"
    path.write_text(json.dumps(data))
    assert [rate.rate for rate in win_rates(read_votes([path], KEY))] == [0, 0.5, 1]


def test_three_runs_are_also_compared_with_all_others(ballot):
    sides = [("a", "b"), ("c", "a"), ("b", "c"), ("a|d", "a")]
    key = {
        "study": "abc",
        "runs": ["a", "b", "c", "a|d"],
        "pairs": {f"p{i}": {"left": left, "right": right} for i, (left, right) in enumerate(sides)},
    }
    rates = win_rates(read_votes([ballot("ann", {"p0": "a", "p1": "same", "p2": "c"}, key)], key))
    of_realism = {(rate.first, rate.second): rate.rate for rate in rates if rate.question == "realism"}
    between = {("a", "b"): 1, ("a", "c"): 0.5, ("b", "c"): 0}  # nobody compared a|d
    assert of_realism == between | {("a", None): 0.75, ("b", None): 0, ("c", None): 0.75}
    assert "| a | all others |" in votes_table(rates)
    only = read_votes([ballot("ann", {"p3": "a|d"}, key)], key)
    assert r"| a\|d | all others | 1 |" in votes_table(win_rates(only))


def test_bad_files_are_named_and_good_ones_count(ballot, tmp_path):
    all_one = dict.fromkeys(KEY["pairs"], "one")
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "list.json").write_text("[]")
    entry = {"pair": "p0"} | dict.fromkeys(QUESTIONS, "left")
    bad = {
        tmp_path / "gone.json": "cannot be read",
        tmp_path / "text.json": "is no JSON",
        tmp_path / "deep.json": "is no JSON",
        tmp_path / "list.json": "holds list",
        ballot("other", all_one, study="xyz"): "of the study 'xyz', and the key of 'abc'",
        ballot("pair", {}, votes=[entry | {"pair": "p9"}]): "has no pair 'p9'",
        ballot("kind", {}, votes=[entry | {"pair": ["p0"]}]): "has no pair ['p0']",
        ballot("answer", {}, votes=[entry | {"realism": "both"}]): "realism of the pair p0 is 'both'",
        ballot("missing", {}, votes=[{"pair": "p0", "realism": "left"}]): "compositionality of the pair p0 is None",
        ballot("twice", {}, votes=[entry, entry]): "twice on the pair p0",
        ballot("voter", all_one, voter=7): "voter is 7",
        ballot("votes", all_one, votes={"p0": "left"}): "votes is no list",
    }
    good = ballot("ann", all_one)
    votes = read_votes([*bad, good], KEY)
    assert len(votes.notes) == len(bad) and len(votes.votes) == len(all_one)
    for note, (path, words) in zip(votes.notes, bad.items(), strict=True):
        assert note.startswith(f"{path} does not count: ") and words in note
    with pytest.raises(RealCompoError, match="(?s)no votes on the study abc.*text.json does not count"):
        read_votes(list(bad), KEY)


def test_incomplete_files_count_and_are_said(ballot):
    path = ballot("ann", {"p0": "one"})
    votes = read_votes([path], KEY)
    assert votes.notes == (f"{path} is incomplete: its 1 of 4 pairs count",) and len(votes.votes) == 1


def test_voter_counts_once(ballot):
    """With the newer file, or else the longer one, in whichever order they come."""
    all_one, all_two = dict.fromkeys(KEY["pairs"], "one"), dict.fromkeys(KEY["pairs"], "two")
    old = ballot("old", all_one, voter="ann", saved="2026-01-01T10:00:00.000Z")
    new = ballot("new", all_two, voter="ann", saved="2026-01-01T10:05:00.000Z")
    short = ballot("short", {"p0": "one"}, voter="bob")
    long = ballot("long", all_two, voter="bob")
    for paths in ([old, new, short, long], [long, short, new, old]):
        votes = read_votes(paths, KEY)
        assert [rate.rate for rate in win_rates(votes)] == [0, 0, 0] and len(votes.votes) == 8
        assert set(votes.notes) == {
            f"{old} does not count: of this voter's files {new} does",
            f"{short} does not count: of this voter's files {long} does",
        }
    assert read_votes([new, new], KEY).notes == ()


def test_key_is_read_as_it_was_written(run, tmp_path):
    study = make_study([run("plainrun"), run("otherrun")])
    path = tmp_path / "key.json"
    path.write_text(json.dumps(study.key))
    assert read_key(path) == study.key
    path.write_text(json.dumps({"study": "abc", "votes": []}))
    with pytest.raises(RealCompoError, match=r"key.json is no key of a study"):
        read_key(path)


# In the browser.

needs_browser = pytest.mark.skipif(not browser.find_browser(), reason=browser.NO_BROWSER)


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        yield browser.launch(playwright)


@pytest.fixture
def study(run, tmp_path):
    """A study of five pairs; `study.key` and the `file` of its page."""
    made = make_study([run("plainrun"), run("otherrun")])
    (tmp_path / "study.html").write_text(made.html, encoding="utf-8")
    return made


class Voter:
    """Someone with the study's page, in a browser of their own. `problems` are errors, and requests to elsewhere."""

    def __init__(self, chromium, url, **options):
        self.context = chromium.new_context(**options)
        self.page = self.context.new_page()
        self.problems = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or self.problems.append(r.url))
        self.page.goto(url)

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True)

    def begin(self, name=""):
        self.page.get_by_label("Your name").fill(name)
        self.button("Begin").click()

    def press(self, *keys):
        """Answers with keys, as slowly as a person who has seen the pair."""
        self.page.wait_for_timeout(PAUSE)
        for key in keys:
            self.page.keyboard.press(key)

    def prompt(self):
        return self.page.locator("#prompt").inner_text()

    def place(self):
        return self.page.locator("#place").inner_text()

    def answers(self):
        """The chosen buttons of the pair in sight."""
        return self.page.locator("[aria-pressed=true]").evaluate_all("all => all.map(b => b.value)")

    def order(self):
        return self.page.evaluate("state.order")

    def save(self):
        with self.page.expect_download() as download:
            self.page.locator("[data-do=save]:visible").click()
        assert download.value.suggested_filename.endswith(".json")
        return download.value.path()


@pytest.fixture
def voter(chromium, study, tmp_path):
    made = []

    def start(**options):
        made.append(Voter(chromium, (tmp_path / "study.html").as_uri(), **options))
        return made[-1]

    yield start
    for someone in made:
        someone.context.close()
        assert not someone.problems


@needs_browser
def test_votes_by_keyboard_are_those_that_are_saved(study, voter):
    """The page shows each pair's own prompt and pictures, and its file is read back with the runs that were meant."""
    ann = voter()
    ann.begin("Ann")
    shown = {pair["id"]: pair for pair in content_of(study)["pairs"]}
    pictures = content_of(study)["pictures"]
    for n, pair in enumerate(ann.order(), 1):
        assert (ann.prompt(), ann.place()) == (shown[pair]["prompt"], f"{n} of 5")
        for side in ("left", "right"):
            assert ann.page.locator(f"#{side}").get_attribute("src") == pictures[shown[pair][side]]
        right = study.key["pairs"][pair]["right"] == "plainrun"
        ann.press("ArrowRight" if right else "ArrowLeft", "2", "1" if right else "3")
    expect(ann.page.get_by_text("Thank you!")).to_be_visible()
    data = json.loads(ann.save().read_text())
    assert (data["study"], data["name"], data["complete"]) == (study.key["study"], "Ann", True)
    assert [vote["pair"] for vote in data["votes"]] == ann.order()
    assert all(0 < vote["seconds"] < 60 for vote in data["votes"])
    votes = read_votes([ann.save()], study.key)
    assert votes.notes == ()
    assert [(rate.first, rate.count, rate.rate) for rate in win_rates(votes)] == [
        ("plainrun", 5, 1),
        ("plainrun", 5, 0.5),
        ("plainrun", 5, 0),
    ]


@needs_browser
def test_reload_goes_on_where_the_voter_was(voter):
    ann = voter()
    ann.begin()
    ann.press("1", "1", "1")
    ann.press("3")
    before = ann.order(), ann.prompt(), ann.place(), ann.answers()
    assert before[2:] == ("2 of 5", ["right"])
    ann.page.reload()
    assert (ann.order(), ann.prompt(), ann.place(), ann.answers()) == before
    saved = json.loads(ann.save().read_text())
    assert not saved["complete"] and len(saved["votes"]) == 1


@needs_browser
def test_each_voter_has_an_order_and_a_name_of_their_own(voter):
    voters = [voter() for _ in range(6)]
    assert len({tuple(someone.order()) for someone in voters}) > 1
    assert len({someone.page.evaluate("state.voter") for someone in voters}) == 6


@needs_browser
def test_back_takes_back_one_answer_after_the_other(voter):
    ann = voter()
    ann.begin()
    first = ann.prompt()
    expect(ann.button("Back")).to_be_disabled()
    ann.press("1", "2", "3")
    ann.press("1")
    ann.press("Backspace")
    assert (ann.place(), ann.answers()) == ("2 of 5", [])
    ann.press("Backspace")
    assert (ann.place(), ann.prompt(), ann.answers()) == ("1 of 5", first, ["left", "same"])
    ann.button("Back").click()
    assert ann.answers() == ["left"]
    ann.press("3", "3")
    assert ann.place() == "2 of 5"
    vote = json.loads(ann.save().read_text())["votes"][0]
    assert [vote[question] for question in QUESTIONS] == ["left", "right", "right"]


@needs_browser
def test_last_answer_can_be_taken_back(voter):
    ann = voter()
    ann.begin()
    for _ in range(5):
        ann.press("1", "1", "1")
    assert ann.place() == "all 5 done"
    ann.press("Backspace")
    assert (ann.place(), ann.answers()) == ("5 of 5", ["left", "left"])


@needs_browser
def test_buttons_answer_and_change_an_answer(voter):
    ann = voter()
    ann.begin()
    ann.page.wait_for_timeout(PAUSE)
    group = ann.page.get_by_role("group", name=QUESTIONS["overall"])
    group.get_by_role("button", name="B", exact=True).click()
    assert ann.answers() == ["right"]
    group.get_by_role("button", name="about the same").click()
    assert ann.answers() == ["same"]
    ann.press("1", "1")  # the two questions that are left
    assert ann.place() == "2 of 5"


@needs_browser
def test_answers_that_come_too_soon_are_none_to_the_next_pair(voter):
    """As when a key is struck twice, or a button; and keys that are held down, or go with Ctrl, answer nothing."""
    ann = voter()
    ann.begin()
    ann.press()
    ann.page.evaluate(
        """() => { for (let i = 0; i < 5; i++)
            document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "1", bubbles: true})); }"""
    )
    assert (ann.place(), ann.answers()) == ("2 of 5", [])
    ann.press("Control+1")
    assert ann.answers() == []
    ann.page.locator("#realism button").first.dblclick()
    assert ann.answers() == ["left"]
    ann.page.keyboard.down("2")
    ann.page.keyboard.down("2")
    assert ann.answers() == ["left", "same"]


@needs_browser
def test_letters_of_the_name_are_no_answers(voter):
    ann = voter()
    ann.page.get_by_label("Your name").press_sequentially("Ann 123")
    ann.page.keyboard.press("Backspace")
    ann.page.keyboard.press("Enter")
    assert (ann.place(), ann.answers()) == ("1 of 5", [])
    assert json.loads(ann.save().read_text())["name"] == "Ann 12"


@needs_browser
def test_start_again_asks_first(voter):
    ann = voter()
    ann.begin("Ann")
    ann.press("1", "1", "1")
    before = ann.page.evaluate("state.voter")
    dialog = ann.page.get_by_role("dialog")
    ann.button("Start again").click()
    ann.press("1")  # no vote while it asks
    ann.page.keyboard.press("Escape")
    assert (ann.place(), ann.answers()) == ("2 of 5", [])
    ann.button("Start again").click()
    dialog.get_by_role("button", name="Keep my votes").click()
    assert ann.place() == "2 of 5"
    ann.button("Start again").click()
    dialog.get_by_role("button", name="Start again").click()
    expect(ann.button("Begin")).to_be_visible()
    assert ann.page.evaluate("[state.name, state.votes]") == ["", {}]
    assert ann.page.evaluate("state.voter") != before
    ann.begin()
    assert (ann.place(), ann.answers()) == ("1 of 5", [])


@needs_browser
def test_without_storage_the_page_says_so_and_goes_on(voter):
    ann = voter()
    warning = ann.page.get_by_text("This browser keeps nothing")
    expect(warning).to_be_hidden()
    ann.context.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    )
    ann.page.reload()
    expect(warning).to_be_visible()
    ann.begin()
    ann.press("1", "2", "3")
    assert ann.place() == "2 of 5"
    assert len(json.loads(ann.save().read_text())["votes"]) == 1


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (820, 1180), (390, 844), (320, 568)])
def test_nothing_is_wider_than_the_screen_and_a_pair_fits_on_it(voter, size, scheme):
    """Both pictures and the question asked can be seen at once; the smallest phones scroll down, never sideways."""
    ann = voter(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    assert ann.page.evaluate(page)[0] == size[0]
    ann.begin()
    width, height = ann.page.evaluate(page)
    assert width == size[0] and (height == size[1] or size == (320, 568))
    left, right = (ann.page.locator(f"#{side}").bounding_box() for side in ("left", "right"))
    assert left["width"] == right["width"] > 150 and left["height"] == right["height"] > 150
    stacked = size[0] < 900
    assert (left["y"] + left["height"] <= right["y"]) == stacked
    assert (left["x"] + left["width"] <= right["x"]) != stacked
    expect(ann.page.get_by_role("group", name=QUESTIONS["realism"])).to_be_in_viewport(ratio=1)
