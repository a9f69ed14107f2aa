"""The openai provider against a local server that misbehaves, and where keys come from and go."""

import json
import logging
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import pytest

from realcompo_core.errors import Cancelled, ProviderError, ReplyError
from realcompo_core.providers import OpenAIProvider, get_provider, provider_names
from realcompo_core.providers.profiles import Profile, load_profile, profile_names
from realcompo_core.providers.prompting import EXAMPLES, REPLY_SCHEMA, messages, single_message
from realcompo_core.providers.text import parse_reply

SECRET = "sk-very-secret-0123456789"
ANSWER = json.dumps(EXAMPLES["an oil painting of an owl above a sleeping fox"])
PROMPT = "an owl above a sleeping fox"


class Server(ThreadingHTTPServer):
    """Plays one script entry per request, the last one for ever. An entry is a function of the request handler."""

    daemon_threads = True

    def __init__(self, *script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.released = threading.Event()  # ends hanging answers

    def handle_error(self, *_):
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def log_message(self, *_):
        pass


def send(body, status=200, **headers):
    def respond(handler):
        data = body if isinstance(body, bytes) else body.encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return respond


def say(text):
    return send(json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}))


def hang(handler):
    handler.server.released.wait(10)


def drip(handler):
    """Never silent for long and never done: a timeout between two reads does not end it."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b" ")


def hang_up(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices":')


@contextmanager
def serving(*script):
    server = Server(*script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.socket.close()


def ask(server, timeout=5.0, retries=0, **options):
    profile = Profile("local", server.url, "tiny", SECRET)
    return OpenAIProvider(profile, timeout=timeout, retries=retries, **options).propose(PROMPT, (768, 512))


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


@pytest.mark.parametrize("status", [400, 422])
def test_server_without_structured_output_is_asked_for_text(status):
    refusal = send('{"error": {"message": "response_format is not supported"}}', status)
    with serving(refusal, say(ANSWER)) as server:
        assert len(ask(server).objects) == 2
    assert ["response_format" in body for _, _, body in server.requests] == [True, False]


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


def echo_key(handler):
    send(json.dumps({"error": {"message": f"bad {handler.headers['Authorization']}"}}), 401)(handler)


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


def test_huge_reply_is_refused_quickly():
    start = time.monotonic()
    with serving(say("[" * 3_000_000)) as server, pytest.raises(ReplyError, match="3000000 characters"):
        ask(server)
    assert time.monotonic() - start < 3


def test_key_echoed_in_a_reply_is_hidden():
    with serving(say(f"Your key is {SECRET}.")) as server, pytest.raises(ReplyError) as caught:
        ask(server)
    assert SECRET not in str(caught.value) + caught.value.reply


@pytest.mark.parametrize("script", [hang, drip])
def test_slow_server_runs_into_the_timeout(script):
    start = time.monotonic()
    with serving(script) as server, pytest.raises(ProviderError, match="within 0.3 s: raise the timeout"):
        ask(server, timeout=0.3)
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("script", [hang, drip])
def test_cancel_ends_the_wait(script):
    cancel = threading.Event()
    with serving(script) as server:
        threading.Timer(0.2, cancel.set).start()
        start = time.monotonic()
        with pytest.raises(Cancelled):
            ask(server, timeout=10, cancelled=cancel.is_set)
        assert time.monotonic() - start < 0.5


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
    text = single_message(PROMPT, (768, 512))
    assert all(message["content"] in text for message in messages(PROMPT, (768, 512)))
    assert text.endswith(f"768 x 512 pixels\nSentence: {PROMPT}\nAnswer:")


def test_examples_follow_the_rules_that_they_teach():
    for prompt, answer in EXAMPLES.items():
        jsonschema.validate(answer, REPLY_SCHEMA)
        parse_reply(json.dumps(answer), prompt)
    assert len(messages(PROMPT, (512, 512))) == 2 + 2 * len(EXAMPLES)
