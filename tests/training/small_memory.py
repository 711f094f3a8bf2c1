"""A device of little memory: one layer of a model runs out of it where too many tokens are alive at once."""

import weakref

import torch


class SmallMemory:
    """Counts the tokens that pass a layer, and those of graphs that are still there.

    Args:
        layer: a layer that takes and gives hidden states ``[B, L, D]``.
        most: tokens that fit.
        backward: how many times its tokens a backward pass takes beside the graph.
        allocate: raises what the device says.
    """

    def __init__(self, layer, most, *, backward=0, allocate=None):
        self.most = most
        self.backward = backward
        self.allocate = allocate or self.raise_cuda
        self.failures = 0
        self._graphs = []
        layer.register_forward_hook(self._passed)

    def take(self, tokens):
        self._graphs = [(graph, size) for graph, size in self._graphs if graph() is not None]
        if tokens + sum(size for _, size in self._graphs) > self.most:
            self.failures += 1
            self.allocate()

    def keep(self, graph, tokens):
        self._graphs.append((weakref.ref(graph), tokens))

    def _passed(self, layer, args, output):
        states = output[0] if isinstance(output, tuple) else output
        tokens = states.shape[0] * states.shape[1]
        self.take(tokens)
        if not states.requires_grad:
            return None
        states = _Alive.apply(states, self, tokens)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    @staticmethod
    def raise_cuda():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    @staticmethod
    def raise_cpu():
        """Really: no machine has so much."""
        torch.empty(1 << 60, dtype=torch.uint8)

    @staticmethod
    def raise_python():
        raise MemoryError


class _Alive(torch.autograd.Function):
    """Passes states on; while their graph lives, so does what its node holds."""

    @staticmethod
    def forward(ctx, states, device, tokens):
        ctx.held, ctx.device, ctx.tokens = torch.empty(0), device, tokens
        device.keep(ctx.held, tokens)
        return states.clone()

    @staticmethod
    def backward(ctx, gradient):
        # layers above have put their gradients in place by now
        ctx.device.take(ctx.device.backward * ctx.tokens)
        return gradient, None, None
