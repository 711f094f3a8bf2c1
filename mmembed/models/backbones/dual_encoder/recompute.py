"""Gradient checkpointing of a dual encoder's towers."""

from typing import Any

from open_clip.modified_resnet import ModifiedResNet

from mmembed.errors import InputError


def recompute_activations(model: Any) -> None:
    """Recompute activations as open_clip does, but for towers where it would go on without in silence.

    Raises:
        InputError: such an image tower.
    """
    visual = model.visual
    refused = InputError(
        "backbone.gradient_checkpointing", expected="an image tower that can recompute its activations",
        got=type(getattr(visual, "trunk", visual)).__name__, remedy="leave it out",
    )  # fmt: skip
    if isinstance(visual, ModifiedResNet):
        raise refused
    try:
        getattr(visual, "trunk", visual).set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise refused from error
    model.set_grad_checkpointing(True)
