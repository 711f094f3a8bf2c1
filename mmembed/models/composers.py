"""Composers: the vector of an item's media and the vector of its text become one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.models.poolers import Pooler
from mmembed.models.sequence import Hidden


class Composer(Pooler):
    """Hidden states that are whole parts of rows, media before text -> ``[B, D]``, in float32."""

    def forward(self, hidden: Hidden) -> Tensor:
        """Compose rows of two parts; a row of one part is that part's vector."""
        states = hidden.states.float()
        last = hidden.lengths.cumsum(0) - 1
        first = last - hidden.lengths + 1
        out = states[first]
        both = (hidden.lengths == 2).nonzero()[:, 0]
        return out.index_copy(0, both, self.compose(states[first[both]], states[last[both]]))

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        """``[N, D], [N, D] -> [N, D]``; see the concrete composers."""
        raise NotImplementedError


class SumComposer(Composer):
    """See :class:`mmembed.models.settings.Sum`."""

    def __init__(self, image_weight: float, *, before: bool) -> None:
        super().__init__()
        self.image_weight = image_weight
        self.before = before

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        """See :meth:`Composer.compose`."""
        if self.before:
            image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        return self.image_weight * image + (1 - self.image_weight) * text


class SlerpComposer(Composer):
    """See :class:`mmembed.models.settings.Slerp`."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        """See :meth:`Composer.compose`. Between opposite vectors no circle is the shortest, and none is chosen."""
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        # the arc cosine of their product is coarse, and without a slope, where the vectors nearly agree
        angle = 2 * torch.atan2(_length(image - text), _length(image + text))
        return _share(1 - self.alpha, angle) * image + _share(self.alpha, angle) * text


class ProductComposer(Composer):
    """See :class:`mmembed.models.settings.Product`."""

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        """See :meth:`Composer.compose`."""
        return F.normalize(image, dim=-1) * F.normalize(text, dim=-1)


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return length


def _share(part: float, angle: Tensor) -> Tensor:
    """``sin(part angle) / sin(angle)``, which is ``part`` at angle 0."""
    return part * torch.sinc(part * angle / torch.pi) / torch.sinc(angle / torch.pi)
