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
from .conversation import Ask, proposed, revised
from .profiles import Profile, profiles_file, variable
from .prompting import REPLY_SCHEMA, TEMPLATE_VERSION, Chat

MAX_BODY = 4 * 2**20  # bytes; a layout takes a few kilobytes, a long chain of thought some hundred
POLL = 0.05  # seconds between two looks at `cancelled`
# How an answer of the schema is asked for. A server that refuses one way (status 400 or 422) is asked in the next:
# OpenAI, Ollama, LM Studio, vLLM and llama.cpp take the first; llama-cpp-python takes the second.
RESPONSE_FORMATS = (
    {"type": "json_schema", "json_schema": {"name": "layout", "strict": True, "schema": REPLY_SCHEMA}},
    {"type": "json_object", "schema": REPLY_SCHEMA},
    None,
)
REASONING_FIELDS = ("reasoning_content", "reasoning")  # where servers put what a model thinks
SENT_HEADERS = {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent"}


class OpenAIProvider:
    """Asks the model of `profile` for a layout.

    The model is asked to correct an unusable reply, once. `timeout` is in seconds, for both questions and all retries.
    `retries` is the number of further attempts, with growing pauses, after status 408, 409, 429 or 5xx and after
    connection errors. `cancelled` is polled; once it is true, `Cancelled` is raised. `on_reply` is called with each
    reply before it is parsed. `format` is the order of a box's numbers in it, see `text.parse_reply`; "auto" is xyxy,
    which the model is asked for.
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
        self.response_formats = RESPONSE_FORMATS  # from the one on that the server took last
        self.format = "xyxy" if format == "auto" else format  # what is asked for

    def request_key(self, size: tuple[int, int], **request) -> dict:
        """Everything that the reply depends on, as JSON data; `request` is what was asked."""
        return {
            "provider": self.name,
            "url": self.profile.url,
            "model": self.profile.model,
            "seed": self.seed,
            "template": TEMPLATE_VERSION,
            "size": list(size),
            **({} if self.format == "xyxy" else {"format": self.format}),
            **request,
        }

    def propose(self, prompt: str, size: tuple[int, int]) -> Layout:
        """The model's layout of `prompt` for a picture of `size` = (width, height) pixels.

        Raises `ProviderError`, which says why the server did not answer, or `ReplyError`, which quotes an answer that
        holds no usable layout.
        """
        return proposed(self._asking(), prompt, size, format=self.format)

    def revise(self, layout: Layout, instruction: str, size: tuple[int, int]) -> Layout:
        """`layout` changed by the model as `instruction` says; raises as `propose`. See `continued`."""
        return revised(self._asking(), layout, instruction, size, format=self.format)

    def _asking(self) -> Ask:
        """Asks for a reply, and for another one in what is left of the time."""
        deadline = time.monotonic() + self.timeout

        def ask(chat: Chat) -> str:
            reply = self.reply(chat, deadline - time.monotonic())
            self.on_reply(reply)
            return reply

        return ask

    def reply(self, chat: Chat, timeout: float) -> str:
        """The model's reply to `chat`, unparsed, within `timeout` seconds."""
        client = self._client()
        answer: Future[str] = Future()

        def ask():
            try:
                answer.set_result(self._ask(client, chat))
            except BaseException as error:
                answer.set_exception(error)

        # A thread, as a read from a hanging server cannot be interrupted; a daemon, so that it never delays the exit.
        Thread(target=ask, daemon=True).start()
        deadline = time.monotonic() + timeout
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

    def _ask(self, client, chat: Chat) -> str:
        import openai

        try:
            body = self._formatted(client, chat)
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

    def _formatted(self, client, chat: Chat) -> bytes:
        """The body of the answer, in the first of the response formats that the server takes."""
        import openai

        for i, form in enumerate(self.response_formats):
            try:
                body = self._body(client, chat, **({"response_format": form} if form else {}))
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                if form is None:
                    raise
            else:
                self.response_formats = self.response_formats[i:]
                return body

    def _body(self, client, chat: Chat, **options) -> bytes:
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
            message = json.loads(body)["choices"][0]["message"]
            content = message.get("content")
            reasoning = next((message[field] for field in REASONING_FIELDS if message.get(field)), None)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            content = reasoning = None
        if isinstance(reasoning, str) and not content:
            # Servers that hold the reasoning to the schema too put the whole answer there.
            if not _is_json_object(reasoning):
                raise ProviderError(
                    f"{self._who} sent {len(reasoning)} characters of reasoning and no answer, ending in "
                    f"{self._shown(reasoning[-100:])!r}: switch the model's thinking off, allow it more tokens (a "
                    "larger context), or choose a model that does not think"
                )
            content = reasoning
        if not isinstance(content, str):
            raise ProviderError(
                f"{self._who} did not answer with a chat completion but with "
                f"{self._shown(body.decode(errors='replace'))!r}: the address usually ends in /v1"
            )
        if not content.strip():
            raise ProviderError(f"{self._who} sent an empty answer: try another seed or another model")
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


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
