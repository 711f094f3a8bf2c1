"""Released checkpoints that transformers does not open by itself, translated to what it knows.

For those of the LLaVA-NeXT code see :mod:`mmembed.models.backbones.llava.llava_qwen`.
InstructCIR (arXiv:2412.05756) is a LLaVA of CLIP and Phi-3.5: the language model is written as a Llama, its projections
split, with Phi-3.5's two lists of rotary frequencies (LongRoPE, arXiv:2402.13753).
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlavaConfig

from mmembed.models.backbones.llava import llava_qwen
from mmembed.models.backbones.llava.llava_qwen import LLAVA_QWEN, MEDIA_WORDS
from mmembed.models.families import Family
from mmembed.models.hub import Where, read_json

INSTRUCTCIR = "instructcir_llava_phi35"
# of its text config: what the translation says otherwise
_TEXT_OTHERWISE = ("model_type", "architectures", "rope_scaling", "rope_theta", "original_max_position_embeddings")
_KEPT = ("image_token_index", "projector_hidden_act", "vision_config", "vision_feature_layer",
         "vision_feature_select_strategy", "tie_word_embeddings")  # fmt: skip


class LlavaFamily(Family):
    """See :class:`mmembed.models.families.Family`."""

    def read_config(self, path: str, where: Where) -> Any:
        """See :meth:`Family.read_config`; released model types become transformers' own."""
        values = read_json(path, "config.json", where)
        if values.get("model_type") == INSTRUCTCIR:
            return translate_instructcir(values)
        if values.get("model_type") == LLAVA_QWEN:
            image, video = self.read_tokenizer(path, where).convert_tokens_to_ids(list(MEDIA_WORDS))
            return llava_qwen.translate(path, values, where, (image, video))
        return super().read_config(path, where)

    def read_tokenizer(self, path: str, where: Where) -> Any:
        """See :meth:`Family.read_tokenizer`; one without words for media gets them."""
        tokenizer = super().read_tokenizer(path, where)
        if read_json(path, "config.json", where).get("model_type") == LLAVA_QWEN:
            tokenizer.add_tokens(list(MEDIA_WORDS), special_tokens=True)
        return tokenizer

    def read_preprocessing(self, path: str, where: Where) -> dict[str, Any]:
        """See :meth:`Family.read_preprocessing`; the LLaVA-NeXT code has it in itself."""
        if read_json(path, "config.json", where).get("model_type") == LLAVA_QWEN:
            return llava_qwen.preprocessing(self.read_config(path, where))
        return super().read_preprocessing(path, where)

    def weight_names(self, architecture: str) -> Mapping[str, str]:
        """See :meth:`Family.weight_names`."""
        return llava_qwen.WEIGHT_NAMES if architecture == LLAVA_QWEN else {}

    def trim(self, model: Any) -> None:
        """See :meth:`Family.trim`; a table without rows for the words that stand for media gets them, zeros."""
        table, last = model.get_input_embeddings(), max(_media_ids(model.config))
        rows = table.num_embeddings
        if rows <= last:
            model.resize_token_embeddings(last + 1, mean_resizing=False)
            with torch.no_grad():
                model.get_input_embeddings().weight[rows:] = 0


def _media_ids(config: Any) -> list[int]:
    """Ids of the words that stand for media."""
    ids = [config.image_token_id, getattr(config, "video_token_id", None)]
    return [token for token in ids if token is not None]


def translate_instructcir(values: dict[str, Any]) -> LlavaConfig:
    """The released ``config.json`` as a config of transformers."""
    text = values["text_config"]
    scaling = text["rope_scaling"]
    first_trained_on = text["original_max_position_embeddings"]
    rope = {
        "rope_type": "longrope",
        "rope_theta": text["rope_theta"],
        "short_factor": scaling["short_factor"],
        "long_factor": scaling["long_factor"],
        "original_max_position_embeddings": first_trained_on,
        "factor": text["max_position_embeddings"] / first_trained_on,
    }
    same = {name: value for name, value in text.items() if name not in _TEXT_OTHERWISE}
    kept = {name: values[name] for name in _KEPT if name in values}
    return LlavaConfig(text_config=LlamaConfig(**same, rope_parameters=rope), **kept)
