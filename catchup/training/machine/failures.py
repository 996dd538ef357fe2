"""What went wrong in a step, found out after it did, so that a step that goes well pays nothing:
where numbers stopped being finite, and how much memory was asked for.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def first_broken(
    model: nn.Module, images: Tensor | None = None, others: Mapping[str, nn.Module] | None = None
) -> str:
    """Where numbers are no longer finite: in the images, in the weights, or in what a layer makes
    of both.

    Args:
        model: the bare model, and left as it was. images: (B, C, H, W) of the step, on its device;
            None looks at the weights alone. others: a method's own networks by name, whose weights
            are looked at too.
    Returns:
        Words: "the images", "the weights 'layer1.0.conv1.weight' and 3 more", "the output of layer
        'layer2'", or that all that was looked at is finite. The first layer is the first that ran.
    """
    if images is not None and not images.isfinite().all():
        return "the images"
    weights = {
        f"{part}.{name}": value
        for part, module in (others or {}).items()
        for name, value in module.state_dict().items()
    }
    bad = [
        name
        for name, value in (model.state_dict() | weights).items()
        if value.is_floating_point() and not _finite(value)
    ]
    if bad:
        return f"the weights {bad[0]!r}" + (f" and {len(bad) - 1} more" if bad[1:] else "")
    if images is None:
        return "none of the weights"
    layer = _first_layer(model, images)
    return (
        f"the output of layer {layer!r}"
        if layer
        else "the loss alone: weights and answers of the model are finite"
    )


def _finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _first_layer(model: nn.Module, images: Tensor) -> str | None:
    """Name of the first module without children whose output is not finite, in one more forward
    pass.
    """
    found: list[str] = []
    buffers = {name: value.clone() for name, value in model.named_buffers()}

    def look(name: str) -> Callable:
        def hook(_module: nn.Module, _args: tuple, output: object) -> None:
            if isinstance(output, Tensor) and not _finite(output):
                found.append(name)

        return hook

    handles = [
        module.register_forward_hook(look(name))
        for name, module in model.named_modules()
        if not any(module.children())
    ]
    try:
        with torch.no_grad(), torch.random.fork_rng():
            model(images)
            # running statistics have seen the images once more
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def is_out_of_memory(error: BaseException) -> bool:
    """Was there too little memory, on the CPU or another device?"""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        should_reduce_batch_size(error) and "CUDNN" not in str(error)
    )


def memory_needed(error: BaseException, device: torch.device) -> str:
    """What was measured when memory ran out, in words: the highest use so far and the request that
    failed.
    """
    said = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
    if device.type == "cuda":
        used, all_of_it = (
            torch.cuda.max_memory_allocated(device),
            torch.cuda.mem_get_info(device)[1],
        )
        return (
            f"{used / 2**30:.2f} GiB at most were in use, of {all_of_it / 2**30:.2f} GiB ({said})"
        )
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return said
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"the process held {used / 2**30:.2f} GiB at most ({said})"
