"""Answers on disk: each is written when it comes, whole, and the same request is never sent again."""

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.writers import Captioner, Message, Writer
from mmembed.data.stores import JsonLines
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Image
from mmembed.media.sources import source_name

logger = logging.getLogger(__name__)


class Answers:
    """A JSONL file of answers by the fingerprint of all that they depend on.

    What a kill left half written at the end of the file is cut off when it is opened, for it was never read.

    Args:
        path: the file; made where it is not there.

    Raises:
        InputError: a line that is no answer: file, line and field.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._asking = dict[str, threading.Lock]()
        _cut_half_line(path)
        self._known = dict(_read(path))
        self.asked = 0
        """Requests that were sent since the file was opened."""

    def of_writer(self, writer: Writer, messages: Sequence[Message]) -> str:
        """The answer to messages, asked for where it is not known."""
        request = fingerprint(json.dumps([dict(writer.facts), list(messages)], sort_keys=True))
        return self._answer(request, {"model": writer.facts["model"]}, lambda: writer.write(messages))

    def of_captioner(self, captioner: Captioner, image: Image) -> str:
        """The caption of a picture, asked for where it is not known.

        Raises:
            InputError: there is none, or one without words.
        """
        picture = image.fingerprint()
        request = fingerprint(json.dumps(dict(captioner.facts), sort_keys=True), picture)
        about = {"picture": picture, "model": captioner.facts["model"]}
        return self._answer(request, about, lambda: _some_words(captioner.caption(image), image))

    def _answer(self, request: str, about: Mapping[str, Any], ask: Callable[[], str]) -> str:
        # one lock for each request, so that two threads do not ask the same
        with self._lock:
            own = self._asking.setdefault(request, threading.Lock())
        with own:
            if (known := self._known.get(request)) is not None:
                return known
            answer = ask()
            line = json.dumps({"request": request, **about, "answer": answer}, ensure_ascii=False) + "\n"
            with self._lock, self.path.open("ab") as file:
                file.write(line.encode())
                self._known[request] = answer
                self.asked += 1
            return answer


def in_order(calls: Iterable[Callable[[], str]], parallel: int = 1) -> Iterator[str]:
    """What calls return, in their order; up to ``parallel`` of them are under way together.

    Raises:
        InputError: what a call raised; those under way are waited for, and their answers are kept.
    """
    waiting = deque[Future[str]]()
    with ThreadPoolExecutor(parallel) as pool:
        try:
            for call in calls:
                waiting.append(pool.submit(call))
                if len(waiting) >= parallel:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _some_words(caption: str, image: Image) -> str:
    if not caption.strip():
        remedy = "take another captioner, or another --question"
        raise InputError(source_name(image.source), expected="a caption", got="an empty one", remedy=remedy)
    return caption


def _cut_half_line(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        logger.warning("%s: a half written answer at its end is cut off, and asked for again", path)
        os.truncate(path, whole)


def _read(path: Path) -> Iterator[tuple[str, str]]:
    if path.stat().st_size == 0:
        return
    store = JsonLines(path)
    for row in range(len(store)):
        record = store.record(row)
        for name in ("request", "answer"):
            if not isinstance(record.get(name), str):
                raise InputError(
                    f"{store.where(row)}: {name}", expected="a string", got=repr(record.get(name)),
                    remedy="mend the line, or take it away to ask again",
                )  # fmt: skip
        yield record["request"], record["answer"]
