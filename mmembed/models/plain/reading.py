"""What the library itself makes of a folder: its processor and model, run on items as we write them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoProcessor

from mmembed.items import Item, Video
from mmembed.media.decode import decode
from mmembed.models.checkpoint import quiet
from mmembed.models.language import LanguageBackbone
from mmembed.models.layouts import laid_out
from mmembed.models.plain.processors import opened_with
from mmembed.models.prompts import render
from mmembed.models.sequence import collate


@torch.no_grad()
def our_states(backbone: LanguageBackbone, item: Item) -> Tensor:
    """Hidden states ``[T, D]`` of an item, in float32."""
    batch = collate([backbone.preprocessor(item, "query")]).to(next(backbone.model.parameters()).device)
    hidden = backbone.run(backbone.embed(batch, backbone.vision(batch)))
    return hidden.states.float().cpu()


class Library:
    """A folder opened by transformers alone.

    Args:
        backbone: what was exported: its prompts and frames are taken.
        directory: what an export wrote.
    """

    def __init__(self, backbone: LanguageBackbone, directory: Path) -> None:
        self.backbone = backbone
        with quiet():
            self.device = next(backbone.model.parameters()).device
            self.model: Any = AutoModel.from_pretrained(directory, dtype=torch.float32).to(self.device).eval()
            self.processor: Any = AutoProcessor.from_pretrained(directory, **opened_with(backbone))

    @torch.no_grad()
    def states(self, item: Item, *, sequential: bool = False) -> Tensor:
        """Hidden states ``[T, D]`` of an item.

        Args:
            item: what to run.
            sequential: hand the model one position counter in place of its own positions.
        """
        inputs = self._inputs(item)
        if sequential:
            inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
        given = {name: value.to(self.device) for name, value in inputs.items() if isinstance(value, Tensor)}
        states: Tensor = self.model(**given, use_cache=False).last_hidden_state
        return states[0].cpu()

    def _inputs(self, item: Item) -> dict[str, Any]:
        text = prompt_of(self.backbone, item)
        if not hasattr(self.processor, "tokenizer"):
            return dict(self.processor(text, return_tensors="pt"))
        stills, clips, facts = media_of(self.backbone, item)
        media: dict[str, Any] = {"images": [stills]} if stills else {}
        if clips:
            media |= {"videos": [clips], "videos_kwargs": {"video_metadata": [facts], "do_sample_frames": False}}
        return dict(self.processor(text=[text], return_tensors="pt", **media))


def prompt_of(backbone: LanguageBackbone, item: Item) -> str:
    """The string of an item, each medium one placeholder that the library's processor replaces."""
    preprocessor, named = backbone.preprocessor, list(backbone.preprocessor.words.values())
    made = render(
        laid_out(item, preprocessor.prompt, "query"),
        preprocessor.prompt,
        [named[isinstance(medium, Video)] for medium in item.media],
        preprocessor._apply_template,
        (),
        preprocessor.placeholders,
        preprocessor.image_word,
    )
    return "".join(segment.text for segment in made)


def media_of(backbone: LanguageBackbone, item: Item) -> tuple[list[Any], list[list[Any]], list[dict[str, Any]]]:
    """Pictures, clips as the frames that are taken of them, and what the library is told of these."""
    settings: Any = backbone.preprocessor.settings
    stills = [decode(medium, settings.media).pictures[0] for medium in item.media if not isinstance(medium, Video)]
    clips = [frames_of(backbone, medium) for medium in item.media if isinstance(medium, Video)]
    return stills, [frames for frames, _ in clips], [facts for _, facts in clips]


def frames_of(backbone: LanguageBackbone, clip: Video) -> tuple[list[Any], dict[str, Any]]:
    """The frames that are taken of a clip, and when they are, as transformers is told."""
    settings: Any = backbone.preprocessor.settings
    frames = decode(clip, settings.media)
    facts = {"fps": frames.fps, "total_num_frames": frames.span, "frames_indices": list(frames.indices)}
    return list(frames.pictures), facts | {"duration": frames.span / frames.fps}
