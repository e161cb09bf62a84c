"""Watch named blocks during one forward pass, and stop as soon as the last of them has been seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ldm_kit.models.outputs import image_part


class _AllSeenError(Exception):
    """Raised inside a forward pass to leave it early; never reaches the caller."""


class Watch:
    """What `watching` has seen; `seen[block]` holds whatever `keep` made of each block's output."""

    def __init__(self, blocks: Sequence[str]) -> None:
        self.blocks = tuple(blocks)
        self.seen: dict[str, Any] = {}

    @property
    def complete(self) -> bool:
        """Whether every block has been seen."""
        return len(self.seen) == len(self.blocks)


@contextmanager
def watching(
    denoiser: nn.Module,
    blocks: Sequence[str],
    keep: Callable[[Tensor, str], Any] | None = None,
    *,
    stop: bool = True,
) -> Iterator[Watch]:
    """Watch `blocks` of `denoiser`; hooks are removed whatever happens.

    Parameters
    ----------
    denoiser : torch.nn.Module
    blocks : sequence of str
        Module paths that exist.
    keep : callable (tensor, layout) -> Any, optional
        Makes what is kept, at once and on the device, e.g. a pooled copy; by default the tensor.
    stop : bool
        Leave the forward pass when every block has been seen: nothing deeper is computed. A module
        that runs more than once in a pass is seen at its first run.

    Yields
    ------
    Watch

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    >>> with watching(net, ["0"]) as watch:
    ...     _ = net(torch.zeros(1, 1, 2, 2))
    >>> watch.seen["0"].shape
    torch.Size([1, 1, 2, 2])

    Notes
    -----
    The manner is that of baukit's `Trace`.
    """
    watch = Watch(blocks)

    def hook_for(block: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if block in watch.seen:
                return
            tensor, layout = image_part(module, output, block)
            watch.seen[block] = tensor if keep is None else keep(tensor, layout)
            if stop and watch.complete:
                raise _AllSeenError

        return hook

    handles = [denoiser.get_submodule(block).register_forward_hook(hook_for(block)) for block in blocks]
    try:
        yield watch
    except _AllSeenError:
        pass
    finally:
        for handle in handles:
            handle.remove()
