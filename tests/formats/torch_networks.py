"""PyTorch networks with step activations, their weights such that a good part of units fires."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch: Any = pytest.importorskip("torch", reason="these networks are PyTorch modules")
nn: Any = torch.nn


class StraightThrough(torch.autograd.Function):  # type: ignore[misc]
    """A step whose gradient is that of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return (x >= 0.5).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient


class Surrogate(torch.autograd.Function):  # type: ignore[misc]
    """A step with a gradient of its own, written in the newer style."""

    @staticmethod
    def forward(x: Any) -> Any:
        return (x >= 0.5).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        (x,) = ctx.saved_tensors
        return gradient / (1 + 10 * (x - 0.5).abs()) ** 2


FORMS = {
    "comparison": lambda x: (x >= 0.5).float(),
    "strict comparison": lambda x: (x > 0.5).to(x.dtype),
    "function": StraightThrough.apply,
    "function in the newer style": Surrogate.apply,
    "where": lambda x: torch.where(x >= 0.5, 1.0, 0.0),
    "where of arrays": lambda x: torch.where(x < 0.5, torch.zeros_like(x), torch.ones_like(x)),
    "negation": lambda x: (~(x < 0.5)).float(),
    "detached": lambda x: x + ((x >= 0.5).float() - x).detach(),
    "relu of sign": lambda x: torch.relu(torch.sign(x - 0.5)),
    "round of clamp": lambda x: torch.round(torch.clamp(x, 0, 1)),
    "heaviside": lambda x: torch.heaviside(x - 0.5, torch.ones(())),
    "strict heaviside": lambda x: torch.heaviside(x - 0.5, torch.zeros(())),
}
NEWER_ALONE = ("heaviside", "strict heaviside")
"""What the older exporter does not know."""


class Spike(nn.Module):  # type: ignore[misc]
    """A step, written in one of the forms."""

    def __init__(self, form: str = "comparison") -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Any) -> Any:
        return FORMS[self.form](x)


class Residual(nn.Module):  # type: ignore[misc]
    """Skip connections, added and side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act1 = nn.Conv2d(1, 4, 3, padding="same"), Spike("function")
        self.body, self.act2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), Spike()
        self.act3 = Spike("where")
        self.join, self.act4 = nn.Conv2d(8, 3, 2, stride=2), Spike()
        self.head = nn.Linear(3 * 4 * 4, 5)

    def forward(self, x: Any) -> Any:
        x = self.act1(self.stem(x))
        y = self.act2(self.body(x))
        z = self.act3(x + self.body(y) + 0.25)
        joined = self.act4(self.join(torch.cat([x, z], dim=1)))
        return self.head(joined.flatten(1))


class Functional(nn.Module):  # type: ignore[misc]
    """Steps that are no modules of their own, shapes that depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.fc = nn.Linear(4 * 3 * 3, 6)

    def forward(self, x: Any) -> Any:
        x = (self.conv(x) > 0.5).float()
        return (self.fc(x.view(x.shape[0], -1)) >= 0.5).float()


def dense() -> Any:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 30), Spike("function"), nn.Linear(30, 20), Spike("where")
    )


def classifier() -> Any:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 30), Spike(), nn.Linear(30, 5), nn.LogSoftmax(dim=-1)
    )


def convolutional() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding="same"),
        nn.BatchNorm2d(6),
        Spike(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 4, padding="same", groups=2, bias=False),
        nn.BatchNorm2d(8),
        Spike("function"),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Conv2d(8, 4, 2, dilation=1),
        Spike(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def pools() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2, padding=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.BatchNorm2d(4),
        Spike(),
        nn.ZeroPad2d((1, 0, 2, 1)),
        nn.Conv2d(4, 4, 3),
        Spike("function in the newer style"),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(12, 6),
        nn.BatchNorm1d(6),
        Spike(),
    )


def autoencoder() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        Spike(),
        nn.Conv2d(6, 4, 3, stride=2, padding=1),
        Spike("function"),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 6, 3, padding=1),
        Spike(),
        nn.ConvTranspose2d(6, 1, 3, stride=2, padding=1, output_padding=1),
        Spike(),
    )


def line() -> Any:
    return nn.Sequential(
        nn.Flatten(start_dim=2),
        nn.Conv1d(1, 4, 5, stride=3, padding=2),
        nn.BatchNorm1d(4),
        Spike(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(44, 4),
        Spike(),
    )


NETWORKS: dict[str, Any] = {
    "dense": dense,
    "classifier": classifier,
    "convolutional": convolutional,
    "pools": pools,
    "autoencoder": autoencoder,
    "line": line,
    "residual": Residual,
    "functional": Functional,
}


def balanced(module: Any, x: Any) -> Any:
    """Set statistics and biases such that steps see numbers around their threshold."""
    generator = torch.Generator().manual_seed(5)

    def center(layer: Any, inputs: Any, output: Any) -> Any:
        axes = [a for a in range(output.ndim) if a != 1]
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            (values,) = inputs
            layer.running_mean.copy_(values.mean(axes))
            layer.running_var.copy_(values.var(axes) + 0.01)
            layer.weight.copy_(torch.rand(layer.weight.shape, generator=generator) + 0.5)
            layer.bias.copy_(torch.rand(layer.bias.shape, generator=generator) * 0.6)
        elif layer.bias is not None:
            layer.bias += 0.45 - output.mean(axes)
        return layer.forward(*inputs)

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d)
    module.eval()
    hooks = [m.register_forward_hook(center) for m in module.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return module


def network(name: str) -> Any:
    """Return a balanced network for maps of 8 x 8."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    return balanced(NETWORKS[name](), as_input(rng.integers(0, 256, (64, 1, 8, 8))))


def as_input(samples: NDArray[Any]) -> Any:
    """Return what the module reads for integer samples."""
    return torch.tensor(samples.astype(np.float32) * np.float32(1 / 255))


def activations(module: Any, x: Any) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return what every step module reads and gives, by its name."""
    before, after = {}, {}
    hooks = []
    for name, inner in module.named_modules():
        if isinstance(inner, Spike):

            def keep(_: Any, inputs: Any, output: Any, name: str = name) -> None:
                before[name], after[name] = inputs[0].numpy(), output.numpy()

            hooks.append(inner.register_forward_hook(keep))
    with torch.no_grad():
        after[""] = module(x).numpy()
    for hook in hooks:
        hook.remove()
    return before, after
