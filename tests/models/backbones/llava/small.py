"""Small random LLaVA models, one for each choice, in evaluation mode; never train them."""

from functools import cache

from mmembed import Embedder
from mmembed.media.settings import AllFrames, MediaSettings
from mmembed.models.settings import ChatPrompt, EmbedderSettings, Llava, Scratch
from tests.cases import LOUD, WORDS


def make_llava(architecture, text="", prompt=None, vision=(), **backbone):
    """A new small random embedder; ``text`` names a language model other than the usual one."""
    model = {"model_type": text} if text else {}
    scratch = Scratch(architecture, text=LOUD | model, vision=LOUD | dict(vision))
    given = {"scratch": scratch, "media": MediaSettings(alpha="white", sampling=AllFrames())} | backbone
    return Embedder(EmbedderSettings(Llava(**given), prompt or ChatPrompt()), texts=WORDS)


@cache
def small_llava(architecture, text="", **choices):
    """The same, made once."""
    return make_llava(architecture, text, **choices).eval()
