"""Lightning saves to checkpoint folders and goes on from them."""

from functools import partial
from pathlib import Path

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmembed.errors import InputError
from mmembed.training.checkpoint import CheckpointFiles, checkpoint_path, list_checkpoints, verify

exactly = partial(torch.testing.assert_close, rtol=0, atol=0)
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{advice}.*")
    for advice in ("does not have many workers", "dataloader is not resumable", "no pre-optimization state was saved")
]


class Tiny(lightning.LightningModule):
    """A frozen and a trained layer, stepped by hand; its checkpoints leave the frozen one out."""

    strict_loading = False

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.frozen, self.trained = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 1)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.trained.parameters(), lr=0.1)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)}

    def on_save_checkpoint(self, checkpoint):
        checkpoint["state_dict"] = {n: v for n, v in checkpoint["state_dict"].items() if n.startswith("trained")}
        checkpoint["facts"] = {"recipe": "abc"}

    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        self.manual_backward(self.trained(self.frozen(batch)).square().mean())
        self.optimizers().step()
        self.lr_schedulers().step()


class Writes(lightning.Callback):
    """Counts the steps, and writes a checkpoint after one of them."""

    def __init__(self, directory=None, step=None):
        self.directory, self.step, self.seen = directory, step, []

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen = [*self.seen, batch.sum().item()]
        if trainer.global_step == self.step:
            trainer.save_checkpoint(checkpoint_path(self.directory, self.step))


def fit(root, callback, steps=6, ckpt_path=None, first=0):
    module = Tiny()
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", plugins=[CheckpointFiles()], callbacks=[callback], default_root_dir=root,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    rows = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1))
    trainer.fit(module, DataLoader(list(rows[first:]), batch_size=None), ckpt_path=ckpt_path, weights_only=True)
    return trainer, module


@pytest.mark.parametrize("kind", [str, Path])
def test_lightning_goes_on_from_a_folder_as_if_it_had_not_stopped(tmp_path, kind):
    straight = Writes()
    whole, module = fit(tmp_path, straight)
    fit(tmp_path, Writes(tmp_path, 3), steps=3)
    (path,) = list_checkpoints(tmp_path)

    resumed = Writes()
    trainer, again = fit(tmp_path, resumed, ckpt_path=kind(path), first=3)

    assert verify(path) == {"recipe": "abc"}
    assert CheckpointFiles().load_checkpoint(path)["state_dict"].keys() == {"trained.weight", "trained.bias"}
    exactly(again.state_dict(), module.state_dict())
    exactly(trainer.optimizers[0].state_dict()["state"], whole.optimizers[0].state_dict()["state"])
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == [0.1 * 0.5**3]
    assert resumed.seen == straight.seen
    assert (len(resumed.seen), trainer.global_step) == (6, 6)


def test_lightning_does_not_go_on_from_a_damaged_folder(tmp_path):
    fit(tmp_path, Writes(tmp_path, 3), steps=3)
    (path,) = list_checkpoints(tmp_path)
    weights = path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    with pytest.raises(InputError, match=r"weights.safetensors: expected bytes with the fingerprint"):
        fit(tmp_path, Writes(), ckpt_path=path)
