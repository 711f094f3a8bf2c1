"""Language models that write for the commands: who is asked, what, and where the answers are kept.

A writer takes the messages of a chat and gives the text of the answer; a captioner takes a picture. What they are
asked stands in ``prompts.yaml``, with versions; every answer is kept on disk and never asked for twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from mmembed.items import Image

Message: TypeAlias = Mapping[str, Any]
"""One turn of a chat: ``{"role": "user", "content": "..."}``."""


class Writer(Protocol):
    """Who answers."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What an answer depends on besides the messages; ``model`` is the name that records give."""
        ...

    def write(self, messages: Sequence[Message]) -> str:
        """The text of the answer.

        Raises:
            InputError: there is no answer; says why and what to do.
        """
        ...


class Captioner(Protocol):
    """Who describes pictures."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a caption depends on besides the picture; ``model`` is the name that records give."""
        ...

    def caption(self, image: Image) -> str:
        """The picture in words.

        Raises:
            InputError: there is no caption; says why and what to do.
        """
        ...
