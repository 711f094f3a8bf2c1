"""Who writes and who describes pictures, as options of a command."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from data_prep.writers import Captioner, Writer
from data_prep.writers.prompts import QUESTION
from data_prep.writers.rules import RuleWriter
from data_prep.writers.server import ChatServer, ServerCaptioner
from mmembed.errors import InputError

WRITERS = ("rules", "openai", "transformers")
NEEDS = {
    "rules": (), "openai": ("url", "model"), "transformers": ("model",), "file": ("captions",),
    "nearest": ("captions", "model"),
}  # fmt: skip
"""What each needs to be told."""


def add_writer_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose a writer."""
    who = parser.add_argument_group("who writes")
    who.add_argument(
        "--writer", choices=WRITERS, required=True,
        help="rules: by a lexicon, offline, for trying; openai: a server of the OpenAI-compatible chat protocol (vLLM, "
        "SGLang, llama.cpp, hosted ones); transformers: a model on this machine, one request at a time",
    )  # fmt: skip
    who.add_argument("--model", metavar="NAME", help="as the server calls it; of transformers a directory or Hub id")
    who.add_argument("--url", metavar="URL", help="of the server, e.g. http://localhost:8000/v1")
    add_server_options(who)
    who.add_argument("--parallel", type=int, default=1, metavar="N", help="requests under way together (1); openai")


def add_server_options(group: "argparse._ArgumentGroup") -> None:
    """How a server is asked, whoever answers."""
    group.add_argument(
        "--key-variable", default="OPENAI_API_KEY", metavar="NAME",
        help="environment variable with the server's key (OPENAI_API_KEY); none is sent where it is not set",
    )  # fmt: skip
    group.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds for an answer (120)")
    group.add_argument("--retries", type=int, default=5, metavar="N", help="where the server is busy or fails (5)")
    group.add_argument("--max-tokens", type=int, default=700, metavar="N", help="most tokens of an answer (700)")


def writer_of(options: argparse.Namespace) -> Writer:
    """The writer that the options choose.

    Raises:
        InputError: an option that is missing, or that this writer has no use for; or a model that does not open.
    """
    if options.parallel < 1 or (options.parallel > 1 and options.writer != "openai"):
        raise InputError(
            "--parallel", expected="1, or more with --writer openai", got=options.parallel, remedy="leave it out"
        )
    check_given(f"--writer {options.writer}", options.writer, {"--model": options.model, "--url": options.url})
    if options.writer == "rules":
        return RuleWriter()
    if options.writer == "openai":
        return server_of(options, options.url, options.model)
    from data_prep.writers.local import LocalWriter

    return LocalWriter(options.model, options.max_tokens)


def server_of(options: argparse.Namespace, url: str, model: str) -> ChatServer:
    """A server with the key of the environment."""
    for name, least in (("timeout", 0.001), ("retries", 0), ("max_tokens", 1)):
        if (value := getattr(options, name)) < least:
            option = f"--{name.replace('_', '-')}"
            raise InputError(option, expected=f"{least} or more", got=value, remedy="leave it out for the default")
    key = os.environ.get(options.key_variable) or None
    return ChatServer(
        url, model, key, max_tokens=options.max_tokens, timeout_s=options.timeout, retries=options.retries
    )


def add_captioner_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose a captioner; how a server is asked is said with the writer's."""
    who = parser.add_argument_group("who describes the pictures")
    who.add_argument(
        "--captioner", choices=("openai", "transformers", "file", "nearest"), required=True,
        help="openai: a server whose model reads pictures; transformers: a model on this machine, e.g. BLIP-2; file: "
        "captions that are there; nearest: the caption of a file that an embedder finds nearest, offline",
    )  # fmt: skip
    who.add_argument("--captioner-model", metavar="NAME", help="as the server calls it, or a directory or Hub id")
    who.add_argument("--captioner-url", metavar="URL", help="of the server")
    who.add_argument(
        "--captions", type=Path, metavar="FILE",
        help='of file and nearest: .jsonl of {"id", "image", "caption"}, or a table of pictures and captions',
    )  # fmt: skip
    who.add_argument("--question", default=QUESTION, metavar="TEXT", help="asked of each picture (the paper's)")
    who.add_argument("--captioner-profile", metavar="NAME", help="of nearest: how a released checkpoint embeds")
    who.add_argument("--captioner-instruction", metavar="TEXT", help="of nearest: given with each picture")


def captioner_of(options: argparse.Namespace) -> Captioner:
    """The captioner that the options choose.

    Raises:
        InputError: an option that is missing, or that this captioner has no use for; or a model that does not open.
    """
    given = {"--captioner-model": options.captioner_model, "--captioner-url": options.captioner_url,
             "--captions": options.captions}  # fmt: skip
    check_given(f"--captioner {options.captioner}", options.captioner, given)
    if options.captioner != "nearest":
        of_nearest = {"profile": options.captioner_profile, "instruction": options.captioner_instruction}
        for name in (name for name, value in of_nearest.items() if value):
            expected = "--captioner nearest beside it"
            raise InputError(f"--captioner-{name}", expected=expected, got=options.captioner, remedy="leave it out")
    if options.captioner == "openai":
        server = server_of(options, options.captioner_url, options.captioner_model)
        return ServerCaptioner(server, options.question)
    if options.captioner == "transformers":
        from data_prep.writers.local import LocalCaptioner

        return LocalCaptioner(options.captioner_model, options.question)
    from data_prep.writers.captioners import FileCaptioner, NearestCaptioner

    if options.captioner == "file":
        return FileCaptioner(options.captions)
    return NearestCaptioner(
        options.captions, options.captioner_model, options.captioner_profile, options.captioner_instruction
    )


def check_given(choice: str, chosen: str, given: Mapping[str, object]) -> None:
    """Refuse options that a choice needs and has not, or has and does not read.

    Raises:
        InputError: names both.
    """
    for option, value in given.items():
        needs = option.rpartition("-")[2] in NEEDS[chosen]
        if needs and not value:
            raise InputError(option, expected=f"a value with {choice}", got="none", remedy="name it")
        if not needs and value:
            raise InputError(option, expected=f"none with {choice}", got=f"'{value}'", remedy="leave it out")
