"""A frozen SAM 2 (arXiv:2408.00714) that encodes a picture once and answers any number of prompts in it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.counters import count
from mmembed.models.media_cache import MediaCache
from mmembed.models.precision import whole_convolutions
from mmembed.models.region_prompts import Size
from mmembed.models.sam2.prompts import SamPrompt, alike, mask_tensor, point_tensors
from mmembed.models.settings import DType

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROMPTS_AT_ONCE = 16
"""Most prompts that pass through the decoder together; each has a map of the whole picture."""
_FINE = "fine "


@dataclass(frozen=True)
class Encoded:
    """A picture as the mask decoder reads it.

    Args:
        image: ``[C, side / 16, side / 16]``.
        fine: the maps at four and two times the resolution, which only masks are made of.
    """

    image: Tensor
    fine: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        return sum(level.nbytes for level in (self.image, *self.fine))


@dataclass(frozen=True)
class SamMask:
    """What a prompt was found to mean.

    Args:
        mask: bool ``[H, W]`` of the picture's own size, on the CPU.
        score: overlap with the truth that SAM 2 expects, in [0, 1].
    """

    mask: Tensor
    score: float


class Sam(nn.Module):
    """SAM 2 for pictures: never trains, always in evaluation mode, outside of any gradient and autocast.

    Args:
        model: transformers' ``Sam2Model``.
        dtype: type of the weights, but for those that encode prompts: half a pixel is lost in bfloat16.
        cache_mb: encoded pictures kept in memory, in MiB.
    """

    def __init__(self, model: Any, *, dtype: DType = "float32", cache_mb: int = 512) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.dtype: torch.dtype = getattr(torch, dtype)
        for part in (model.vision_encoder, model.mask_decoder):
            part.to(self.dtype)
        self.side: int = model.prompt_encoder.input_image_size
        self.width: int = model.prompt_encoder.hidden_size
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self._kept = MediaCache(cache_mb << 20)
        self.train(False)

    mean: Tensor
    std: Tensor

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels ``[3, side, side]``, by ImageNet's statistics as SAM 2 was trained."""
        return (pixels - self.mean) / self.std

    def guide_pixels(self, guide: Tensor) -> Tensor:
        """uint8 ``[3, side, side]`` -> what :meth:`encode` takes."""
        return self.normalise(guide.to(self.device, torch.float32) * (1 / 255))

    @torch.no_grad()
    def encode(self, names: Sequence[str], pixels_of: Callable[[int], Tensor], *, masks: bool = False) -> list[Encoded]:
        """Encode pictures, each once, those that are kept from before not at all. Counts ``sam_images``.

        Args:
            names: name each picture; equal names, equal pictures.
            pixels_of: gives the ``i``-th picture, normalised ``[3, side, side]``; asked only for those not known.
            masks: also keep what masks are made of, four times the memory.
        """
        found: dict[str, Encoded] = {}
        for i, name in enumerate(names):
            if name in found:
                continue
            known = self._kept.get(_FINE + name) or (None if masks else self._kept.get(name))
            if known is None:
                known = self._encode(pixels_of(i), masks)
                self._kept.put(_FINE + name if masks else name, known, known.nbytes)
            found[name] = _on(known, self.device)
        return [found[name] for name in names]

    @torch.no_grad()
    def keys(self, encoded: Sequence[Encoded], prompts: Sequence[SamPrompt]) -> Tensor:
        """The pictures' side of the mask decoder's two-way transformer, which no mask is made of here.

        Counts ``sam_prompts``.

        Args:
            encoded: the picture of each prompt.
            prompts: R of them.

        Returns:
            ``[R, C, side / 16, side / 16]``.
        """
        count("sam_prompts", len(prompts))
        maps = torch.empty(len(prompts), *encoded[0].image.shape, dtype=self.dtype, device=self.device)
        decoder = self.model.mask_decoder
        for group in alike(prompts, PROMPTS_AT_ONCE):
            images = torch.stack([encoded[i].image for i in group])
            with self._plainly():
                sparse, dense, places = self._prompted([prompts[i] for i in group])
                own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
                tokens = torch.cat([own.expand(len(group), 1, -1, -1), sparse], dim=2)
                _, keys = decoder.transformer(
                    point_embeddings=tokens,
                    image_embeddings=images + dense,
                    image_positional_embeddings=places,
                    attention_similarity=None,
                )
            maps[group] = keys[:, 0].transpose(1, 2).reshape_as(images)
        return maps

    @torch.no_grad()
    def masks(self, encoded: Sequence[Encoded], prompts: Sequence[SamPrompt], sizes: Sequence[Size]) -> list[SamMask]:
        """The mask of each prompt; of a single point, which may mean a thing or its part, the best of three.

        Counts ``sam_prompts``.

        Args:
            encoded: the picture of each prompt, encoded with ``masks``.
            prompts: what is meant.
            sizes: width and height of each picture.
        """
        count("sam_prompts", len(prompts))
        return [self._mask(*each) for each in zip(encoded, prompts, sizes, strict=True)]

    def _encode(self, pixels: Tensor, masks: bool) -> Encoded:
        count("sam_images")
        with self._plainly():
            *fine, image = self.model.get_image_embeddings(pixels.to(self.dtype)[None])
        # copies, lest a view keep all levels in memory
        kept = [level[0].to(self.dtype, copy=True) for level in ((image, *fine) if masks else (image,))]
        return Encoded(kept[0], tuple(kept[1:]))

    def _mask(self, encoded: Encoded, prompt: SamPrompt, size: Size) -> SamMask:
        with self._plainly():
            sparse, dense, places = self._prompted([prompt])
            logits, scores, *_ = self.model.mask_decoder(
                image_embeddings=encoded.image[None],
                image_positional_embeddings=places,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=len(prompt.points) == 1,
                high_resolution_features=[level[None] for level in encoded.fine],
            )
        best = int(scores[0, 0].argmax())
        width, height = size
        mask = F.interpolate(logits[0, 0, best].float()[None, None], (height, width), mode="bilinear")[0, 0] > 0
        return SamMask(mask.cpu(), float(scores[0, 0, best]))

    def _prompted(self, prompts: Sequence[SamPrompt]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens ``[R, 1, n, C]`` and maps ``[R, C, h, w]`` of prompts of one form, and where the maps' cells lie."""
        encoder = self.model.prompt_encoder
        points, labels = point_tensors(prompts, self.device)
        sparse, dense = encoder(points, labels, None, mask_tensor(prompts, encoder.mask_input_size, self.device))
        places = self.model.get_image_wide_positional_embeddings().expand(len(prompts), -1, -1, -1)
        return sparse.to(self.dtype), dense.to(self.dtype), places.to(self.dtype)

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """In the weights' own types, whatever trains around it."""
        with whole_convolutions(), torch.autocast(self.device.type, enabled=False):
            yield


def _on(encoded: Encoded, device: torch.device) -> Encoded:
    """Where the model is now."""
    if encoded.image.device == device:
        return encoded
    return Encoded(encoded.image.to(device), tuple(level.to(device) for level in encoded.fine))
