"""How Lightning spreads a stage over the processes: one, whole copies (DDP), or sharded weights (FSDP2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from mmembed.processes import Processes

# what a checkpoint holds: whole tensors of what trains, on rank 0
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)


def trainer_choices(kind: str, processes: Processes) -> dict[str, Any]:
    """What the Trainer is told about processes.

    Args:
        kind: ``ddp`` or ``fsdp2``; one process needs neither.
        processes: those of the run.
    """
    if processes.world == 1:
        return {"devices": 1}
    strategy = ShardedStrategy(processes.world) if kind == "fsdp2" else _copies()
    return {"devices": processes.per_node, "num_nodes": processes.nodes, "strategy": strategy}


def _copies() -> DDPStrategy:
    # gradients are reduced by hand, once a step, so unused parameters need no looking for
    return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True)


class ShardedStrategy(ModelParallelStrategy):  # type: ignore[misc]
    """FSDP2 over all processes, with checkpoints in the one format of this package.

    The library's default would give every process of a machine to tensor parallelism, where gradients silently differ.
    """

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights that train, whole, on rank 0; nothing elsewhere."""
        return dict(get_model_state_dict(self.model, options=WHOLE))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimiser's state by parameter name, whole, on rank 0."""
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return dict(get_optimizer_state_dict(self.model, inner, options=WHOLE))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write on rank 0, as every strategy of one file does."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read on every rank, and keep this rank's part of weights and optimiser state."""
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=True)
        whole = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=whole)
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=True):
            set_optimizer_state_dict(self.model, optimizer, state, options=whole)
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Nothing: :meth:`load_checkpoint` has put the weights in their place."""
