"""A model behind a server that speaks the OpenAI-compatible chat protocol: a writer, and a captioner by data URI.

The request is one POST, made with the standard library. The Hub's client would send the token of the Hub to whatever
server stands in the address, and refuses to speak to one on this machine where ``HF_HUB_OFFLINE`` is set.
"""

import base64
import http.client
import io
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message as Headers
from pathlib import Path
from typing import IO, Any

import PIL.Image

from data_prep.writers import Message
from data_prep.writers.prompts import QUESTION
from mmembed.errors import InputError
from mmembed.items import Image
from mmembed.media.images import open_image
from mmembed.media.settings import MediaSettings

KNOWN_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""What servers open; other pictures are sent as PNG."""
MAX_WAIT_S = 60.0
EXCERPT = 300
BUSY = 429

logger = logging.getLogger(__name__)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key goes to the server that was named, and to no other."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Headers, newurl: str
    ) -> None:
        """None: the redirect is an error like others."""


@dataclass(frozen=True)
class ChatServer:
    """A writer behind a server.

    Args:
        url: address up to the version, e.g. ``http://localhost:8000/v1``.
        model: name that the server knows the model by.
        key: sent as bearer token; None sends none. Never shown.
        max_tokens: of an answer.
        timeout_s: seconds until an answer is given up.
        retries: how often a request is sent again where the server is busy, fails or does not answer.
        wait_s: seconds before the first retry; each further one waits twice as long, or as the server says.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    max_tokens: int = 700
    timeout_s: float = 120.0
    retries: int = 5
    wait_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(
                "--url", expected="an address with http:// or https://", got=f"'{self.url}'",
                remedy="write e.g. http://localhost:8000/v1",
            )  # fmt: skip
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            # the client would show the key in its own complaint
            raise InputError(
                "the server's key", expected="printable ASCII letters", got="a line break or another character",
                remedy="set the environment variable that --key-variable names anew",
            )  # fmt: skip

    @property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`data_prep.writers.Writer`; where the server stands changes no answer."""
        return {"writer": "openai", "model": self.model, "temperature": 0, "max_tokens": self.max_tokens}

    def write(self, messages: Sequence[Message]) -> str:
        """See :meth:`data_prep.writers.Writer.write`. An answer of no text is empty."""
        body = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": self.max_tokens}
        answer = self._posted(json.dumps(body).encode())
        try:
            return json.loads(answer)["choices"][0]["message"]["content"] or ""
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(
                self.url, expected="an answer of the chat protocol with choices[0].message.content",
                got=self._excerpt(answer),
                remedy="check that the address is that of the chat protocol, e.g. ends in /v1",
            ) from error  # fmt: skip

    def _posted(self, body: bytes) -> bytes:
        for attempt in range(self.retries + 1):
            try:
                return self._post(body)
            except urllib.error.HTTPError as error:
                said = self._excerpt(error.read())
                if (error.code != BUSY and error.code < 500) or attempt == self.retries:
                    raise self._refused(error.code, said) from None
                why, wait = f"{error.code} {said}", _asked_wait(error.headers) or self.wait_s * 2**attempt
            except (OSError, http.client.HTTPException) as error:
                why, wait = _reason(error), self.wait_s * 2**attempt
                if attempt == self.retries:
                    raise InputError(
                        self.url, expected=f"an answer within {self.timeout_s:g} s", got=f"{why}, {attempt + 1} times",
                        remedy="start the server, check --url, or raise --timeout",
                    ) from error  # fmt: skip
            wait = min(wait, MAX_WAIT_S)
            logger.warning("%s: %s; again in %g s", self.url, why, wait)
            time.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "mmembed"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
        with urllib.request.build_opener(_NoRedirects()).open(request, timeout=self.timeout_s) as answer:
            data: bytes = answer.read()
            return data

    def _excerpt(self, answer: bytes) -> str:
        """What a server says, on one line, cut, and without the key, which some say; nothing in words."""
        said = answer.decode(errors="replace")
        said = " ".join((said.replace(self.key, "***") if self.key else said).split())
        return f"'{said[:EXCERPT]}...'" if len(said) > EXCERPT else f"'{said}'" if said else "nothing"

    def _refused(self, code: int, said: str) -> InputError:
        remedies = {
            401: "put a valid key into the environment variable that --key-variable names",
            403: "put a valid key into the environment variable that --key-variable names",
            404: "check --url, which most often ends in /v1, and --model",
            429: "wait, ask for less at a time (--parallel), or raise the limit of the account",
        }
        remedy = remedies.get(code, "see the server's log" if code >= 500 else "check --url and --model")
        return InputError(self.url, expected="an answer", got=f"{code} {said}", remedy=remedy)


@dataclass(frozen=True)
class ServerCaptioner:
    """A captioner behind a server whose model reads pictures.

    Args:
        server: where it is.
        question: asked of every picture.
    """

    server: ChatServer
    question: str = QUESTION

    @property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`data_prep.writers.Captioner`."""
        return {**self.server.facts, "question": self.question}

    def caption(self, image: Image) -> str:
        """See :meth:`data_prep.writers.Captioner.caption`."""
        content = [
            {"type": "image_url", "image_url": {"url": data_uri(image)}},
            {"type": "text", "text": self.question},
        ]
        return self.server.write([{"role": "user", "content": content}])


def data_uri(image: Image) -> str:
    """The bytes of a picture's file as a data URI, or its pixels as PNG where servers may not know the format.

    Raises:
        InputError: the picture is not there or does not decode.
    """
    picture = open_image(image, MediaSettings())
    if isinstance(image.source, str | Path):
        data = Path(image.source).read_bytes()
        with PIL.Image.open(io.BytesIO(data)) as opened:
            kind = KNOWN_FORMATS.get(opened.format or "")
        if kind is not None:
            return f"data:{kind};base64,{base64.b64encode(data).decode()}"
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _asked_wait(headers: Mapping[str, str] | Headers) -> float | None:
    """Seconds that a server asks to wait; a date counts as none."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"{reason}" or type(error).__name__
