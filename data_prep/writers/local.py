"""Models of transformers on this machine: a language model that writes, and a model that describes pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.writers import Message
from data_prep.writers.prompts import QUESTION
from mmembed.errors import InputError
from mmembed.items import Image
from mmembed.media.images import open_image
from mmembed.media.settings import MediaSettings
from mmembed.models.hub import in_words

WHERE = "a model of transformers with config, safetensors weights and tokenizer"


class LocalWriter:
    """A causal language model, asked through its chat template, without chance.

    Args:
        model: directory or Hub id.
        max_tokens: of an answer.

    Raises:
        InputError: no such model, or one whose tokenizer has no chat template.
    """

    def __init__(self, model: str, max_tokens: int = 700) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name, self.max_tokens = model, max_tokens
        with in_words(model, WHERE):
            self._tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            self._model = _opened(AutoModelForCausalLM, model)
        if not self._tokenizer.chat_template:
            raise InputError(
                model, expected="a tokenizer with a chat template", got="none",
                remedy="take a model that was tuned to instructions",
            )  # fmt: skip

    @property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`data_prep.writers.Writer`."""
        return {"writer": "transformers", "model": self.name, "max_tokens": self.max_tokens}

    def write(self, messages: Sequence[Message]) -> str:
        """See :meth:`data_prep.writers.Writer.write`."""
        words = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        # the template writes the special tokens itself
        inputs = self._tokenizer(words, return_tensors="pt", add_special_tokens=False)
        return _generated(self._model, inputs, self._tokenizer, self.max_tokens)


class LocalCaptioner:
    """A model of pictures and text that describes pictures, without chance.

    Args:
        model: directory or Hub id.
        question: asked of every picture; empty asks nothing, as captioners without questions want it.
        max_tokens: of a caption.

    Raises:
        InputError: no such model.
    """

    def __init__(self, model: str, question: str = QUESTION, max_tokens: int = 200) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.name, self.question, self.max_tokens = model, question, max_tokens
        with in_words(model, WHERE):
            self._processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
            self._model = _opened(AutoModelForImageTextToText, model)

    @property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`data_prep.writers.Captioner`."""
        return {
            "captioner": "transformers", "model": self.name, "question": self.question, "max_tokens": self.max_tokens,
        }  # fmt: skip

    def caption(self, image: Image) -> str:
        """See :meth:`data_prep.writers.Captioner.caption`."""
        picture = open_image(image, MediaSettings())
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": self.question}]
            words = self._processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            inputs = self._processor(images=picture, text=words, return_tensors="pt", add_special_tokens=False)
        else:
            asked = {"text": self.question} if self.question else {}
            inputs = self._processor(images=picture, return_tensors="pt", **asked)
        caption = _generated(self._model, inputs, self._processor.tokenizer, self.max_tokens)
        # BLIP continues the question, which it reads in lower case
        repeats = bool(self.question) and caption.lower().startswith(self.question.lower())
        return caption[len(self.question) :].strip() if repeats else caption


def _opened(kind: Any, model: str) -> Any:
    """A model for inference, on the GPU where there is one, its weights in the type they were saved in."""
    import torch

    found = kind.from_pretrained(model, trust_remote_code=False, use_safetensors=True, dtype="auto")
    return found.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _generated(model: Any, inputs: Any, tokenizer: Any, max_tokens: int) -> str:
    """The likeliest words behind the inputs."""
    import torch

    inputs = inputs.to(model.device)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.eos_token_id
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0].tolist()
    given = inputs["input_ids"][0].tolist() if "input_ids" in inputs else []
    # decoders give the question back before the answer, encoder-decoders do not
    answer = ids[len(given) :] if ids[: len(given)] == given else ids
    text: str = tokenizer.decode(answer, skip_special_tokens=True)
    return text.strip()
