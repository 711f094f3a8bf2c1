"""Released checkpoints that transformers does not open by itself, translated to what it knows.

InstructCIR (arXiv:2412.05756) is a LLaVA of CLIP and Phi-3.5: the language model is written as a Llama, its projections
split, with Phi-3.5's two lists of rotary frequencies (LongRoPE, arXiv:2402.13753).
"""

from typing import Any

from transformers import LlamaConfig, LlavaConfig

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
        """See :meth:`Family.read_config`; InstructCIR's model types become ``llava`` and ``llama``."""
        values = read_json(path, "config.json", where)
        if values.get("model_type") == INSTRUCTCIR:
            return translate_instructcir(values)
        return super().read_config(path, where)


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
