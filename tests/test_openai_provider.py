"""The openai provider against a local server that misbehaves, and where keys come from and go."""

import json
import logging
import threading
import time

import jsonschema
import pytest
from endless import ends
from scripted_server import SECRET, drip, echo_key, hang, hang_up, say, send, serving

from realcompo_core.errors import Cancelled, ProviderError, ReplyError
from realcompo_core.layout import Layout, LayoutObject
from realcompo_core.providers import OpenAIProvider, get_provider, provider_names
from realcompo_core.providers.profiles import Profile, load_profile, profile_names, usable_profiles
from realcompo_core.providers.prompting import (
    EXAMPLES,
    MAX_QUOTED,
    REPLY_SCHEMA,
    messages,
    repair_messages,
    revision_messages,
    single_message,
)
from realcompo_core.providers.text import parse_reply

ANSWER = json.dumps(EXAMPLES["an oil painting of an owl above a sleeping fox"])
PROMPT = "an owl above a sleeping fox"


def provider_of(server, timeout=5.0, retries=0, **options):
    return OpenAIProvider(Profile("local", server.url, "tiny", SECRET), timeout=timeout, retries=retries, **options)


def ask(server, **options):
    return provider_of(server, **options).propose(PROMPT, (768, 512))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_CUSTOM_HEADERS", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def profiles(monkeypatch, tmp_path):
    """Writes the file of provider profiles."""
    path = tmp_path / "providers.json"
    monkeypatch.setenv("REALCOMPO_PROVIDERS", str(path))

    def write(data):
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return write


def test_a_well_behaved_server_gets_the_whole_question():
    replies = []
    with serving(say(ANSWER)) as server:
        layout = ask(server, seed=7, on_reply=replies.append)
    assert replies == [ANSWER]
    assert [item.phrase for item in layout.objects] == ["an owl", "a sleeping fox"]
    assert layout.prompt == PROMPT
    [(path, headers, body)] = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert (body["model"], body["seed"]) == ("tiny", 7)
    assert body["response_format"]["json_schema"]["schema"] == REPLY_SCHEMA
    assert PROMPT in body["messages"][-1]["content"]
    assert "768 x 512" in body["messages"][-1]["content"]


@pytest.mark.parametrize("text", [f"Gladly!\n```json\n{ANSWER}\n```", f"<think>An owl...</think> My layout: {ANSWER}."])
def test_prose_and_fences_around_the_answer(text):
    with serving(say(text)) as server:
        assert len(ask(server).objects) == 2


def takes(*types):
    """A server that answers to these types of response_format, and refuses others as that server does."""

    def respond(handler):
        form = handler.server.requests[-1][2].get("response_format", {"type": "absent"})
        nested = form.get("json_schema", form).get("schema")
        if form["type"] not in types:
            send('{"error": {"message": "response_format.type must be another"}}', types[-1])(handler)
        elif form["type"] != "absent" and nested != REPLY_SCHEMA:
            send('{"error": "no schema"}', 400)(handler)
        else:
            say(ANSWER)(handler)

    return respond


@pytest.mark.parametrize(
    ("server_script", "asked"),
    [
        (takes("json_schema", "json_object", "absent", 400), ["json_schema"]),  # OpenAI, Ollama, vLLM, llama.cpp
        (takes("json_schema", "text", "absent", 400), ["json_schema"]),  # LM Studio
        (takes("json_object", "text", "absent", 422), ["json_schema", "json_object"]),  # llama-cpp-python
        (takes("absent", 400), ["json_schema", "json_object", "absent"]),
    ],
)
def test_servers_are_asked_for_json_in_the_way_that_they_take(server_script, asked):
    with serving(server_script) as server:
        provider = provider_of(server)
        for _ in range(2):
            assert len(provider.propose(PROMPT, (768, 512)).objects) == 2
    types = [body.get("response_format", {"type": "absent"})["type"] for _, _, body in server.requests]
    assert types == [*asked, asked[-1]], "what was refused is not asked for again"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", ["", None])
def test_an_answer_in_the_place_of_the_reasoning_is_taken(field, content):
    """LM Studio, Ollama and vLLM put it there if they hold a thinking model's first word to the schema."""
    with serving(say(content, **{field: ANSWER})) as server:
        assert [item.phrase for item in ask(server).objects] == ["an owl", "a sleeping fox"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_model_that_only_thought_is_told_so(field):
    thoughts = "The owl is a bird. " * 30
    with serving(say("", **{field: thoughts})) as server, pytest.raises(ProviderError) as caught:
        ask(server)
    message = str(caught.value)
    assert f"{len(thoughts)} characters of reasoning and no answer" in message and "thinking off" in message
    assert len(server.requests) == 1


def test_reasoning_beside_an_answer_is_passed_over():
    with serving(say(ANSWER, reasoning_content=ANSWER.replace("owl", "cat"))) as server:
        assert ask(server).objects[0].phrase == "an owl"


RENAMED = ANSWER.replace("a sleeping fox", "a dog")


def test_a_bad_reply_is_asked_to_be_corrected_with_its_error():
    replies = []
    with serving(say(RENAMED), say(ANSWER)) as server:
        layout = ask(server, on_reply=replies.append)
    assert [item.phrase for item in layout.objects] == ["an owl", "a sleeping fox"]
    assert replies == [RENAMED, ANSWER]
    first, second = (body["messages"] for _, _, body in server.requests)
    assert second[:-2] == first
    assert second[-2] == {"role": "assistant", "content": RENAMED}
    assert second[-1]["role"] == "user" and "phrase 'a dog' is not in the prompt" in second[-1]["content"]
    assert "The reply was" not in second[-1]["content"], "the model knows its own reply"


def test_two_bad_replies_are_the_end_and_both_are_told():
    with serving(say("An owl is a bird."), say(RENAMED), say(ANSWER)) as server, pytest.raises(ReplyError) as caught:
        ask(server)
    assert len(server.requests) == 2
    message = str(caught.value)
    assert "phrase 'a dog' is not in the prompt" in message and "no list of objects" in message
    assert caught.value.reply == RENAMED and RENAMED[-100:] in message


def test_a_server_that_fails_while_it_corrects():
    with serving(say("An owl is a bird."), send("oops", 500)) as server, pytest.raises(ReplyError) as caught:
        ask(server)
    assert "An owl is a bird" in str(caught.value) and "status 500" in str(caught.value)


def test_the_timeout_counts_for_both_questions():
    def late(handler):
        handler.server.released.wait(2.5)
        say("An owl is a bird.")(handler)

    start = time.monotonic()
    with serving(late, hang) as server, pytest.raises(ReplyError, match="within 3 s"):
        ask(server, timeout=3.0)
    assert time.monotonic() - start < 5  # each with a timeout of its own: 5.5


def test_a_long_reply_is_quoted_in_part_and_without_its_reasoning():
    chat = messages(PROMPT, (512, 512))
    error = ReplyError("no")
    assert repair_messages(chat, "<think>An owl ...</think> Sorry.", error)[-2]["content"] == "Sorry."
    assert len(repair_messages(chat, "x" * 10 * MAX_QUOTED, error)[-2]["content"]) == MAX_QUOTED


def layout_so_far():
    objects = (
        LayoutObject("an owl", (0.3333333, 0.05, 0.65, 0.45)),
        LayoutObject("a sleeping fox", (0.1, 0.5, 0.8, 0.9)),
    )
    return Layout(objects, "a forest", prompt=PROMPT)


def revised_by(reply, instruction="move the fox down", **options):
    with serving(*(say(text) for text in reply)) as server:
        layout = provider_of(server, **options).revise(layout_so_far(), instruction, (768, 512))
    return layout, server.requests


def reply_of(*objects, **scene):
    listed = [{"phrase": phrase, "box": box} for phrase, box in objects]
    return json.dumps({"reasoning": "", "background": "", "negative": "", **scene, "objects": listed})


def test_a_revision_continues_the_chat_of_the_layout():
    reply = reply_of(("an owl", [0.333, 0.05, 0.65, 0.45]), ("the sleeping fox", [0.1, 0.6, 0.8, 0.95]))
    layout, [(_, _, body)] = revised_by([reply])
    assert body["messages"][:-2] == messages(PROMPT, (768, 512))
    assert body["messages"][-2]["role"] == "assistant"
    assert json.loads(body["messages"][-2]["content"])["objects"][0] == {
        "phrase": "an owl",
        "box": [0.333, 0.05, 0.65, 0.45],
    }
    assert "move the fox down" in body["messages"][-1]["content"]
    owl, fox = layout.objects
    assert owl.box == (0.3333333, 0.05, 0.65, 0.45), "a box that was only rounded stays as it was"
    assert (fox.phrase, fox.box) == ("a sleeping fox", (0.1, 0.6, 0.8, 0.95))
    assert (layout.prompt, layout.background, layout.warnings) == (PROMPT, "a forest", ())


def test_a_revision_that_adds_and_removes_says_what_becomes_of_the_prompt():
    reply = reply_of(("an owl", [0.333, 0.05, 0.65, 0.45]), ("a red ball", [0.1, 0.6, 0.3, 0.8]), background="a beach")
    layout, _ = revised_by([reply], "a red ball in place of the fox, on a beach")
    assert layout.prompt == "an owl above a sleeping fox, a red ball" and layout.background == "a beach"
    assert any(layout.prompt in warning for warning in layout.warnings)
    assert any("removed 'a sleeping fox'" in warning for warning in layout.warnings)


def test_a_bad_revision_is_repaired_too():
    bad = reply_of(("an owl", [0.6, 0.1, 0.3, 0.4]))
    good = reply_of(("an owl", [0.3, 0.1, 0.6, 0.4]), ("a sleeping fox", [0.1, 0.5, 0.8, 0.9]))
    layout, requests = revised_by([bad, good])
    assert layout.objects[0].box == (0.3, 0.1, 0.6, 0.4) and len(requests) == 2


def test_a_prose_revision_ends_in_a_reply_error():
    with pytest.raises(ReplyError, match="I moved it"):
        revised_by(["I moved it."])


def test_prose_without_a_layout_is_quoted():
    with serving(say("An owl is a bird.")) as server, pytest.raises(ReplyError, match="An owl is a bird") as caught:
        ask(server)
    assert caught.value.reply == "An owl is a bird."


def test_swapped_corners_are_not_taken_for_widths():
    swapped = '[{"phrase": "an owl", "box": [300, 300, 200, 100]}]'
    parse_reply(swapped)
    with serving(say(swapped)) as server, pytest.raises(ReplyError, match="no area"):
        ask(server)


def test_busy_server_is_asked_again():
    busy = send('{"error": {"message": "slow down"}}', 429, retry_after_ms="10")
    with serving(busy, busy, say(ANSWER)) as server:
        assert len(ask(server, retries=2).objects) == 2
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("script", "named"),
    [
        (send("oops", 500, retry_after_ms="10"), "status 500"),
        (send("{}", 429, retry_after_ms="10"), "status 429"),
        (send('{"error": {"message": "no such model"}}', 404), "status 404.*ends in /v1.*no such model"),
        (send('{"error": {"message": "too long"}}', 400), "status 400.*too long"),
        (send("", 307, Location="http://127.0.0.1:9/v1/chat/completions"), "status 307"),
        (echo_key, "status 401.*REALCOMPO_LOCAL_KEY"),
        (send('{"choices": [{"mess'), "not answer with a chat completion.*choices"),
        (send('{"choices": []}'), "not answer with a chat completion"),
        (send('{"choices": [{"message": {"content": null}}]}'), "not answer with a chat completion"),
        (send('{"choices": [{"message": {"content": " "}}]}'), "an empty answer"),
        (send('{"choices": [{"message": "text"}]}'), "not answer with a chat completion"),
        (send('{"choices": {"0": 1}}'), "not answer with a chat completion"),
        (send("[" * 100_000), "not answer with a chat completion"),
        (send(b"\xff\xfe"), "not answer with a chat completion"),
        (send("<html>hello</html>", Content_Type="text/html"), "not answer with a chat completion.*<html>"),
        (send(b"x" * 12_000_000), "more than 4194304 bytes"),
        (hang_up, "broke off"),
    ],
)
def test_misbehaving_server_is_a_provider_error(script, named, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(script) as server, pytest.raises(ProviderError, match=named) as caught:
        ask(server, retries=1)
    message = str(caught.value)
    assert "'local'" in message
    assert server.url in message
    assert len(message) < 1000
    assert SECRET not in message + caplog.text
    assert caught.value.__cause__ is None  # a traceback would print the server's own text


def test_wrong_content_type_around_a_right_answer_does_not_matter():
    answer = json.dumps({"choices": [{"message": {"content": ANSWER}}]})
    with serving(send(answer, Content_Type="text/plain")) as server:
        assert len(ask(server).objects) == 2


def test_huge_reply_is_refused():
    with ends(), serving(say("[" * 3_000_000)) as server, pytest.raises(ReplyError, match="3000000 characters"):
        ask(server)


def test_key_echoed_in_a_reply_is_hidden():
    with serving(say(f"Your key is {SECRET}.")) as server, pytest.raises(ReplyError) as caught:
        ask(server)
    assert SECRET not in str(caught.value) + caught.value.reply


@pytest.mark.parametrize("script", [hang, drip])
def test_slow_server_runs_into_the_timeout(script):
    with ends(), serving(script) as server, pytest.raises(ProviderError, match="within 0.3 s: raise the timeout"):
        ask(server, timeout=0.3)


@pytest.mark.parametrize("script", [hang, drip])
def test_cancel_ends_the_wait(script):
    cancel = threading.Event()
    with ends(), serving(script) as server:
        threading.Timer(0.2, cancel.set).start()
        with pytest.raises(Cancelled):  # a ProviderError at the timeout, otherwise
            ask(server, timeout=60, cancelled=cancel.is_set)


def test_absent_server_is_named():
    with serving(say(ANSWER)) as server:
        pass
    with pytest.raises(ProviderError, match=f"{server.url}.*cannot be reached.*REALCOMPO_LOCAL_URL"):
        ask(server)


def test_nothing_from_openai_variables_reaches_another_address(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_ORG_ID", SECRET)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {SECRET}\nX-Other: {SECRET}")
    with serving(say(ANSWER)) as server:
        OpenAIProvider(Profile("keyless", server.url, "tiny")).propose(PROMPT, (512, 512))
    [(_, headers, _)] = server.requests
    assert SECRET not in str(headers)


def test_a_key_goes_to_the_address_it_is_stored_with(monkeypatch, profiles):
    profiles({"mine": {"url": "https://a.example/v1", "model": "m", "key": SECRET}})
    assert load_profile("mine").key == SECRET
    monkeypatch.setenv("REALCOMPO_MINE_URL", "https://a.example/v1/")
    assert load_profile("mine").key == SECRET
    monkeypatch.setenv("REALCOMPO_MINE_URL", "https://b.example/v1")
    assert load_profile("mine").key == ""
    monkeypatch.setenv("REALCOMPO_MINE_KEY", "key-of-b")
    assert load_profile("mine").key == "key-of-b"


def test_openai_api_key_serves_openai_alone(monkeypatch, profiles):
    profiles({"proxy": {"url": "https://api.openai.com.example/v1", "model": "m"}})
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert load_profile("openai").key == SECRET
    assert load_profile("proxy").key == ""
    for url in ("http://api.openai.com/v1", "https://api.openai.com:444/v1"):
        monkeypatch.setenv("REALCOMPO_OPENAI_URL", url)
        assert load_profile("openai").key == ""


def test_profile_from_the_environment_alone(monkeypatch):
    monkeypatch.setenv("REALCOMPO_LM_STUDIO_URL", "http://localhost:1234/v1")
    monkeypatch.setenv("REALCOMPO_LM_STUDIO_MODEL", "qwen")
    assert profile_names() == ["lm_studio", "openai"]
    assert load_profile("lm_studio") == Profile("lm_studio", "http://localhost:1234/v1", "qwen")


def test_usable_profiles_have_all_that_it_takes(monkeypatch, profiles):
    path = profiles(
        {
            "ollama": {"url": "http://localhost:11434/v1", "model": "m"},
            "no_model": {"url": "http://localhost:1234/v1"},
            "no_address": {"model": "m"},
        }
    )
    assert [profile.name for profile in usable_profiles()] == ["ollama"], "OpenAI's own address wants a key"
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert [profile.name for profile in usable_profiles()] == ["ollama", "openai"]
    path.write_text("{")
    assert usable_profiles() == []


def test_key_is_not_in_the_repr():
    assert SECRET not in repr(Profile("a", "http://a.example", "m", SECRET))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ('{"a": {"key": "' + SECRET + '",\n "url" "x"}}', "providers.json, line 2"),
        ([], "providers.json: expected"),
        ({"a": "http://x"}, "'a' is not an object"),
        ({"a": {"url": "http://x", "modle": "m"}}, "unknown field 'modle'"),
        ({"a": {"url": "http://x", "model": "m", "key": [SECRET]}}, "'key' of provider 'a' is not a string"),
        ({"a": {"url": "localhost:1234", "model": "m"}}, "no http address.*REALCOMPO_A_URL"),
        ({"a": {"url": "http://[", "model": "m"}}, "no http address"),
        ({"a": {"url": "http://x/v1"}}, "no model.*REALCOMPO_A_MODEL"),
        ({"a": {"url": f"http://me:{SECRET}@x/v1", "model": "m"}}, "user or a query"),
        ({"a": {"url": f"http://x/v1?key={SECRET}", "model": "m"}}, "user or a query"),
    ],
)
def test_wrong_profiles_are_named_without_their_key(profiles, data, named):
    profiles(data)
    with pytest.raises(ProviderError, match=named) as caught:
        load_profile("a")
    assert SECRET not in str(caught.value)


def test_named_file_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("REALCOMPO_PROVIDERS", str(tmp_path / "absent.json"))
    with pytest.raises(ProviderError, match="absent.json"):
        profile_names()


def test_get_provider_knows_every_name_and_lists_them_for_others(profiles):
    profiles({"ollama": {"url": "http://localhost:11434/v1", "model": "m"}})
    assert provider_names() == ["rules", "text", "ollama", "openai"]
    assert [get_provider(name, reply=ANSWER).name for name in provider_names()] == provider_names()
    with pytest.raises(ProviderError, match="'gpt'.*rules, text, ollama, openai"):
        get_provider("gpt")
    with pytest.raises(ProviderError, match="pass it as `reply`"):
        get_provider("text")


def test_single_message_holds_the_whole_chat():
    chat = messages(PROMPT, (768, 512))
    text = single_message(chat)
    assert all(message["content"] in text for message in chat)
    assert text.endswith(f"768 x 512 pixels\nSentence: {PROMPT}\nAnswer:")
    longer = repair_messages(
        revision_messages(layout_so_far(), "move the fox down", (768, 512)), "no", ReplyError("why")
    )
    text = single_message(longer)
    order = ["768 x 512", "a sleeping fox", "move the fox down", "Answer: no", "why"]
    positions = [text.rindex(piece) for piece in order]
    assert positions == sorted(positions) and text.endswith("Answer:")


def test_examples_follow_the_rules_that_they_teach():
    for prompt, answer in EXAMPLES.items():
        jsonschema.validate(answer, REPLY_SCHEMA)
        parse_reply(json.dumps(answer), prompt)
    assert len(messages(PROMPT, (512, 512))) == 2 + 2 * len(EXAMPLES)
