"""Layouts from any OpenAI-compatible server: OpenAI, Ollama, LM Studio, vLLM, llama.cpp.

The one module that uses a network.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread

from ..errors import Cancelled, ProviderError
from ..layout import Layout
from .profiles import Profile, profiles_file, variable
from .prompting import REPLY_SCHEMA, TEMPLATE_VERSION, messages
from .text import parse_reply

MAX_BODY = 4 * 2**20  # bytes; a layout takes a few kilobytes, a long chain of thought some hundred
POLL = 0.05  # seconds between two looks at `cancelled`
SENT_HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}


class OpenAIProvider:
    """Asks the model of `profile` for a layout.

    `timeout` is in seconds, for the whole proposal with all retries. `retries` is the number of further attempts, with
    growing pauses, after status 408, 409, 429 or 5xx and after connection errors. `cancelled` is polled; once it is
    true, `propose` raises `Cancelled`. `on_reply` is called with the model's reply before it is parsed. `format` is
    the order of a box's numbers in it, see `text.parse_reply`; "auto" is xyxy, which the model is asked for.
    """

    def __init__(
        self,
        profile: Profile,
        seed: int = 0,
        timeout: float = 120.0,
        retries: int = 2,
        cancelled: Callable[[], bool] = lambda: False,
        on_reply: Callable[[str], None] = lambda reply: None,
        format: str = "auto",
    ):
        self.profile = profile
        self.name = profile.name
        self.seed = seed
        self.timeout = timeout
        self.retries = retries
        self.cancelled = cancelled
        self.on_reply = on_reply
        self.format = "xyxy" if format == "auto" else format  # what is asked for

    def request_key(self, prompt: str, size: tuple[int, int]) -> dict:
        """Everything that the reply depends on, as JSON data."""
        return {
            "provider": self.name,
            "url": self.profile.url,
            "model": self.profile.model,
            "seed": self.seed,
            "template": TEMPLATE_VERSION,
            "prompt": prompt,
            "size": list(size),
            **({} if self.format == "xyxy" else {"format": self.format}),
        }

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        """The model's layout of `prompt` for a picture of `size` = (width, height) pixels.

        Raises `ProviderError`, which says why the server did not answer, or `ReplyError`, which quotes an answer that
        holds no usable layout.
        """
        reply = self.reply(prompt, size)
        self.on_reply(reply)
        return parse_reply(reply, prompt=prompt, size=size, format=self.format)

    def reply(self, prompt: str, size: tuple[int, int]) -> str:
        """The model's reply, unparsed."""
        client = self._client()
        answer: Future[str] = Future()

        def ask():
            try:
                answer.set_result(self._ask(client, messages(prompt, size)))
            except BaseException as error:
                answer.set_exception(error)

        # A thread, as a read from a hanging server cannot be interrupted; a daemon, so that it never delays the exit.
        Thread(target=ask, daemon=True).start()
        deadline = time.monotonic() + self.timeout
        try:
            while not wait([answer], timeout=POLL).done:
                if self.cancelled():
                    raise Cancelled(f"{self._who} was asked for a layout, the caller cancelled")
                if time.monotonic() > deadline:
                    raise self._timeout_error()
        finally:
            client.close()  # fails what the thread still does
        return answer.result()

    def _client(self):
        try:
            import openai
        except ModuleNotFoundError:
            raise ProviderError(
                f"provider {self.name!r} needs the openai client: pip install openai, or use the provider 'rules'"
            ) from None

        def send_nothing_else(request):
            """Drops what the client adds from OPENAI_* variables: meant for another address than this profile's."""
            for header in list(request.headers):
                if header not in SENT_HEADERS and not header.startswith("x-stainless-"):  # the client's own state
                    del request.headers[header]
            if self.profile.key:
                request.headers["Authorization"] = f"Bearer {self.profile.key}"

        return openai.OpenAI(
            base_url=self.profile.url,
            api_key=self.profile.key or "none",  # the client wants one
            max_retries=self.retries,
            timeout=self.timeout,
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False,  # prompt and key go to the profile's address only
                event_hooks={"request": [send_nothing_else]},
            ),
        )

    def _ask(self, client, chat: list[dict[str, str]]) -> str:
        import openai

        structured = {"type": "json_schema", "json_schema": {"name": "layout", "strict": True, "schema": REPLY_SCHEMA}}
        try:
            try:
                body = self._body(client, chat, response_format=structured)
            except (openai.BadRequestError, openai.UnprocessableEntityError):  # a server without structured output
                body = self._body(client, chat)
        except openai.APITimeoutError:
            raise self._timeout_error() from None
        except openai.APIStatusError as error:
            raise self._status_error(error.status_code, error.message) from None  # the cause may quote the key
        except openai.APIConnectionError as error:
            raise ProviderError(
                f"{self._who} cannot be reached ({self._shown(str(error.__cause__ or error))}): start the server or "
                f"correct {variable(self.name, 'url')} or {profiles_file()}"
            ) from None
        return self._content(body)

    def _body(self, client, chat: list[dict[str, str]], **options) -> bytes:
        """The body of the answer, read in pieces so that an endless one does not fill the memory."""
        request = client.chat.completions.with_streaming_response.create(
            model=self.profile.model, messages=chat, seed=self.seed, **options
        )
        body = bytearray()
        with request as response:
            try:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > MAX_BODY:
                        break
            except Exception as error:  # of httpx or httpx2, whichever this client is built on
                raise ProviderError(
                    f"{self._who} broke off its answer ({self._shown(str(error))}): try again"
                ) from None
        if len(body) > MAX_BODY:
            raise ProviderError(f"{self._who} sent more than {MAX_BODY} bytes: is it a chat model's address?")
        return bytes(body)

    def _content(self, body: bytes) -> str:
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            content = None
        if not isinstance(content, str):
            raise ProviderError(
                f"{self._who} did not answer with a chat completion but with "
                f"{self._shown(body.decode(errors='replace'))!r}: the address usually ends in /v1"
            )
        return self.profile.hide_key(content)

    @property
    def _who(self) -> str:
        return f"provider {self.name!r} (model {self.profile.model!r} at {self.profile.url})"

    def _shown(self, text: str) -> str:
        return self.profile.hide_key(text)[:300]

    def _timeout_error(self) -> ProviderError:
        return ProviderError(
            f"{self._who} gave no whole answer within {self.timeout:g} s: raise the timeout or choose a faster model"
        )

    def _status_error(self, status: int, message: str) -> ProviderError:
        if status in (401, 403):
            advice = f"check the key in {variable(self.name, 'key')} or {profiles_file()}"
        elif status == 404:
            advice = "check the model's name, and that the address ends in /v1"
        elif status == 429:
            advice = "wait, or raise the account's limit"
        elif status >= 500:
            advice = "look into the server's log, or try again later"
        else:
            advice = "check address and model"
        return ProviderError(f"{self._who} answered with status {status}, {advice}. It said: {self._shown(message)!r}")
